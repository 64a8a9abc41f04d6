"""The oracle: stacked LSTM, GRU and RNN in plain NumPy that receive their masks as arguments.

It does literally what the page on policies says, one step at a time. It is written to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .placement.plans import Slot
from .policies.sites import Site

Array = npt.NDArray[np.float64]
Masks = Mapping[Slot, Array]


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction, with gates in the order i, f, g, o or r, z, n.

    Args:
        w_ih: from the input to the gates, `[G*H, D]`.
        w_hh: from the hidden state to the gates, `[G*H, P]` (P = H without a projection).
        bias: added to the input's part of the gates, `[G*H]`, or None.
        recurrent_bias: added to the hidden state's part of the gates, `[G*H]`, or None.
        w_hr: the projection of h, `[P, H]`, or None.
    """

    w_ih: Array
    w_hh: Array
    bias: Array | None = None
    recurrent_bias: Array | None = None
    w_hr: Array | None = None


class Noise:
    """The masks of one step of one layer in one direction. Sites without a mask are unmasked.

    Args:
        masks: the masks by site, `[T or 1, B, F]`.
        step: the number of the step, from 0.
    """

    def __init__(self, masks: Mapping[Site, Array], step: int) -> None:
        self._masks = {
            site: mask[step if len(mask) > 1 else 0] for site, mask in masks.items()
        }  # [B, F]

    def drop(self, site: Site, value: Array) -> Array:
        """D(value): the value times the mask."""
        return value * self._masks[site] if site in self._masks else value

    def zoneout(self, site: Site, previous: Array, new: Array) -> Array:
        """d ⊙ previous + (1 − d) ⊙ new."""
        d = self._masks.get(site)
        return new if d is None else d * previous + (1.0 - d) * new

    def into_gates(self, site: Site, value: Array, gates: int) -> list[Array]:
        """The value `[B, F]` as each gate sees it. The masks lie side by side, `[B, G*F]`."""
        mask = self._masks.get(site)
        if mask is None:
            return [value] * gates
        if mask.shape[-1] <= value.shape[-1]:  # one mask for all gates, or one number for all units
            return [value * mask] * gates
        return [value * part for part in np.split(mask, gates, axis=-1)]


State = tuple[Array, ...]
Step = Callable[[Array, State, Weights, Noise, Site], State]


