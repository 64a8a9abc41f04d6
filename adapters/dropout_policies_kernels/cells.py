"""One step of an LSTM, a GRU or a simple RNN under masks, and a loop over steps.

Autograd can differentiate all of it any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from dropout_policies.adapter import (
    Site,
    cell_types,
)

States = tuple[Tensor, ...]
"""The state that a layer carries from step to step: h `[B, P]`, and for an LSTM also c `[B, H]`."""

SiteMasks = Mapping[Site, Tensor]
"""Masks by site: `[B or 1, F or 1]` for one step, `[T or 1, B or 1, F or 1]` for a sequence. A site
that is missing has no mask."""

CELL_TYPES = {
    "LSTM": cell_types.LSTM,
    "GRU": cell_types.GRU,
    "RNN_TANH": cell_types.RNN,
    "RNN_RELU": cell_types.RNN,
}
"""PyTorch's `mode` of a layer → the type of its cell."""


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction, as PyTorch keeps them, `[G*H, ...]`."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None

    @classmethod
    def from_list(cls, weights: list[Tensor]) -> Weights:
        """Make the weights from an entry of `all_weights`.

        Args:
            weights: w_ih, w_hh, then both biases if there are any, then w_hr if there is one.
        """
        w_ih, w_hh, *rest = weights
        biases = rest[:2] if len(rest) >= 2 else [None, None]
        return cls(w_ih, w_hh, biases[0], biases[1], rest[-1] if len(rest) % 2 else None)

    def to_list(self) -> list[Tensor]:
        """Return the weights that exist, in the order that PyTorch's kernels expect."""
        weights = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)
        return [weight for weight in weights if weight is not None]

    def to(self, dtype: torch.dtype) -> Weights:
        """Return the weights in another dtype."""
        weights = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)
        w_ih, w_hh, *rest = (None if weight is None else weight.to(dtype) for weight in weights)
        assert w_ih is not None, "every layer has them"
        assert w_hh is not None, "every layer has them"
        return Weights(w_ih, w_hh, *rest)


StepFunction = Callable[[Tensor, States, Weights, SiteMasks], States]
"""A function that maps the input's part of the gates `[B, G*H]` and the states to the new states.
It also takes the weights and the masks of the step."""


def masked_linear(x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Multiply a masked value by a weight.

    Args:
        x: the value, `[..., B, F]`.
        weight: `[G*H, F]`, for G gates.
        bias: `[G*H]`, or None.
        mask: one mask for all gates, `[..., B or 1, F or 1]`, or one for each gate, side by side,
            `[..., B or 1, G*F]`. None: no mask.

    Returns:
        The value's part of the gates, `[..., B, G*H]`.
    """
    if mask is None or mask.shape[-1] in (1, x.shape[-1]):
        return linear(x if mask is None else x * mask.to(x.dtype), weight, bias)
    gates, width = mask.shape[-1] // x.shape[-1], x.shape[-1]
    mask = mask.to(x.dtype).reshape(*mask.shape[:-1], gates, width)
    by_gate = weight.reshape(gates, -1, width)
    product = torch.einsum("...gf,ghf->...gh", x.unsqueeze(-2) * mask, by_gate).flatten(-2)
    return product if bias is None else product + bias


def apply_drop(masks: SiteMasks, site: Site, value: Tensor) -> Tensor:
    """Return D(value): the value times the site's mask."""
    return value * masks[site] if site in masks else value


def apply_zoneout(masks: SiteMasks, site: Site, previous: Tensor, new: Tensor) -> Tensor:
    """Return d ⊙ previous + (1 − d) ⊙ new, for the site's mask d."""
    return torch.lerp(new, previous, masks[site].expand_as(new)) if site in masks else new


def _lstm_step(input_gates: Tensor, states: States, w: Weights, masks: SiteMasks) -> States:
    h, c = states
    gates = input_gates + masked_linear(h, w.w_hh, None, masks.get(Site.HIDDEN))
    i, f, g, o = gates.chunk(4, dim=-1)
    new_c = f.sigmoid() * c + i.sigmoid() * apply_drop(masks, Site.CANDIDATE, g.tanh())
    new_c = apply_drop(masks, Site.CELL, new_c)
    new_h = o.sigmoid() * new_c.tanh()
    if w.w_hr is not None:
        new_h = linear(new_h, w.w_hr)
    new_h = apply_drop(masks, Site.STATE, new_h)
    return (
        apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h),
        apply_zoneout(masks, Site.CELL_UPDATE, c, new_c),
    )


