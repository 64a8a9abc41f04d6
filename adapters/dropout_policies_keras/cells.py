"""One step of Keras's own cells under noise, from their weights and activations.

Masks come in the core's order of gates (i, f, g, o and r, z, n); Keras keeps a GRU's as z, r, n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    PolicyError,
    Site,
    cell_types,
)

from .kernels.compiled import made_again
from .kernels.products import By
from .tracing import Tensor

Cell = Any
"""A `keras.layers.LSTMCell`, `GRUCell` or `SimpleRNNCell`, or a cell of the user's own."""

States = list[Tensor]
"""What is carried from step to step: h `[B, H]`, and c `[B, H]` of an LSTM."""

Noise = Mapping[Site, Tensor]
"""The masks of one step, each `[B or 1, F or 1]`; what is not there is whole."""


class _UnderPolicy:
    """A cell of Keras's while its layer is under a policy, whose rates are the only ones.

    Its own dropout would act where the policy masks nothing, and draw from the state that the
    policy's masks come from; so it stays at 0, and setting it is an error.
    """

    stock: type[Cell]
    _layer_and_policy: tuple[str, str]

    def _get_rate(self) -> float:
        return 0.0

    def _set_dropout(self, rate: float) -> None:
        self._refuse("dropout", rate)

    def _set_recurrent_dropout(self, rate: float) -> None:
        self._refuse("recurrent_dropout", rate)

    dropout = property(_get_rate, _set_dropout)
    recurrent_dropout = property(_get_rate, _set_recurrent_dropout)

    def _refuse(self, name: str, rate: float) -> None:
        if rate != 0.0:
            raise native_dropout_error(*self._layer_and_policy, f"cell.{name}", rate)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cell:
        return cls.stock.from_config(config)


@keras.saving.register_keras_serializable(package="dropout_policies")
class LSTMCell(_UnderPolicy, keras.layers.LSTMCell):  # type: ignore[misc]
    """A `keras.layers.LSTMCell` whose layer is under a policy."""

    stock = keras.layers.LSTMCell


@keras.saving.register_keras_serializable(package="dropout_policies")
class GRUCell(_UnderPolicy, keras.layers.GRUCell):  # type: ignore[misc]
    """A `keras.layers.GRUCell` whose layer is under a policy."""

    stock = keras.layers.GRUCell


@keras.saving.register_keras_serializable(package="dropout_policies")
class SimpleRNNCell(_UnderPolicy, keras.layers.SimpleRNNCell):  # type: ignore[misc]
    """A `keras.layers.SimpleRNNCell` whose layer is under a policy."""

    stock = keras.layers.SimpleRNNCell


UNDER_POLICY = {kind.stock: kind for kind in (LSTMCell, GRUCell, SimpleRNNCell)}
"""The class that a cell of Keras has while its layer is under a policy."""

TYPES: dict[type[Cell], cell_types.CellType] = {
    kind: cell_type
    for stock, cell_type in (
        (keras.layers.LSTMCell, cell_types.LSTM),
        (keras.layers.GRUCell, cell_types.GRU),
        (keras.layers.SimpleRNNCell, cell_types.RNN),
    )
    for kind in (stock, UNDER_POLICY[stock])
}
"""What kind of layer a cell of Keras makes."""


def put_under_policy(cell: Cell, layer: str, policy: str) -> None:
    """Have a cell of Keras's refuse a dropout of its own.

    Args:
        cell: one whose dropout is 0.
        layer: the name of its layer, for the error.
        policy: that of the layer's policy.
    """
    cell.__dict__["_layer_and_policy"] = layer, policy
    cell.__class__ = UNDER_POLICY.get(type(cell), type(cell))


def put_back(cell: Cell, kind: type[Cell], dropout: float, recurrent_dropout: float) -> None:
    """Have a cell be what it was before `put_under_policy`, with the dropout that it had."""
    cell.__class__ = kind
    cell.dropout, cell.recurrent_dropout = dropout, recurrent_dropout
    if kind not in UNDER_POLICY.values():  # as it is where another layer's policy holds it too
        cell.__dict__.pop("_layer_and_policy", None)


