"""The oracle: a stacked LSTM in plain NumPy that takes its masks from outside.

It does literally what the page on policies says, one step at a time, and is written to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .plan import Slot
from .sites import Site

Array = npt.NDArray[np.float64]
Masks = Mapping[Slot, Array]


@dataclass(frozen=True)
class LSTMWeights:
    """The weights of one layer in one direction; gates in the order i, f, g, o.

    Args:
        w_ih: input to gates, `[4*H, D]`.
        w_hh: hidden state to gates, `[4*H, P]` (P = H without a projection).
        bias: `[4*H]`, or None; where a framework has two biases, their sum.
        w_hr: the projection of h, `[P, H]`, or None.
    """

    w_ih: Array
    w_hh: Array
    bias: Array | None = None
    w_hr: Array | None = None

    @property
    def hidden_size(self) -> int:
        return int(self.w_ih.shape[0]) // 4

    @property
    def output_size(self) -> int:
        return self.hidden_size if self.w_hr is None else int(self.w_hr.shape[0])


def sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def lstm(
    x: Array,
    weights: Sequence[Sequence[LSTMWeights]],
    masks: Masks,
    initial_state: tuple[Array, Array] | None = None,
    lengths: Sequence[int] | None = None,
    directions: Sequence[int] = (0,),
) -> tuple[Array, Array, Array]:
    """Run a stack of LSTM layers under given masks.

    Args:
        x: the input, `[T, B, D]`.
        weights: for each layer, for each direction.
        masks: multipliers broadcastable to `[T, B, F]`, by site, layer and direction; a slot
            that is not there is not masked.
        initial_state: h and c, each `[L*K, B, P or H]` for K directions; zero if left out.
        lengths: the length of each sample; a padded step changes no state and gives output 0.
        directions: which directions run: 0 forward, 1 backward.

    Returns:
        The output `[T, B, K*P]`, h_n `[L*K, B, P]` and c_n `[L*K, B, H]`.
    """
    steps, batch = x.shape[:2]
    valid = np.ones((steps, batch), bool)
    if lengths is not None:
        valid = np.arange(steps)[:, None] < np.asarray(lengths)[None, :]
    last_h: list[Array] = []
    last_c: list[Array] = []
    for layer, layer_weights in enumerate(weights):
        outputs = []
        for direction, w in zip(directions, layer_weights, strict=True):
            start: tuple[Array, Array]
            if initial_state is None:
                start = np.zeros((batch, w.output_size)), np.zeros((batch, w.hidden_size))
            else:
                start = initial_state[0][len(last_h)], initial_state[1][len(last_h)]
            site = Site.INPUT if layer == 0 else Site.BETWEEN
            into = _masked(x, masks, Slot(site, layer, direction))
            hidden = masks.get(Slot(Site.HIDDEN, layer, direction), np.ones((1, 1, 1)))
            y, h, c = _one_direction(into, w, start, hidden, valid, backward=direction == 1)
            if layer == len(weights) - 1:
                y = _masked(y, masks, Slot(Site.OUTPUT, layer, direction))
            outputs.append(y)
            last_h.append(h)
            last_c.append(c)
        x = np.concatenate(outputs, axis=-1)
    return x, np.stack(last_h), np.stack(last_c)


def _masked(x: Array, masks: Masks, slot: Slot) -> Array:
    return x * masks[slot] if slot in masks else x


def _one_direction(
    x: Array,
    w: LSTMWeights,
    start: tuple[Array, Array],
    hidden_mask: Array,
    valid: npt.NDArray[np.bool_],
    backward: bool,
) -> tuple[Array, Array, Array]:
    steps, batch = x.shape[:2]
    hidden_mask = np.broadcast_to(hidden_mask, (steps, batch, w.output_size))
    h, c = start
    y = np.zeros((steps, batch, w.output_size))
    for t in reversed(range(steps)) if backward else range(steps):
        gates = x[t] @ w.w_ih.T + (h * hidden_mask[t]) @ w.w_hh.T
        if w.bias is not None:
            gates = gates + w.bias
        i, f, g, o = np.split(gates, 4, axis=1)  # [B, H] each
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        new_h = sigmoid(o) * np.tanh(new_c)
        if w.w_hr is not None:
            new_h = new_h @ w.w_hr.T
        here = valid[t][:, None]
        h, c = np.where(here, new_h, h), np.where(here, new_c, c)
        y[t] = np.where(here, new_h, 0.0)
    return y, h, c
