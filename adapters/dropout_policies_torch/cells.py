"""One step of an LSTM, a GRU or a simple RNN under noise, and a loop of steps; all of it plainly
differentiable."""

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
"""What is carried from step to step: h `[B, P]`, and c `[B, H]` of an LSTM."""

Noise = Mapping[Site, Tensor]
"""The masks of one step, each `[B or 1, F or 1]`; what is not there is whole."""

TYPES = {
    "LSTM": cell_types.LSTM,
    "GRU": cell_types.GRU,
    "RNN_TANH": cell_types.RNN,
    "RNN_RELU": cell_types.RNN,
}
"""PyTorch's `mode` of a layer → what kind of layer it is."""


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction, as PyTorch keeps them, `[G*H, ...]`."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None

    @classmethod
    def of(cls, flat: list[Tensor]) -> Weights:
        """From `all_weights`: w_ih, w_hh, the two biases if there are, w_hr if there is one."""
        w_ih, w_hh, *rest = flat
        biases = rest[:2] if len(rest) >= 2 else [None, None]
        return cls(w_ih, w_hh, biases[0], biases[1], rest[-1] if len(rest) % 2 else None)

    def flat(self) -> list[Tensor]:
        """As PyTorch's kernels take them."""
        every = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)
        return [weight for weight in every if weight is not None]

    def to(self, dtype: torch.dtype) -> Weights:
        """In another type."""
        every = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)
        w_ih, w_hh, *rest = (None if weight is None else weight.to(dtype) for weight in every)
        assert w_ih is not None, "every layer has them"
        assert w_hh is not None, "every layer has them"
        return Weights(w_ih, w_hh, *rest)


Step = Callable[[Tensor, States, Weights, Noise], States]
"""The input's part of the gates `[B, G*H]` and the states, to the new states."""


def part(value: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """What a value `[..., B, F]` brings to the gates `[..., B, G*H]`, seen through its mask: one
    for all gates, or one for each, side by side `[..., B, G*F]`."""
    if mask is None or mask.shape[-1] in (1, value.shape[-1]):
        return linear(value if mask is None else value * mask.to(value.dtype), weight, bias)
    gates, width = mask.shape[-1] // value.shape[-1], value.shape[-1]
    mask = mask.to(value.dtype).reshape(*mask.shape[:-1], gates, width)
    by_gate = weight.reshape(gates, -1, width)
    found = torch.einsum("...gf,ghf->...gh", value.unsqueeze(-2) * mask, by_gate).flatten(-2)
    return found if bias is None else found + bias


def drop(noise: Noise, site: Site, value: Tensor) -> Tensor:
    """D(value)."""
    return value * noise[site] if site in noise else value


def zoneout(noise: Noise, site: Site, previous: Tensor, new: Tensor) -> Tensor:
    """d ⊙ previous + (1 − d) ⊙ new."""
    return torch.lerp(new, previous, noise[site].expand_as(new)) if site in noise else new


def _lstm(into: Tensor, states: States, w: Weights, noise: Noise) -> States:
    h, c = states
    gates = into + part(h, w.w_hh, None, noise.get(Site.HIDDEN))
    i, f, g, o = gates.chunk(4, dim=-1)
    new_c = f.sigmoid() * c + i.sigmoid() * drop(noise, Site.CANDIDATE, g.tanh())
    new_c = drop(noise, Site.CELL, new_c)
    new_h = o.sigmoid() * new_c.tanh()
    if w.w_hr is not None:
        new_h = linear(new_h, w.w_hr)
    new_h = drop(noise, Site.STATE, new_h)
    return (
        zoneout(noise, Site.HIDDEN_UPDATE, h, new_h),
        zoneout(noise, Site.CELL_UPDATE, c, new_c),
    )


def _gru(into: Tensor, states: States, w: Weights, noise: Noise) -> States:
    (h,) = states
    back = part(h, w.w_hh, w.b_hh, noise.get(Site.HIDDEN))
    (in_r, in_z, in_n), (r, z, n) = into.chunk(3, dim=-1), back.chunk(3, dim=-1)
    r, z = (in_r + r).sigmoid(), (in_z + z).sigmoid()
    n = drop(noise, Site.CANDIDATE, (in_n + r * n).tanh())
    new_h = drop(noise, Site.STATE, (1.0 - z) * n + z * h)
    return (zoneout(noise, Site.HIDDEN_UPDATE, h, new_h),)


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(into: Tensor, states: States, w: Weights, noise: Noise) -> States:
        (h,) = states
        new_h = activation(into + part(h, w.w_hh, None, noise.get(Site.HIDDEN)))
        new_h = drop(noise, Site.STATE, new_h)
        return (zoneout(noise, Site.HIDDEN_UPDATE, h, new_h),)

    return step


STEPS: dict[str, Step] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN_TANH": _rnn(torch.tanh),
    "RNN_RELU": _rnn(torch.relu),
}


def into_gates(mode: str, x: Tensor, w: Weights, mask: Tensor | None) -> Tensor:
    """The input's part of the gates, for all steps at once: `[T, B, D]` to `[T, B, G*H]`.

    Both biases are in it, save in a GRU, whose reset gate falls on the second.
    """
    bias = w.b_ih
    if bias is not None and w.b_hh is not None and mode != "GRU":
        bias = bias + w.b_hh
    return part(x, w.w_ih, bias, mask)


def _where(valid: Tensor, new: Any, old: Any) -> Any:
    """A part of the state where a sample `[B, 1]` has a step, and as it was where it has none."""
    if not isinstance(new, Tensor) or new.dim() == 0:
        return new
    return torch.where(valid.reshape(-1, *[1] * (new.dim() - 1)), new, old)


def over_steps(
    step: Callable[[int, States, Noise], States],
    steps: int,
    states: States,
    masks: Mapping[Site, Tensor],
    valid: Tensor | None,
    backward: bool,
) -> tuple[Tensor, States]:
    """Run a step over all T steps; where one is padding, the states stay.

    Returns:
        h of every step `[T, B, P]`, and the last states.
    """
    by_step = {s: m.unbind(0) if len(m) > 1 else [m[0]] * steps for s, m in masks.items()}
    outputs: list[Any] = [None] * steps
    for t in reversed(range(steps)) if backward else range(steps):
        new = step(t, states, {site: each[t] for site, each in by_step.items()})
        if valid is not None and states:  # which are empty before a cell of the user's own
            new = tuple(_where(valid[t], a, b) for a, b in zip(new, states, strict=True))
        states = new
        outputs[t] = states[0]
    return torch.stack(outputs), states