def native_dropout_error(layer: str, policy: str, name: str, rate: Any) -> PolicyError:
    """What setting a layer's own dropout under a policy gives."""
    return PolicyError(
        f"{layer}: {name} cannot be set under a policy, whose rates are the layer's only dropout. "
        f"Received: {name}={rate!r}, policy={policy!r}; write: rate={rate!r} where the policy is "
        f"applied, as in dp.apply(model, 'zaremba', rate={rate!r}), or remove() it first."
    )


ORDER = {cell_types.LSTM: (0, 1, 2, 3), cell_types.GRU: (1, 0, 2), cell_types.RNN: (0,)}
"""For each gate in Keras's order, its number in the core's."""


def type_of(cell: Cell) -> cell_types.CellType:
    """What kind of layer a cell makes; a subclass may do anything, and is the user's own."""
    return TYPES.get(type(cell), cell_types.CUSTOM)


@dataclass(frozen=True)
class Weights:
    """The weights of a cell as tensors, as Keras keeps them: `[D, G*H]`, `[H, G*H]`, `[G*H]`."""

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor | None = None
    recurrent_bias: Tensor | None = None

    @classmethod
    def of(cls, cell: Cell, dtype: str, masks: dict[Site, Tensor]) -> Weights:
        """A cell's weights under their masks `[1, G*H, D or H]`, which are taken out of `masks`."""
        order = ORDER[type_of(cell)]

        def masked(variable: Any, site: Site) -> Tensor:
            weight, mask = _tensor(variable, dtype), masks.pop(site, None)
            if mask is None:
                return weight
            turned = ops.transpose(in_keras_order(mask, order, axis=1)[0])
            # In torch that is a view, and slow to multiply with, forward and backward; flattened,
            # it is laid out as the weight is.
            return weight * ops.reshape(ops.reshape(turned, (-1,)), turned.shape)

        kernel = masked(cell.kernel, Site.INPUT_WEIGHT)
        recurrent = masked(cell.recurrent_kernel, Site.RECURRENT_WEIGHT)
        if cell.bias is None:
            return cls(kernel, recurrent)
        bias = _tensor(cell.bias, dtype)
        if len(bias.shape) == 2:  # a GRU whose reset gate falls after its matrix
            return cls(kernel, recurrent, bias[0], bias[1])
        return cls(kernel, recurrent, bias)


def _tensor(variable: Any, dtype: str) -> Tensor:
    return ops.cast(ops.convert_to_tensor(variable), dtype)


def in_keras_order(mask: Tensor, order: tuple[int, ...], axis: int = -1) -> Tensor:
    """A mask whose gates lie side by side along an axis, from the core's order to Keras's."""
    if order == tuple(sorted(order)) or mask.shape[axis] == 1:
        return mask
    parts = ops.split(mask, len(order), axis=axis)
    return ops.concatenate([parts[gate] for gate in order], axis=axis)


def is_tied(mask: Tensor | None, width: int) -> bool:
    """Whether a mask of a value of some width is one for all gates."""
    return mask is None or mask.shape[-1] in (1, width)