def sigmoid(x: Array) -> Array:
    """The logistic function."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def lstm(x: Array, state: State, w: Weights, noise: Noise, entry: Site) -> State:
    """One step of an LSTM: from x `[B, D]` and the state (h `[B, P]`, c `[B, H]`) to the new state.

    Args:
        x: the input.
        state: h and c.
        w: the weights.
        noise: the masks.
        entry: the site of the input: `input` or `between`.
    """
    h, c = state
    i, f, g, o = _gates(4, x, h, w, noise, entry)
    new_c = sigmoid(f) * c + sigmoid(i) * noise.drop(Site.CANDIDATE, np.tanh(g))
    new_c = noise.drop(Site.CELL, new_c)
    new_h = sigmoid(o) * np.tanh(new_c)
    if w.w_hr is not None:
        new_h = new_h @ w.w_hr.T
    new_h = noise.drop(Site.STATE, new_h)
    return (
        noise.zoneout(Site.HIDDEN_UPDATE, h, new_h),
        noise.zoneout(Site.CELL_UPDATE, c, new_c),
    )


def gru(x: Array, state: State, w: Weights, noise: Noise, entry: Site) -> State:
    """One step of a GRU with the reset gate after W_hn (PyTorch, and Keras's `reset_after`).

    The arguments are those of `lstm`, except that the state is h alone.
    """
    (h,) = state
    into = _part(3, x, w.w_ih, w.bias, noise, entry)
    back = _part(3, h, w.w_hh, w.recurrent_bias, noise, Site.HIDDEN)
    r, z = sigmoid(into[0] + back[0]), sigmoid(into[1] + back[1])
    return _gru_update(h, z, np.tanh(into[2] + r * back[2]), noise)


def gru_reset_before(x: Array, state: State, w: Weights, noise: Noise, entry: Site) -> State:
    """One step of a GRU with the reset gate on h, before W_hn (Keras's `reset_after=False`).

    The arguments are those of `lstm`, except that the state is h alone.
    """
    (h,) = state
    into = _part(3, x, w.w_ih, w.bias, noise, entry)
    seen = noise.into_gates(Site.HIDDEN, h, 3)
    w_r, w_z, w_n = np.split(w.w_hh, 3)
    r, z = sigmoid(into[0] + seen[0] @ w_r.T), sigmoid(into[1] + seen[1] @ w_z.T)
    return _gru_update(h, z, np.tanh(into[2] + (r * seen[2]) @ w_n.T), noise)


def _gru_update(h: Array, z: Array, n: Array, noise: Noise) -> State:
    new_h = (1.0 - z) * noise.drop(Site.CANDIDATE, n) + z * h
    new_h = noise.drop(Site.STATE, new_h)
    return (noise.zoneout(Site.HIDDEN_UPDATE, h, new_h),)


def rnn(activation: Callable[[Array], Array]) -> Step:
    """Return the function for one step of a simple recurrent layer with this activation."""

    def step(x: Array, state: State, w: Weights, noise: Noise, entry: Site) -> State:
        (h,) = state
        (new_h,) = _gates(1, x, h, w, noise, entry)
        new_h = noise.drop(Site.STATE, activation(new_h))
        return (noise.zoneout(Site.HIDDEN_UPDATE, h, new_h),)

    return step


rnn_tanh = rnn(np.tanh)
rnn_relu = rnn(lambda x: np.maximum(x, 0.0))


def _part(
    gates: int, value: Array, weight: Array, bias: Array | None, noise: Noise, site: Site
) -> list[Array]:
    """A value's part of each gate, `[B, H]` each, with its masks applied."""
    seen = noise.into_gates(site, value, gates)
    parts = [s @ w.T for s, w in zip(seen, np.split(weight, gates), strict=True)]
    if bias is None:
        return parts
    return [part + b for part, b in zip(parts, np.split(bias, gates), strict=True)]


def _gates(gates: int, x: Array, h: Array, w: Weights, noise: Noise, entry: Site) -> list[Array]:
    into = _part(gates, x, w.w_ih, w.bias, noise, entry)
    back = _part(gates, h, w.w_hh, w.recurrent_bias, noise, Site.HIDDEN)
    return [a + b for a, b in zip(into, back, strict=True)]


def run(
    step: Step,
    x: Array,
    weights: Sequence[Sequence[Weights]],
    masks: Masks,
    initial_state: State | None = None,
    lengths: Sequence[int] | None = None,
    directions: Sequence[int] = (0,),
) -> tuple[Array, State]:
    """Run a stack of recurrent layers under given masks.

    Args:
        step: `lstm`, `gru`, `gru_reset_before`, `rnn_tanh` or `rnn_relu`.
        x: the input, `[T, B, D]`.
        weights: for each layer, the weights of each direction.
        masks: arrays by site, layer and direction, which broadcast to their planned shapes. A slot
            without an array is not masked.
        initial_state: h, and c for an LSTM, each `[L*K, B, P or H]` for K directions. None: zeros.
        lengths: the length of each sample. A padded step changes no state and has output 0. None:
            all samples have T steps.
        directions: the directions that run: 0 forward, 1 backward.

    Returns:
        The output `[T, B, K*P]`, and the last state in the same form as the initial state.
    """
    steps, batch = x.shape[:2]
    valid = np.ones((steps, batch), bool)
    if lengths is not None:
        valid = np.arange(steps)[:, None] < np.asarray(lengths)[None, :]
    last: list[State] = []
    for layer, layer_weights in enumerate(weights):
        outputs = []
        for direction, w in zip(directions, layer_weights, strict=True):
            if initial_state is None:
                start = _zeros(step, batch, w)
            else:
                start = tuple(part[len(last)] for part in initial_state)
            here = {s.site: m for s, m in masks.items() if s[1:] == (layer, direction)}
            w = replace(
                w,
                w_ih=w.w_ih * here.pop(Site.INPUT_WEIGHT, np.ones((1, 1, 1)))[0],
                w_hh=w.w_hh * here.pop(Site.RECURRENT_WEIGHT, np.ones((1, 1, 1)))[0],
            )
            entry = Site.INPUT if layer == 0 else Site.BETWEEN
            noise = [Noise(here, t) for t in range(steps)]
            y, end = _one_direction(step, x, w, start, noise, entry, valid, direction == 1)
            if layer == len(weights) - 1:
                y = np.stack([noise[t].drop(Site.OUTPUT, y[t]) for t in range(steps)])
            outputs.append(y)
            last.append(end)
        x = np.concatenate(outputs, axis=-1)
    return x, tuple(np.stack(part) for part in zip(*last, strict=True))


def _zeros(step: Step, batch: int, w: Weights) -> State:
    h = np.zeros((batch, w.w_hh.shape[1]))
    return (h, np.zeros((batch, len(w.w_ih) // 4))) if step is lstm else (h,)


def _one_direction(
    step: Step,
    x: Array,
    w: Weights,
    state: State,
    noise: Sequence[Noise],
    entry: Site,
    valid: npt.NDArray[np.bool_],
    backward: bool,
) -> tuple[Array, State]:
    y = np.zeros((*x.shape[:2], w.w_hh.shape[1]), np.result_type(x, w.w_hh, *state))
    for t in reversed(range(len(x))) if backward else range(len(x)):
        new = step(x[t], state, w, noise[t], entry)
        here = valid[t][:, None]
        state = tuple(np.where(here, a, b) for a, b in zip(new, state, strict=True))
        y[t] = np.where(here, new[0], 0.0)
    return y, state


def embedding(tokens: npt.NDArray[np.int_], matrix: Array, mask: Array | None = None) -> Array:
    """Look up tokens in an embedding matrix, without the word types that the mask drops.

    Args:
        tokens: `[T, B]`.
        matrix: `[V, F]`.
        mask: `[1, B or 1, V]`, or None.

    Returns:
        The rows, `[T, B, F]`.
    """
    rows: Array = matrix[tokens]
    if mask is None:
        return rows
    kept = np.broadcast_to(mask[0], (tokens.shape[1], len(matrix)))  # [B, V]
    shown: Array = rows * kept[np.arange(tokens.shape[1])[None, :], tokens][..., None]
    return shown
