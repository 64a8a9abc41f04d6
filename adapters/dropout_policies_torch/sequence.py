"""What the operators of whole sequences are made of; and the plain loop that stands in for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_policies.sites import Site

from .cells import STEPS, Weights, into_gates, over_steps

SITES = {
    "LSTM": (
        Site.HIDDEN,
        Site.CANDIDATE,
        Site.CELL,
        Site.STATE,
        Site.HIDDEN_UPDATE,
        Site.CELL_UPDATE,
    ),
    "GRU": (Site.HIDDEN, Site.CANDIDATE, Site.STATE, Site.HIDDEN_UPDATE),
}
"""The kinds of layers that have an operator, and its masks in order."""


Slices = Sequence[Tensor] | None
"""A mask step by step, or None where nothing is masked."""


def slices(mask: Tensor | None, steps: int) -> Slices:
    if mask is None:
        return None
    return mask.unbind(0) if len(mask) > 1 else [mask[0]] * steps


def order(steps: int, backward: bool) -> Sequence[int]:
    return range(steps - 1, -1, -1) if backward else range(steps)


def four(parts: Tensor) -> Tensor:
    """`[T, B, 4*H]` as `[T, B, 4, H]`."""
    return parts.view(*parts.shape[:2], 4, parts.shape[2] // 4)


def before(first: Tensor, every: Tensor, backward: bool) -> Tensor:
    """What each step had before it, `[T, B, H]`."""
    first = first[None]
    return torch.cat([every[1:], first]) if backward else torch.cat([first, every[:-1]])


def folded(state: Tensor | None, update: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What the new h and the old one count for in h_t = d ⊙ h_{t−1} + (1 − d) ⊙ D_s(h̃_t)."""
    if update is None:
        return state, None
    return (1.0 - update if state is None else (1.0 - update) * state), update


def again(
    mode: str,
    given: Sequence[Any],
    masks: Sequence[Tensor | None],
    backward: bool,
    pulls: tuple[Tensor, Tensor],
) -> tuple[Any, ...]:
    """The gradients of an operator's inputs by way of the plain loop, differentiable themselves.

    Args:
        mode: whose operator it is.
        given: its inputs: x, the states, w_ih, w_hh, and one bias or two.
        masks: its masks.
        backward: its direction.
        pulls: the gradients of every h, and of the last c (of a GRU, h).
    """
    count = 2 if mode == "LSTM" else 1
    x, states, (w_ih, w_hh, *biases) = given[0], given[1 : 1 + count], given[1 + count :]
    weights = Weights(w_ih, w_hh, *biases)
    noise = {site: mask for site, mask in zip(SITES[mode], masks, strict=True) if mask is not None}
    into = into_gates(mode, x, weights, None)
    step = STEPS[mode]
    hs, end = over_steps(
        lambda t, before, here: step(into[t], before, weights, here),
        len(x),
        tuple(states),
        noise,
        None,
        backward,
    )
    wanted = [each for each in given if each is not None and each.requires_grad]
    found = torch.autograd.grad((hs, end[-1]), wanted, pulls, create_graph=True, allow_unused=True)
    by_id = {id(each): grad for each, grad in zip(wanted, found, strict=True)}
    return tuple(by_id.get(id(each)) for each in given)
