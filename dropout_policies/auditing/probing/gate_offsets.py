"""Finds constants that a cell's code adds to its gates, such as a forget bias of 1.

A half-open gate passes half of a signal. Bisection finds the bias at which a gate is half open. It
is 0 unless the code adds a constant.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .network import Cell, GateRoles, Network
from .probe import Array
from .signal_weights import SATURATING_BIAS, SignalWeights
from .signals import AMPLITUDE, Run

TOLERANCE = 1e-4
"""How far a gate may be from half open."""

LARGEST_OFFSET = 20.0
"""The largest constant that is searched for."""

BISECTIONS = 24
"""How often the range of the constant is halved."""


def find_half_open_biases(network: Network, run: Run, features: int) -> Network:
    """Return the network with the bias at which each gate is half open."""
    found: dict[int, GateRoles] = {}
    for kind, roles in network.gates.items():
        cell = next(c for c in network.cells.values() if c.kind.gates == kind)
        biases = [0.0] * kind
        if cell.biases and kind > 1:
            ways = (_PassedSignal(network, cell, by, run, features) for by in ("memory", "weights"))
            by_memory, by_weights = ways
            for gate in set(range(kind)) - {roles.candidate}:
                biases[gate] = _find_half_open_bias(gate, by_memory, by_weights)
        found[kind] = replace(roles, half_open_biases=tuple(biases) if any(biases) else ())
    return network.with_gates(found)


class _PassedSignal:
    """The signal that passes with a bias on one gate: at its own step, and at the next one.

    Args:
        network: the network.
        cell: the cell with the gate.
        by: how the signal reaches the next step: by the cell's `memory` or its recurrent `weights`.
        run: the function that runs the module.
        features: D.
    """

    def __init__(self, network: Network, cell: Cell, by: str, run: Run, features: int) -> None:
        self._network, self._cell, self._by, self._run = network, cell, by, run
        self._x = np.zeros((2, features))
        self._x[cell.ordered(0, 1)[0]] = AMPLITUDE
        self._without: Array | None = None

    def measure(self, gate: int, bias: float) -> Array:
        """Measure the signal at both steps, `[2]`."""
        if bias == 0.0 and self._without is not None:
            return self._without  # the same for every gate
        cell = self._cell
        weights = SignalWeights(self._network, [cell] if self._by == "memory" else [])
        weights.feed_mean(cell).route_to_output(cell).add_gate_bias(cell, gate, bias)
        if self._by == "weights":
            weights.set_recurrent(cell, np.eye(cell.units, cell.recurrent_weights.columns))
        y = self._run(weights.arrays, self._x)[:, 0, self._network.output_offset(cell)]
        signals = y[list(cell.ordered(0, 1))]
        if bias == 0.0:
            self._without = signals
        return signals


def _find_half_open_bias(gate: int, *ways: _PassedSignal) -> float:
    """Find the bias at which a gate passes halfway between nothing and everything.

    This is relative to both ends, because both include the factors of evaluation.
    """
    for way in ways:
        shut, opened = (way.measure(gate, sign * SATURATING_BIAS) for sign in (-1.0, 1.0))
        moved = np.abs(opened - shut) > 1e-2 * np.maximum(np.abs(opened), np.abs(shut))
        if moved.any():
            index = int(moved.argmax())
            break
    else:
        return 0.0
    middle = 0.0
    below, above = -LARGEST_OFFSET, LARGEST_OFFSET
    for _ in range(BISECTIONS):
        share = float((way.measure(gate, middle) - shut)[index] / (opened - shut)[index])
        if abs(share - 0.5) <= TOLERANCE:
            return middle
        below, above = (middle, above) if share < 0.5 else (below, middle)
        middle = 0.5 * (below + above)
    return 0.0