def _gru_step(input_gates: Tensor, states: States, w: Weights, masks: SiteMasks) -> States:
    (h,) = states
    hidden_gates = masked_linear(h, w.w_hh, w.b_hh, masks.get(Site.HIDDEN))
    input_r, input_z, input_n = input_gates.chunk(3, dim=-1)
    hidden_r, hidden_z, hidden_n = hidden_gates.chunk(3, dim=-1)
    r, z = (input_r + hidden_r).sigmoid(), (input_z + hidden_z).sigmoid()
    n = apply_drop(masks, Site.CANDIDATE, (input_n + r * hidden_n).tanh())
    new_h = apply_drop(masks, Site.STATE, (1.0 - z) * n + z * h)
    return (apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h),)


def _make_rnn_step(activation: Callable[[Tensor], Tensor]) -> StepFunction:
    def step(input_gates: Tensor, states: States, w: Weights, masks: SiteMasks) -> States:
        (h,) = states
        hidden_gates = masked_linear(h, w.w_hh, None, masks.get(Site.HIDDEN))
        new_h = apply_drop(masks, Site.STATE, activation(input_gates + hidden_gates))
        return (apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h),)

    return step


STEP_FUNCTIONS: dict[str, StepFunction] = {
    "LSTM": _lstm_step,
    "GRU": _gru_step,
    "RNN_TANH": _make_rnn_step(torch.tanh),
    "RNN_RELU": _make_rnn_step(torch.relu),
}
"""PyTorch's `mode` of a layer → the function for one step of it."""


def compute_input_gates(mode: str, x: Tensor, w: Weights, mask: Tensor | None) -> Tensor:
    """Compute the input's part of the gates for all steps at once.

    The result includes both biases. For a GRU it includes only the first, because the reset gate
    multiplies the second.

    Args:
        mode: PyTorch's name for the kind of layer.
        x: the input, `[T, B, D]`.
        w: the weights.
        mask: the mask of the input, as `masked_linear` takes it, or None.

    Returns:
        `[T, B, G*H]`.
    """
    bias = w.b_ih
    if bias is not None and w.b_hh is not None and mode != "GRU":
        bias = bias + w.b_hh
    return masked_linear(x, w.w_ih, bias, mask)


def _keep_state_of_padding(valid: Tensor, new: Any, old: Any) -> Any:
    """Return the new state for the samples `[B, 1]` whose step is valid, else the old state."""
    if not isinstance(new, Tensor) or new.dim() == 0:
        return new
    return torch.where(valid.reshape(-1, *[1] * (new.dim() - 1)), new, old)


def loop_over_steps(
    step: Callable[[int, States, SiteMasks], States],
    steps: int,
    states: States,
    masks: SiteMasks,
    valid: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, States]:
    """Run a step function over all steps of a sequence.

    Args:
        step: a function that maps the number of a step, the states and the step's masks to the
            new states.
        steps: T.
        states: the initial states.
        masks: the masks of the sequence.
        valid: which steps of which samples are not padding, `[T, B, 1]`. At a step of padding the
            states stay as they are. None: no step is padding.
        reverse: whether steps run from the last to the first.

    Returns:
        The h of every step, `[T, B, P]`, and the last states.
    """
    by_step = {s: m.unbind(0) if len(m) > 1 else [m[0]] * steps for s, m in masks.items()}
    outputs: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        new = step(t, states, {site: of_steps[t] for site, of_steps in by_step.items()})
        if valid is not None and states:  # a user's own cell may start without states
            pairs = zip(new, states, strict=True)
            new = tuple(_keep_state_of_padding(valid[t], a, b) for a, b in pairs)
        states = new
        outputs[t] = states[0]
    return torch.stack(outputs), states
