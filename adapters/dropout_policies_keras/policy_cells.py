"""Keras's own cells while their layer is under a policy: they refuse their own dropout."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import keras

from dropout_policies.adapter import (
    PolicyError,
    PolicyWarning,
    cell_types,
    short_repr,
)

Cell = Any
"""A `keras.layers.LSTMCell`, `GRUCell` or `SimpleRNNCell`, or a user's own cell."""


_runs_in_its_layer: ContextVar[bool] = ContextVar("_runs_in_its_layer", default=False)


@contextmanager
def run_in_layer() -> Iterator[None]:
    """Make a context in which cells are called by their layer, which applies the masks."""
    token = _runs_in_its_layer.set(True)
    try:
        yield
    finally:
        _runs_in_its_layer.reset(token)


class _PolicyCell:
    """One of Keras's cells while its layer is under a policy. A mixin before the cell's class.

    The cell's own dropout would act even where the policy masks nothing, and it would draw from the
    random state of the policy's masks. So it stays at 0, and setting it is an error.

    The layer applies the masks. If code calls the cell directly, nothing is masked, and a warning
    says so.
    """

    stock: type[Cell]
    name: str
    _layer_and_policy: tuple[str, str]
    _told_of_own_call: bool = False

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """Run the stock cell, with a warning for a training call outside of its layer."""
        if training and not self._told_of_own_call and not _runs_in_its_layer.get():
            self.__dict__["_told_of_own_call"] = True
            layer, policy = self._layer_and_policy
            cell = f"dropout_policies_keras.{type(self).__name__}(units, policy={policy!r})"
            warnings.warn(
                f"{self.name} is called by itself, where policy {policy!r} of its layer {layer} "
                f"masks nothing. For masks in both, make the cell with the policy, as in {cell}, "
                f"and leave {layer} without one.",
                PolicyWarning,
                stacklevel=2,
            )
        return super().call(inputs, states, training=training)  # type: ignore[misc]

    def _get_rate(self) -> float:
        return 0.0

    def _set_dropout(self, rate: float) -> None:
        self._check_rate("dropout", rate)

    def _set_recurrent_dropout(self, rate: float) -> None:
        self._check_rate("recurrent_dropout", rate)

    dropout = property(_get_rate, _set_dropout)
    recurrent_dropout = property(_get_rate, _set_recurrent_dropout)

    def _check_rate(self, name: str, rate: float) -> None:
        if rate != 0.0:
            raise native_dropout_error(*self._layer_and_policy, f"cell.{name}", rate)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cell:
        return cls.stock.from_config(config)


@keras.saving.register_keras_serializable(package="dropout_policies")
class LSTMCell(_PolicyCell, keras.layers.LSTMCell):  # type: ignore[misc]
    """A `keras.layers.LSTMCell` whose layer is under a policy."""

    stock = keras.layers.LSTMCell


@keras.saving.register_keras_serializable(package="dropout_policies")
class GRUCell(_PolicyCell, keras.layers.GRUCell):  # type: ignore[misc]
    """A `keras.layers.GRUCell` whose layer is under a policy."""

    stock = keras.layers.GRUCell


@keras.saving.register_keras_serializable(package="dropout_policies")
class SimpleRNNCell(_PolicyCell, keras.layers.SimpleRNNCell):  # type: ignore[misc]
    """A `keras.layers.SimpleRNNCell` whose layer is under a policy."""

    stock = keras.layers.SimpleRNNCell


POLICY_CELLS = {kind.stock: kind for kind in (LSTMCell, GRUCell, SimpleRNNCell)}
"""For each class of Keras's cells, the class that replaces it under a policy."""

CELL_TYPES: dict[type[Cell], cell_types.CellType] = {
    kind: cell_type
    for stock, cell_type in (
        (keras.layers.LSTMCell, cell_types.LSTM),
        (keras.layers.GRUCell, cell_types.GRU),
        (keras.layers.SimpleRNNCell, cell_types.RNN),
    )
    for kind in (stock, POLICY_CELLS[stock])
}
"""The type of each of Keras's cell classes."""

GATE_ORDER = {cell_types.LSTM: (0, 1, 2, 3), cell_types.GRU: (1, 0, 2), cell_types.RNN: (0,)}
"""For each gate in Keras's order, its number in the core's order."""


def cell_type_of(cell: Cell) -> cell_types.CellType:
    """Return the type of a layer's cell. A subclass may do anything, and counts as a user's own."""
    if is_convolutional(cell):
        return cell_types.LSTM
    return CELL_TYPES.get(type(cell), cell_types.CUSTOM)


def is_keras_cell(cell: Cell) -> bool:
    """Whether a layer's cell is one of Keras's, and not a user's own."""
    return cell_type_of(cell) is not cell_types.CUSTOM


def is_convolutional(cell: Cell) -> bool:
    """Whether a cell is that of Keras's `ConvLSTM1D`, `ConvLSTM2D` or `ConvLSTM3D`.

    Its class has no public name, and only those layers make one.
    """
    kind = getattr(type(cell), "stock", type(cell))
    return kind.__name__ == "ConvLSTMCell" and kind.__module__.startswith("keras.")


def is_cell(layer: Any) -> bool:
    """Whether a layer is one of Keras's cells, or derived from one."""
    return isinstance(layer, tuple(POLICY_CELLS))


def put_under_policy(cell: Cell, layer: str, policy: str) -> None:
    """Make one of Keras's cells refuse its own dropout.

    Args:
        cell: a cell whose dropout is 0.
        layer: the name of its layer, for errors.
        policy: the name of the layer's policy.
    """
    cell.__dict__["_layer_and_policy"] = layer, policy
    kind: Any = type(cell)
    if is_convolutional(cell):
        cell.__class__ = _policy_class(getattr(kind, "stock", kind))
    else:
        cell.__class__ = POLICY_CELLS.get(kind, kind)


@cache
def _policy_class(kind: type[Cell]) -> type[Cell]:
    """Make the class, under a policy, of a cell whose class has no public name."""
    return type(kind.__name__, (_PolicyCell, kind), {"stock": kind, "__doc__": kind.__doc__})


def restore_cell(cell: Cell, kind: type[Cell], dropout: float, recurrent_dropout: float) -> None:
    """Undo `put_under_policy`.

    Args:
        cell: the cell.
        kind: the class to restore.
        dropout: the rate to restore.
        recurrent_dropout: the recurrent rate to restore.
    """
    cell.__class__ = kind
    cell.dropout, cell.recurrent_dropout = dropout, recurrent_dropout
    if not issubclass(kind, _PolicyCell):  # another layer's policy may hold the cell too
        for name in ("_layer_and_policy", "_told_of_own_call"):
            cell.__dict__.pop(name, None)


def native_dropout_error(layer: str, policy: str, name: str, rate: Any) -> PolicyError:
    """Make the error for setting a layer's own dropout under a policy."""
    shown = short_repr(rate)
    return PolicyError(
        f"{layer}: {name} cannot be set under a policy, whose rates are the layer's only dropout. "
        f"Received: {name}={shown}, policy={policy!r}; write: rate={shown} where the policy is "
        f"applied, as in dp.apply(model, 'zaremba', rate={shown}), or remove() it first."
    )
