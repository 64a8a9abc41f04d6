"""Describes a module as a network: cells in layers, and the weights of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...policies.cell_types import GRU, LSTM, RNN, CellType
from .probe import Array, Parameter
from .weight_arrays import Pool

CELL_TYPES: dict[int, CellType] = {4: LSTM, 3: GRU, 1: RNN}
"""The types of cells, by their number of gates."""

Place = tuple[int, int]
"""The place of a cell: the layer, from 0, and the direction, 0 forward or 1 backward."""


@dataclass(frozen=True, slots=True)
class Block:
    """A matrix `[out, in]` that occupies some columns of a parameter.

    Args:
        parameter: the parameter.
        start, stop: the columns of the block in the parameter.
    """

    parameter: Parameter
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.parameter.shape[1 if self.parameter.transposed else 0]

    @property
    def columns(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Bias:
    """A bias vector in a parameter: the whole parameter, or one of its rows."""

    parameter: Parameter
    row: int | None = None

    @property
    def size(self) -> int:
        return self.parameter.shape[-1]


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer in one direction.

    Args:
        place: its layer and direction.
        input_weights: the weights of the input, `[G*H, D]`.
        recurrent_weights: the weights of the hidden state, `[G*H, P]`.
        units: H.
        projection: `[P, H]`, or None.
        biases: the biases of the gates. The candidate sees all of the first one.
    """

    place: Place
    input_weights: Block
    recurrent_weights: Block
    units: int
    projection: Block | None = None
    biases: tuple[Bias, ...] = ()

    @property
    def layer(self) -> int:
        return self.place[0]

    @property
    def is_backward(self) -> bool:
        return self.place[1] == 1

    @property
    def kind(self) -> CellType:
        return CELL_TYPES[self.input_weights.rows // self.units]

    @property
    def width(self) -> int:
        """The number of features that leave the cell."""
        return self.units if self.projection is None else self.projection.rows

    def ordered(self, first: int, second: int) -> tuple[int, int]:
        """Put two steps of a sequence into the order in which the cell runs them."""
        return (second, first) if self.is_backward else (first, second)


@dataclass(frozen=True, slots=True)
class GateRoles:
    """The roles of the gates in a kind of cell.

    Args:
        candidate: the gate whose value is added to the state.
        forget: the gate that makes the cell forget its state, and the sign of its bias for that.
            None if there is no such gate.
        half_open_biases: the bias with which each gate is half open. Empty if it is 0 for all.
    """

    candidate: int = 0
    forget: tuple[int, float] | None = None
    half_open_biases: tuple[float, ...] = ()


@dataclass(frozen=True)
class Network:
    """A module as a network.

    Args:
        parameters: all trainable arrays of the module.
        cells: the cells, by place.
        gates: the roles of the gates, by the number of gates.
        decoder: the matrix after the last layer, or None.
        decoder_biases: the vectors that are added after the decoder.
        first_free_row: the first row of the decoder that can carry signals. If the decoder is the
            embedding's matrix, the rows before it stand for tokens.
        other_weights: the values of all other parameters, such as a learned initial state.
        pool: the arrays of weights that measurements share.
    """

    parameters: Sequence[Parameter]
    cells: Mapping[Place, Cell]
    gates: Mapping[int, GateRoles] = field(default_factory=dict)
    decoder: Block | None = None
    decoder_biases: tuple[Bias, ...] = ()
    first_free_row: int = 0
    other_weights: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)
    pool: Pool = field(default_factory=dict, compare=False, repr=False)

    @property
    def layers(self) -> int:
        return max(layer for layer, _ in self.cells) + 1

    @property
    def last_layer(self) -> list[Cell]:
        return self.layer_cells(self.layers - 1)

    def layer_cells(self, layer: int) -> list[Cell]:
        """Return the cells of a layer, in the order of their features."""
        return [cell for place, cell in sorted(self.cells.items()) if place[0] == layer]

    def gate_roles(self, cell: Cell) -> GateRoles:
        return self.gates.get(cell.kind.gates, GateRoles())

    def with_gates(self, gates: Mapping[int, GateRoles]) -> Network:
        return replace(self, gates=gates)

    def feature_offset(self, cell: Cell) -> int:
        """Return the index of the cell's first feature among those that leave its layer."""
        before = [c for c in self.layer_cells(cell.layer) if c.place < cell.place]
        return sum(c.width for c in before)

    def cells_above(self, cell: Cell) -> list[Cell]:
        """Return the cells through which a cell's signal goes to the output, from below."""
        return [self.layer_cells(layer)[0] for layer in range(cell.layer + 1, self.layers)]

    def cells_below(self, cell: Cell) -> list[Cell]:
        """Return the cells in all directions through which a signal reaches a cell, from below."""
        return [c for layer in range(cell.layer) for c in self.layer_cells(layer)]

    def visible_features(self, cell: Cell) -> int:
        """Return how many of a cell's features reach the output."""
        visible = min(c.width for c in (cell, *self.cells_above(cell)))
        if self.decoder is None:
            return visible
        last = [cell, *self.cells_above(cell)][-1]
        rows = self.decoder.rows - self.first_free_row
        return min(visible, rows, self.decoder.columns - self.feature_offset(last))

    def output_offset(self, cell: Cell) -> int:
        """Return the index of a cell's first feature in the output."""
        last = [cell, *self.cells_above(cell)][-1]
        return self.first_free_row if self.decoder is not None else self.feature_offset(last)
