"""Sets a network's weights so that it carries chosen signals only.

Every weight starts at zero and every gate half open. A measurement then opens the few connections
that it needs: input to a cell, hidden state to a gate, cell to output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .network import Bias, Block, Cell, Network
from .probe import Array

SATURATING_BIAS = 200.0
"""A bias that makes a gate exactly 0 or 1 in float32."""


class SignalWeights:
    """Weights under which a network carries chosen signals only; everything else is zero.

    Args:
        network: the network.
        remembering: the cells whose state lasts; the others forget it at every step, if they can.
    """

    def __init__(self, network: Network, remembering: Sequence[Cell] = ()) -> None:
        self.network = network
        self.arrays: dict[str, Array] = {}
        for cell in network.cells.values():
            blocks = [cell.input_weights, cell.recurrent_weights]
            blocks += [cell.projection] if cell.projection else []
            parameters = [b.parameter for b in blocks] + [b.parameter for b in cell.biases]
            self.arrays |= {p.name: np.zeros(p.shape) for p in parameters}
        for cell in network.cells.values():
            if cell.projection is not None:
                self._set_block(cell.projection, np.eye(cell.width, cell.units))
            roles = network.gate_roles(cell)
            if cell.biases:
                for gate, bias in enumerate(roles.half_open_biases):
                    self.add_gate_bias(cell, gate, bias)
            if roles.forget is not None and cell.biases and cell not in remembering:
                gate, sign = roles.forget
                self.add_gate_bias(cell, gate, sign * SATURATING_BIAS)
        decoding = [b.parameter for b in network.decoder_biases]
        decoding += [network.decoder.parameter] if network.decoder is not None else []
        self.arrays |= {p.name: np.zeros(p.shape) for p in decoding}

    def _set_block(self, block: Block, matrix: Array, first_row: int = 0) -> None:
        array = self.arrays[block.parameter.name]
        view = array.T if block.parameter.transposed else array
        rows = slice(first_row, first_row + len(matrix))
        view[rows, block.start : block.start + matrix.shape[1]] = matrix

    def _add_bias(self, bias: Bias, values: Array | float, gate: int, units: int) -> None:
        array = self.arrays[bias.parameter.name]
        row = array if bias.row is None else array[bias.row]
        row[gate * units : (gate + 1) * units] += values

    def _gate(self, cell: Cell, gate: int | None) -> int:
        return self.network.gate_roles(cell).candidate if gate is None else gate

    def add_gate_bias(self, cell: Cell, gate: int, bias: float) -> SignalWeights:
        """Add to the bias of a gate."""
        self._add_bias(cell.biases[0], bias, gate, cell.units)
        return self

    def set_input(self, cell: Cell, matrix: Array, gate: int | None = None) -> SignalWeights:
        """Set a gate's input weights, `[H, <= D]`; the candidate's if no gate is given."""
        self._set_block(cell.input_weights, matrix, self._gate(cell, gate) * cell.units)
        return self

    def set_recurrent(self, cell: Cell, matrix: Array, gate: int | None = None) -> SignalWeights:
        """Set a gate's recurrent weights, `[H, <= P]`; the candidate's if no gate is given."""
        self._set_block(cell.recurrent_weights, matrix, self._gate(cell, gate) * cell.units)
        return self

    def set_projection(self, cell: Cell, matrix: Array) -> SignalWeights:
        """Set a cell's projection, `[P, H]`."""
        assert cell.projection is not None
        self._set_block(cell.projection, matrix)
        return self

    def drive_candidate(self, cell: Cell, value: float) -> SignalWeights:
        """Add a bias to the candidate of every unit: a signal that needs no input."""
        return self.add_gate_bias(cell, self._gate(cell, None), value)

    def feed_mean(self, cell: Cell) -> SignalWeights:
        """Let every unit of a cell see the mean of x, through the cells below."""
        for lower in (*self.network.cells_below(cell), cell):
            columns = lower.input_weights.columns
            self.set_input(lower, np.full((lower.units, columns), 1.0 / columns))
        return self

    def route_to_output(
        self, cell: Cell, row_shift: int = 0, first_gain: float = 1.0
    ) -> SignalWeights:
        """Let the cells above, and the decoder, hand on a cell's features one to one.

        Args:
            cell: the cell.
            row_shift: how many rows the decoder shifts the features by; the last rows wrap around
                to the first.
            first_gain: the weight of the first cell above.
        """
        current = cell
        for upper in self.network.cells_above(cell):
            identity = np.eye(upper.units, current.width)
            matrix = np.zeros((upper.units, upper.input_weights.columns))
            offset = self.network.feature_offset(current)
            gain = first_gain if current is cell else 1.0
            matrix[:, offset : offset + current.width] = gain * identity
            self.set_input(upper, matrix)
            current = upper
        decoder, first = self.network.decoder, self.network.first_free_row
        if decoder is not None:
            offset = self.network.feature_offset(current)
            matrix = np.zeros((decoder.rows, decoder.columns))
            rows = len(matrix) - first
            units = np.arange(min(rows, current.width))
            matrix[first + (units + row_shift) % rows, offset + units] = 1.0
            self._set_block(decoder, matrix)
        return self
