"""Sets a network's weights so that it carries only chosen signals.

Every weight starts at zero, and every gate half open. A measurement then opens the few connections
that it needs: input to a cell, hidden state to a gate, cell to output.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np

from .network import Bias, Block, Cell, Network
from .probe import Array
from .weight_arrays import WeightArrays

SATURATING_BIAS = 200.0
"""A bias that makes a gate exactly 0 or 1 in float32."""


class SignalWeights:
    """Weights with which a network carries only chosen signals. All other weights are zero.

    Args:
        network: the network.
        remembering: the cells that keep their state. The others forget it at every step if they
            can.
    """

    def __init__(self, network: Network, remembering: Sequence[Cell] = ()) -> None:
        self.network = network
        self._weights = WeightArrays(network.pool)
        for cell in network.cells.values():
            blocks = [cell.input_weights, cell.recurrent_weights]
            blocks += [cell.projection] if cell.projection else []
            self._weights.add([b.parameter for b in blocks] + [b.parameter for b in cell.biases])
        for cell in network.cells.values():
            if cell.projection is not None:
                identity = partial(np.eye, cell.width, cell.units)
                self._set_block(cell.projection, identity, 0, "identity")
            roles = network.gate_roles(cell)
            if cell.biases:
                for gate, bias in enumerate(roles.half_open_biases):
                    self.add_gate_bias(cell, gate, bias)
            if roles.forget is not None and cell.biases and cell not in remembering:
                gate, sign = roles.forget
                self.add_gate_bias(cell, gate, sign * SATURATING_BIAS)
        decoding = [b.parameter for b in network.decoder_biases]
        decoding += [network.decoder.parameter] if network.decoder is not None else []
        self._weights.add(decoding)

    @property
    def arrays(self) -> dict[str, Array]:
        """The weights by name."""
        return {**self.network.other_weights, **self._weights.all()}

    def _set_block(
        self,
        block: Block,
        make_matrix: Callable[[], Array],
        first_row: int = 0,
        label: Hashable = None,
    ) -> None:
        """Set rows of a block. The label names the matrix if other measurements may need it."""

        def change(array: Array) -> None:
            matrix = make_matrix()
            view = array.T if block.parameter.transposed else array
            rows = slice(first_row, first_row + len(matrix))
            view[rows, block.start : block.start + matrix.shape[1]] = matrix

        full_label = None if label is None else (block.start, block.stop, first_row, label)
        self._weights.write(block.parameter, change, full_label)

    def _set_gate(
        self, block: Block, cell: Cell, make_matrix: Callable[[], Array], label: Hashable
    ) -> None:
        """Set the candidate's rows of a block to a matrix that other measurements need too."""
        self._set_block(block, make_matrix, self._gate(cell, None) * cell.units, label)

    def _add_bias(self, bias: Bias, value: float, gate: int, units: int) -> None:
        def change(array: Array) -> None:
            row = array if bias.row is None else array[bias.row]
            row[gate * units : (gate + 1) * units] += value

        self._weights.write(bias.parameter, change, (bias.row, gate, units, value))

    def _gate(self, cell: Cell, gate: int | None) -> int:
        return self.network.gate_roles(cell).candidate if gate is None else gate

    def add_gate_bias(self, cell: Cell, gate: int, bias: float) -> SignalWeights:
        """Add a number to the bias of a gate."""
        self._add_bias(cell.biases[0], bias, gate, cell.units)
        return self

    def set_input(self, cell: Cell, matrix: Array, gate: int | None = None) -> SignalWeights:
        """Set a gate's input weights, `[H, <= D]`. Without a gate, set the candidate's."""
        first_row = self._gate(cell, gate) * cell.units
        self._set_block(cell.input_weights, lambda: matrix, first_row)
        return self

    def set_recurrent(self, cell: Cell, matrix: Array, gate: int | None = None) -> SignalWeights:
        """Set a gate's recurrent weights, `[H, <= P]`. Without a gate, set the candidate's."""
        first_row = self._gate(cell, gate) * cell.units
        self._set_block(cell.recurrent_weights, lambda: matrix, first_row)
        return self

    def set_projection(self, cell: Cell, matrix: Array) -> SignalWeights:
        """Set a cell's projection, `[P, H]`."""
        assert cell.projection is not None
        self._set_block(cell.projection, lambda: matrix)
        return self

    def drive_candidate(self, cell: Cell, value: float) -> SignalWeights:
        """Add a bias to the candidate of every unit. This is a signal that needs no input."""
        return self.add_gate_bias(cell, self._gate(cell, None), value)

    def feed_mean(self, cell: Cell) -> SignalWeights:
        """Make every unit of a cell see the mean of x, through the cells below."""
        for lower in (*self.network.cells_below(cell), cell):
            self._feed_mean_alone(lower)
        return self

    def _feed_mean_alone(self, cell: Cell) -> None:
        block = cell.input_weights

        def mean() -> Array:
            return np.full((cell.units, block.columns), 1.0 / block.columns)

        self._set_gate(block, cell, mean, "mean")

    def route_to_output(
        self, cell: Cell, row_shift: int = 0, first_gain: float = 1.0
    ) -> SignalWeights:
        """Make the cells above, and the decoder, pass on a cell's features one to one.

        Args:
            cell: the cell.
            row_shift: by how many rows the decoder shifts the features. The last rows wrap around
                to the first.
            first_gain: the weight of the first cell above.
        """
        current = cell
        for upper in self.network.cells_above(cell):
            self._hand_on(current, upper, first_gain if current is cell else 1.0)
            current = upper
        if self.network.decoder is not None:
            self._decode(self.network.decoder, current, row_shift)
        return self

    def _hand_on(self, lower: Cell, upper: Cell, gain: float) -> None:
        """Make a cell above pass on a cell's features."""
        offset, width = self.network.feature_offset(lower), lower.width
        block = upper.input_weights

        def identity() -> Array:
            matrix = np.zeros((upper.units, block.columns))
            matrix[:, offset : offset + width] = gain * np.eye(upper.units, width)
            return matrix

        self._set_gate(block, upper, identity, ("identity", offset, width, gain))

    def _decode(self, decoder: Block, cell: Cell, row_shift: int) -> None:
        """Make the decoder pass on a cell's features."""
        first, offset = self.network.first_free_row, self.network.feature_offset(cell)
        width = cell.width

        def shifted() -> Array:
            matrix = np.zeros((decoder.rows, decoder.columns))
            rows = len(matrix) - first
            units = np.arange(min(rows, width))
            matrix[first + (units + row_shift) % rows, offset + units] = 1.0
            return matrix

        self._set_block(decoder, shifted, 0, ("shifted", first, offset, width, row_shift))