def to_gates(
    kernel: Tensor, gates: int, apart: bool, by: By, added: int = 0
) -> Callable[..., Tensor]:
    """What takes a value `[..., F]`, seen through its mask if any, to the gates `[..., G*H]`.

    Args:
        kernel: `[F, G*H]`.
        gates: G.
        apart: whether each gate sees the value through a mask of its own; they are side by side in
            Keras's order, `[..., G*F]`.
        by: makes the product with a kernel.
        added: how many of the gates, from the first, are only added to what comes into a step.
    """
    if not apart:
        whole = by(kernel, added * kernel.shape[1] // gates)
        return lambda value, mask: whole(seen_through(mask, value))
    products = [by(of_gate) for of_gate in ops.split(kernel, gates, axis=-1)]

    def gate_by_gate(value: Tensor, masks: Tensor) -> Tensor:
        pairs = zip(products, ops.split(masks, gates, axis=-1), strict=True)
        return ops.concatenate([product(value * mask) for product, mask in pairs], axis=-1)

    return gate_by_gate


def seen_through(mask: Tensor | None, value: Tensor) -> Tensor:
    """D(value), under a mask or none."""
    return value if mask is None else value * mask


def drop(noise: Noise, site: Site, value: Tensor) -> Tensor:
    """D(value), where a step has noise at a site."""
    return seen_through(noise.get(site), value)


def zoneout(noise: Noise, site: Site, previous: Tensor, new: Tensor) -> Tensor:
    """d ⊙ previous + (1 − d) ⊙ new."""
    if site not in noise:
        return new
    d = noise[site]
    return d * previous + (1.0 - d) * new


Step = Callable[[Tensor, States, Noise], States]
"""The input's part of the gates `[B, G*H]` and the states, to the new states."""

Parts = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
Recurrent = Callable[[Tensor, Tensor | None], Parts]
"""What h, seen through its mask, brings to a GRU's z and r, and to n once r is known."""


def step_of(cell: Cell, w: Weights, apart: bool, by: By) -> Step:
    """One step of a cell of Keras's under noise.

    Args:
        cell: the cell.
        w: its weights.
        apart: whether each gate sees h through a mask of its own, in Keras's order.
        by: makes products with a kernel, of which each is taken once in a step.
    """
    steps = {cell_types.LSTM: _lstm, cell_types.GRU: _gru, cell_types.RNN: _rnn}
    return steps[type_of(cell)](cell, w, apart, by)


def _lstm(cell: Cell, w: Weights, apart: bool, by: By) -> Step:
    recurrent = to_gates(w.recurrent_kernel, 4, apart, by, 4)

    def step(into: Tensor, states: States, noise: Noise) -> States:
        h, c = states
        gates = into + recurrent(h, noise.get(Site.HIDDEN))

        @made_again
        def update(gates: Tensor, h: Tensor, c: Tensor) -> States:
            i, f, g, o = ops.split(gates, 4, axis=-1)
            i, f, o = (cell.recurrent_activation(gate) for gate in (i, f, o))
            new_c = f * c + i * drop(noise, Site.CANDIDATE, cell.activation(g))
            new_c = drop(noise, Site.CELL, new_c)
            new_h = drop(noise, Site.STATE, o * cell.activation(new_c))
            return [
                zoneout(noise, Site.HIDDEN_UPDATE, h, new_h),
                zoneout(noise, Site.CELL_UPDATE, c, new_c),
            ]

        return update(gates, h, c)

    return step


def _gru(cell: Cell, w: Weights, apart: bool, by: By) -> Step:
    def after() -> Recurrent:
        gates = to_gates(w.recurrent_kernel, 3, apart, by, 2)

        def parts(h: Tensor, mask: Tensor | None) -> Parts:
            back = gates(h, mask)
            if w.recurrent_bias is not None:
                back = back + w.recurrent_bias
            z, r, n = ops.split(back, 3, axis=-1)
            return z, r, lambda reset: reset * n

        return parts

    def before() -> Recurrent:
        to_z, to_r, to_n = (by(kernel) for kernel in ops.split(w.recurrent_kernel, 3, axis=-1))

        def parts(h: Tensor, mask: Tensor | None) -> Parts:
            masks = ops.split(mask, 3, axis=-1) if apart else [mask] * 3
            for_z, for_r, for_n = (seen_through(each, h) for each in masks)
            return to_z(for_z), to_r(for_r), lambda reset: to_n(reset * for_n)

        return parts

    recurrent = after() if cell.reset_after else before()

    def step(into: Tensor, states: States, noise: Noise) -> States:
        (h,) = states
        z, r, n_of = recurrent(h, noise.get(Site.HIDDEN))
        in_z, in_r, in_n = ops.split(into, 3, axis=-1)

        @made_again
        def update(z: Tensor, n: Tensor, h: Tensor) -> States:
            z = cell.recurrent_activation(z)
            n = drop(noise, Site.CANDIDATE, cell.activation(n))
            new_h = drop(noise, Site.STATE, z * h + (1.0 - z) * n)
            return [zoneout(noise, Site.HIDDEN_UPDATE, h, new_h)]

        return update(in_z + z, in_n + n_of(cell.recurrent_activation(in_r + r)), h)

    return step


def _rnn(cell: Cell, w: Weights, apart: bool, by: By) -> Step:
    recurrent = to_gates(w.recurrent_kernel, 1, apart, by, 1)

    def step(into: Tensor, states: States, noise: Noise) -> States:
        (h,) = states
        new_h = cell.activation(into + recurrent(h, noise.get(Site.HIDDEN)))
        new_h = drop(noise, Site.STATE, new_h)
        return [zoneout(noise, Site.HIDDEN_UPDATE, h, new_h)]

    return step
