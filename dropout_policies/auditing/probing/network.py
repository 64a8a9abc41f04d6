"""A module as the network that it is: cells in layers, and which of its weights are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...policies.cell_types import GRU, LSTM, RNN, CellType
from .probe import Array, Parameter

TYPES: dict[int, CellType] = {4: LSTM, 3: GRU, 1: RNN}
"""Kinds of cells by their number of gates."""

SHUT = 200.0
"""A gate's bias that makes it exactly 0 or 1 in float32."""

Place = tuple[int, int]
"""Which cell: the layer, from 0, and the direction, 0 forward and 1 backward."""


@dataclass(frozen=True, slots=True)
class Block:
    """A matrix `[out, in]` that lies in some columns of a parameter.

    Args:
        parameter: which.
        start, stop: the columns that it has there.
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
    """A vector in a parameter: all of it, or one of its rows."""

    parameter: Parameter
    row: int | None = None

    @property
    def size(self) -> int:
        return self.parameter.shape[-1]


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer in one direction.

    Args:
        place: where it stands.
        into, back: the weights of what comes in, `[G*H, D]`, and of the hidden state, `[G*H, P]`.
        units: H.
        projection: `[P, H]`, or None.
        biases: those that are added to the gates; the candidate sees all of the first one.
    """

    place: Place
    into: Block
    back: Block
    units: int
    projection: Block | None = None
    biases: tuple[Bias, ...] = ()

    @property
    def kind(self) -> CellType:
        return TYPES[self.into.rows // self.units]

    @property
    def width(self) -> int:
        """How many features leave it."""
        return self.units if self.projection is None else self.projection.rows


@dataclass(frozen=True, slots=True)
class Gates:
    """Which rows of a kind of cell do what.

    Args:
        candidate: the gate whose value is added to the state.
        memory: the gate, and the sign of its bias, that lets nothing of the state stay; None for
            a cell that has no such gate.
        half_open: the bias at which each gate is half open; nothing where that is 0 for all.
    """

    candidate: int = 0
    memory: tuple[int, float] | None = None
    half_open: tuple[float, ...] = ()


@dataclass(frozen=True)
class Network:
    """What is known of a module.

    Args:
        parameters: all its trainable arrays.
        cells: by place.
        gates: by the number of gates.
        decoder: the matrix that comes after the last layer, or None.
        added: the vectors that are added after that.
        first: the first of the decoder's rows that is free for signals; those before stand for
            tokens, where it is the embedding's matrix.
    """

    parameters: Sequence[Parameter]
    cells: Mapping[Place, Cell]
    gates: Mapping[int, Gates] = field(default_factory=dict)
    decoder: Block | None = None
    added: tuple[Bias, ...] = ()
    first: int = 0

    @property
    def layers(self) -> int:
        return max(layer for layer, _ in self.cells) + 1

    def layer(self, number: int) -> list[Cell]:
        """The cells of a layer, in the order in which their features lie side by side."""
        return [cell for place, cell in sorted(self.cells.items()) if place[0] == number]

    def of(self, cell: Cell) -> Gates:
        return self.gates.get(cell.kind.gates, Gates())

    def offset(self, cell: Cell) -> int:
        """The first of the cell's features among those that leave its layer."""
        before = [c for c in self.layer(cell.place[0]) if c.place < cell.place]
        return sum(c.width for c in before)

    def above(self, cell: Cell) -> list[Cell]:
        """The cells through which a cell's signal goes to the output, from below."""
        return [self.layer(number)[0] for number in range(cell.place[0] + 1, self.layers)]

    def below(self, cell: Cell) -> list[Cell]:
        """The cells through which a signal comes to a cell, all directions, from below."""
        return [c for number in range(cell.place[0]) for c in self.layer(number)]

    def visible(self, cell: Cell) -> int:
        """How many of a cell's features can be seen at the output."""
        seen = min(c.width for c in (cell, *self.above(cell)))
        if self.decoder is None:
            return seen
        last = [cell, *self.above(cell)][-1]
        rows = self.decoder.rows - self.first
        return min(seen, rows, self.decoder.columns - self.offset(last))

    def leaves_at(self, cell: Cell) -> int:
        """Where a cell's first feature is seen among those of the output."""
        last = [cell, *self.above(cell)][-1]
        return self.first if self.decoder is not None else self.offset(last)

    def with_gates(self, gates: Mapping[int, Gates]) -> Network:
        return replace(self, gates=gates)


class Setting:
    """Weights under which a network carries chosen signals only; everything else is zero.

    Args:
        network: the network.
        remembers: the cells whose state lasts; the others forget it at every step, where they can.
    """

    def __init__(self, network: Network, remembers: Sequence[Cell] = ()) -> None:
        self.network = network
        self.arrays: dict[str, Array] = {}
        for cell in network.cells.values():
            blocks = [cell.into, cell.back, *([cell.projection] if cell.projection else [])]
            named = [b.parameter for b in blocks] + [b.parameter for b in cell.biases]
            self.arrays |= {p.name: np.zeros(p.shape) for p in named}
        for cell in network.cells.values():
            if cell.projection is not None:
                self._put(cell.projection, np.eye(cell.width, cell.units))
            if cell.biases:
                for gate, bias in enumerate(network.of(cell).half_open):
                    self.open(cell, gate, bias)
            memory = network.of(cell).memory
            if memory is not None and cell.biases and cell not in remembers:
                self.open(cell, memory[0], memory[1] * SHUT)
        ends = [b.parameter for b in network.added]
        ends += [network.decoder.parameter] if network.decoder is not None else []
        self.arrays |= {p.name: np.zeros(p.shape) for p in ends}

    def _put(self, block: Block, matrix: Array, first: int = 0) -> None:
        array = self.arrays[block.parameter.name]
        view = array.T if block.parameter.transposed else array
        view[first : first + len(matrix), block.start : block.start + matrix.shape[1]] = matrix

    def _add(self, bias: Bias, values: Array | float, gate: int, units: int) -> None:
        array = self.arrays[bias.parameter.name]
        row = array if bias.row is None else array[bias.row]
        row[gate * units : (gate + 1) * units] += values

    def open(self, cell: Cell, gate: int, bias: float) -> Setting:
        """More of a bias on a gate."""
        self._add(cell.biases[0], bias, gate, cell.units)
        return self

    def into(self, cell: Cell, matrix: Array, gate: int | None = None) -> Setting:
        """What a gate, the candidate if none is named, sees of what comes in: `[H, <= D]`."""
        gate = self.network.of(cell).candidate if gate is None else gate
        self._put(cell.into, matrix, gate * cell.units)
        return self

    def back(self, cell: Cell, matrix: Array, gate: int | None = None) -> Setting:
        """What a gate, the candidate if none is named, sees of the hidden state: `[H, <= P]`."""
        gate = self.network.of(cell).candidate if gate is None else gate
        self._put(cell.back, matrix, gate * cell.units)
        return self

    def project(self, cell: Cell, matrix: Array) -> Setting:
        """What a cell's projection makes of its h, `[P, H]`."""
        assert cell.projection is not None
        self._put(cell.projection, matrix)
        return self

    def drive(self, cell: Cell, value: float) -> Setting:
        """A bias on the candidate of every unit."""
        self._add(cell.biases[0], value, self.network.of(cell).candidate, cell.units)
        return self

    def feed(self, cell: Cell) -> Setting:
        """Let every unit of a cell see the mean of x, through the cells below."""
        for lower in (*self.network.below(cell), cell):
            self.into(lower, np.full((lower.units, lower.into.columns), 1.0 / lower.into.columns))
        return self

    def pass_up(self, cell: Cell, down: int = 0, first: float = 1.0) -> Setting:
        """Let the cells above, and the decoder, hand a cell's features on, one to one; the decoder
        so many rows further down than they come, and at the top again after the last. The first of
        those cells takes in `first` times as much."""
        current = cell
        for upper in self.network.above(cell):
            route = (first if current is cell else 1.0) * np.eye(upper.units, current.width)
            shifted = np.zeros((upper.units, upper.into.columns))
            offset = self.network.offset(current)
            shifted[:, offset : offset + current.width] = route
            self.into(upper, shifted)
            current = upper
        if self.network.decoder is not None:
            offset = self.network.offset(current)
            matrix = np.zeros((self.network.decoder.rows, self.network.decoder.columns))
            rows = len(matrix) - self.network.first
            units = np.arange(min(rows, current.width))
            matrix[self.network.first + (units + down) % rows, offset + units] = 1.0
            self._put(self.network.decoder, matrix)
        return self
