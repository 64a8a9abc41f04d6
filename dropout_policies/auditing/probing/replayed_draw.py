"""A draw of noise that can be repeated, with functions that send signals through it.

The code that observes a draw (`cell_observer`, `gate_observer`) chooses weights and inputs. A
`ReplayedDraw` runs them with the same noise each time and reads the output of one cell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import zero_rounding_errors
from .network import Cell, Network
from .probe import Array
from .signal_weights import SignalWeights
from .signals import AMPLITUDE, BATCH, LARGE_CANDIDATE, STEPS, gain

MEMORY_WEIGHT = 0.5
"""The recurrent weight with which a simple cell remembers."""

FAINT_WEIGHT = 0.01
"""A recurrent weight whose signal shows at the next step, but not at the step after that."""

RunDraw = Callable[..., Array]
"""A function that maps `(weights, x, states=None)` to `[T, B, F]`, under the noise of the draw."""


class ReplayedDraw:
    """Runs a network under one draw of noise.

    Signals come in at every second step. Then a unit keeps nothing of the previous signal.

    Args:
        network: the network.
        run: the function that runs it under the noise of the draw.
        features: D.
        state_parts: the number of parts of an initial state that the module takes.
        single_steps: whether signals come in at one step per call. This is slower, but also correct
            if a unit keeps an old value for more than a step.

    Attributes:
        forgets: whether cells can be made to forget their state at every step.
        step_groups: for each call, the steps at which signals come in together.
    """

    def __init__(
        self,
        network: Network,
        run: RunDraw,
        features: int,
        state_parts: int,
        single_steps: bool = False,
    ) -> None:
        self.network, self.run, self.features = network, run, features
        self.state_parts = state_parts
        self.forgets = all(
            cell.biases and (cell.kind.gates == 1 or network.gate_roles(cell).forget is not None)
            for cell in network.cells.values()
        )
        self.single_steps = single_steps
        self.step_groups = [[step] for step in range(STEPS)]
        if self.forgets and not single_steps:
            self.step_groups = [list(range(first, STEPS, 2)) for first in range(2)]

    def no_input(self) -> Array:
        return np.zeros((STEPS, self.features))

    def signal_at(self, *steps: int) -> Array:
        """Make an input with a signal at some steps, `[T, D]`."""
        x = self.no_input()
        x[list(steps)] = AMPLITUDE
        return x

    def constant_signal(self) -> Array:
        return np.full((STEPS, self.features), AMPLITUDE)

    def cell_output(self, cell: Cell, output: Array) -> Array:
        """Select a cell's features from the network's output, `[T, B, n]`."""
        start = self.network.output_offset(cell)
        return output[..., start : start + self.network.visible_features(cell)]

    def run_cell(self, cell: Cell, weights: SignalWeights, x: Array) -> Array:
        """Run the network and return a cell's features, `[T, B, n]`."""
        return self.cell_output(cell, self.run(weights.arrays, x))

    def gain_below(self, cell: Cell) -> float:
        """Return how large a network input is when a cell sees it, without noise."""
        lower = [self.network.layer_cells(layer)[0] for layer in range(cell.layer)]
        return float(np.prod([gain(each, not self.forgets) for each in lower]))

    def gain_above(self, cell: Cell) -> float:
        """Return how much of a cell's h arrives at the output, without noise."""
        above = self.network.cells_above(cell)
        return float(np.prod([gain(upper, not self.forgets) for upper in above]))

    def gain_to_output(self, cell: Cell) -> float:
        """Return how large a signal at a cell's candidates is at the output, without noise."""
        return gain(cell, not self.forgets) * self.gain_above(cell)

    def current_and_next(self, weights: SignalWeights, cell: Cell) -> tuple[Array, Array]:
        """Return the output at the step of each signal, and at the cell's next step.

        Both are `[T, B, n]` and relative to the signal. After the cell's last step, the second is
        NaN.
        """
        after = -1 if cell.is_backward else 1
        current = np.full((STEPS, BATCH, self.network.visible_features(cell)), np.nan)
        following = current.copy()
        for steps in self.step_groups:
            y = self.run_cell(cell, weights, self.signal_at(*steps)) / AMPLITUDE
            for step in steps:
                current[step] = y[step]
                if 0 <= step + after < STEPS:
                    following[step] = y[step + after]
        return current, following

    def memory_weights(self, cell: Cell) -> SignalWeights:
        """Make weights with which only one cell remembers and nothing comes in."""
        weights = SignalWeights(self.network, remembering=[cell]).route_to_output(cell)
        if cell.kind.gates == 1:
            identity = np.eye(cell.units, cell.recurrent_weights.columns)
            weights.set_recurrent(cell, MEMORY_WEIGHT * identity)
        return weights

    def memory_response(self, cell: Cell) -> Array:
        """Measure the response to a signal at step s alone, and to an initial state of the cell.

        The cell remembers. The result is relative to a signal that the cell sees without noise, at
        its own step.

        Returns:
            The response at step t, `[T, B, n, T+1]`. The last entry is that to the initial state.
        """
        unmasked = AMPLITUDE * gain(cell, True) * self.gain_above(cell)
        visible = self.network.visible_features(cell)
        response = np.full((STEPS, BATCH, visible, STEPS + 1), np.nan)
        weights = self.memory_weights(cell).feed_mean(cell)
        for step in range(STEPS):
            response[..., step] = self.run_cell(cell, weights, self.signal_at(step)) / unmasked
        if self.state_parts:
            weights = self.memory_weights(cell)
            y = self.run(weights.arrays, self.no_input(), self.initial_state(cell))
            response[..., STEPS] = self.cell_output(cell, y) / unmasked
        return response

    def initial_state(self, cell: Cell) -> list[Array]:
        """Make an initial state as large as what a signal leaves: c of an LSTM, h of others."""
        rows = sorted(self.network.cells)
        parts = []
        for part in range(self.state_parts):
            width = cell.units if part == 1 else cell.width
            parts.append(np.zeros((len(rows), BATCH, width)))
        size = {4: 0.5, 3: 0.5, 1: 1.0}[cell.kind.gates]
        parts[-1][rows.index(cell.place)] = AMPLITUDE * size
        return parts

    def large_candidate_response(self, cell: Cell) -> Array:
        """Measure how much of a candidate of `LARGE_CANDIDATE` arrives at the output, `[T, B, n]`.

        This is relative to the value without noise. It is NaN for cells without biases, whose
        candidates cannot be driven. Tanh squashes a large c, so noise before the tanh has another
        effect than noise after it.
        """
        if not self.forgets:
            return np.full((STEPS, BATCH, self.network.visible_features(cell)), np.nan)
        first_gain = AMPLITUDE if self.network.cells_above(cell) else 1.0
        weights = SignalWeights(self.network).route_to_output(cell, first_gain=first_gain)
        weights.drive_candidate(cell, np.arctanh(LARGE_CANDIDATE))
        y = self.run_cell(cell, weights, self.no_input())
        is_lstm = cell.kind.gates == 4
        unmasked = 0.5 * np.tanh(0.5 * LARGE_CANDIDATE) if is_lstm else LARGE_CANDIDATE
        return zero_rounding_errors(y / (unmasked * first_gain * self.gain_above(cell)))
