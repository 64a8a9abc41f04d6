"""The steps of a sequence: their order, one step's part of an array, and the step before each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .operator_arguments import Masks

AnyMasks = TypeVar("AnyMasks", bound=Masks)

CHUNK_ROWS = 128
"""The number of rows of x whose gates are computed at once if nothing is saved. On a CPU this is as
fast as computing all rows at once, and it needs no array of all gates."""


def step_order(steps: int, reverse: bool) -> Sequence[int]:
    """Return the numbers of the steps in the order in which they run."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def split_steps(steps: int, batch: int, reverse: bool) -> list[slice]:
    """Split a sequence into the parts whose gates are computed at once, in running order.

    Args:
        steps: T.
        batch: B.
        reverse: whether steps run from the last to the first.
    """
    size = -(-steps // max(1, steps * batch // CHUNK_ROWS))
    chunks = [slice(first, first + size) for first in range(0, steps, size)]
    return chunks[::-1] if reverse else chunks


def masks_in_chunk(masks: AnyMasks, chunk: slice) -> AnyMasks:
    """Return the part of each mask `[T or 1, ..., ...]` that belongs to a chunk of steps."""
    parts = [mask if mask is None or len(mask) == 1 else mask[chunk] for mask in masks]
    return type(masks)(*parts)


def by_step(array: Tensor, steps: int) -> Sequence[Tensor]:
    """Return each step's part of an array `[T or 1, ...]`. One part is shared by all steps."""
    return array.unbind(0) if len(array) == steps else [array[0]] * steps


def mask_by_step(mask: Tensor | None, steps: int, state: Tensor) -> Sequence[Tensor] | None:
    """Return each step's part of a mask. None if there is no mask.

    Args:
        mask: `[T or 1, B or 1, F or 1]`, or one for each gate, `[T or 1, B or 1, G*F]`, or None.
        steps: T.
        state: the state that the mask is applied to, `[B, F]`.

    Returns:
        A tensor `[B, F]` or `[B, G*F]` for each step.
    """
    if mask is None:
        return None
    batch, width = state.shape
    return by_step(mask.expand(len(mask), batch, max(mask.shape[-1], width)), steps)


def split_four_gates(gates: Tensor) -> Tensor:
    """View `[T, B, 4*H]` as `[T, B, 4, H]`."""
    return gates.view(*gates.shape[:2], 4, gates.shape[2] // 4)


def previous_values(initial: Tensor, values: Tensor, reverse: bool) -> list[tuple[slice, Tensor]]:
    """Find the value before each step.

    Args:
        initial: the value before the first step, `[B, F]`.
        values: the value of each step, `[T, B, F]`.
        reverse: whether steps run from the last to the first.

    Returns:
        Pairs of a slice of steps and the values before them.
    """
    if reverse:
        return [(slice(None, -1), values[1:]), (slice(-1, None), initial[None])]
    return [(slice(1, None), values[:-1]), (slice(0, 1), initial[None])]


def previous_hidden(h0: Tensor, hs: Tensor, reverse: bool, mask: Tensor | None = None) -> Tensor:
    """Return the h before each step, `[T, B, H]`, times a mask `[T or 1, ..., ...]` if given."""
    previous = torch.empty_like(hs)
    for steps, values in previous_values(h0, hs, reverse):
        if mask is None:
            previous[steps].copy_(values)
        else:
            torch.mul(values, mask[steps] if len(mask) > 1 else mask, out=previous[steps])
    return previous


def grad_previous_outputs(grad_hs: Tensor, reverse: bool) -> Sequence[Tensor]:
    """Return for each step the gradient of the previous step's output. Zeros for the first step."""
    of_steps, zeros = list(grad_hs.unbind(0)), torch.zeros_like(grad_hs[0])
    return [*of_steps[1:], zeros] if reverse else [zeros, *of_steps[:-1]]
