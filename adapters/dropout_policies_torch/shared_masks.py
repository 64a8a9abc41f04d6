"""Drawing the masks that calls share inside `dropout_policies.sequence` and `hold`.

What one call draws is kept for the next: masks that are held, and the bits of some steps drawn in
advance. So a scope adds almost no cost to a loop over steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from dropout_policies_kernels.tracing import is_observed
from torch import Tensor

from dropout_policies.adapter import Plan, PlannedMask, RowGroup, SharedMasks, Slot, steps_to_draw

from .masks import Mask, Masks, as_mask, keyed_bits


class DrawnSteps(NamedTuple):
    """The bits of some steps, for rows whose masks are drawn together.

    Args:
        first: the number of the first step.
        keep: which elements are kept, `[T, B, F]`.
    """

    first: int
    keep: Tensor

    def has(self, first: int, count: int) -> bool:
        """Whether these bits cover `count` steps from step `first` on."""
        return self.first <= first and first + count <= self.first + len(self.keep)


def draw_shared(
    plan: Plan,
    shared: SharedMasks,
    back: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Masks:
    """Draw the masks of a call that shares them with other calls.

    Args:
        plan: the planned masks by slot, at the rates of this call.
        shared: the state that the calls share.
        back: how many steps before the next step the call begins.
        row_offset: the number of the first row, for rows without numbers of their own.
        device: the device of the masks.
        dtype: the dtype of their values.

    Raises:
        PolicyError: see `SharedMasks.row_groups`.
    """
    drawn: Masks = {}
    for slot, mask in plan.items():
        batch = mask.shape[1]
        groups = [shared.whole(batch, 0, back)]
        if mask.by_sample:
            groups = shared.row_groups(batch, row_offset, back)
        if mask.rule.per == "step":
            keep = _draw_steps(slot, mask, shared, groups, device)
            drawn[slot] = as_mask(slot, mask, keep, 0, dtype)
        else:
            drawn[slot] = _draw_held(slot, mask, shared, groups, device, dtype)
    return drawn


def _draw_held(
    slot: Slot,
    mask: PlannedMask,
    shared: SharedMasks,
    groups: Sequence[RowGroup],
    device: torch.device,
    dtype: torch.dtype,
) -> Mask:
    """Return a mask that is held for the sequence.

    If the rows are the same as in the previous call, it is the mask that was drawn then.
    """
    rows = [group._replace(first_step=0) for group in groups]
    request = (mask, rows, device, dtype, torch.is_inference_mode_enabled())
    is_kept = not is_observed()
    before: tuple[Any, Mask] | None = shared.drawn.get(slot) if is_kept else None
    if before is not None and before[0] == request:
        return before[1]
    steps, _, width = mask.shape
    shapes = [(steps, group.rows, width) for group in rows]
    parts = [
        _draw_bits(slot, mask, shared, *each, device) for each in zip(rows, shapes, strict=True)
    ]
    drawn = as_mask(slot, mask, parts[0] if len(parts) == 1 else torch.cat(parts, 1), 0, dtype)
    if is_kept:
        shared.drawn[slot] = request, drawn
    return drawn


def _draw_steps(
    slot: Slot,
    mask: PlannedMask,
    shared: SharedMasks,
    groups: Sequence[RowGroup],
    device: torch.device,
) -> Tensor:
    """Compute which elements are kept, for a mask that is new at each step.

    Some of its steps may have been drawn in advance.
    """
    steps, _, width = mask.shape
    is_kept = not is_observed()
    before = shared.drawn.get(slot, {}) if is_kept else {}
    after: dict[Any, DrawnSteps] = {}
    parts = []
    for group in groups:
        rows = group._replace(first_step=0)
        request = (rows, width, mask.rate, device, torch.is_inference_mode_enabled())
        block = before.get(request)
        if block is None or not block.has(group.first_step, steps):
            count = steps_to_draw(steps, 0 if block is None else len(block.keep), shared.goes_on)
            shape = (count, group.rows, width)
            block = DrawnSteps(
                group.first_step, _draw_bits(slot, mask, shared, group, shape, device)
            )
        after[request] = block
        begin = group.first_step - block.first
        parts.append(block.keep[begin : begin + steps])
    if is_kept:
        shared.drawn[slot] = after
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _draw_bits(
    slot: Slot,
    mask: PlannedMask,
    shared: SharedMasks,
    group: RowGroup,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Tensor:
    first_step = group.first_step
    return keyed_bits(
        slot, mask, group.seed, shared.call, shape, group.row_offset, device, first_step
    )
