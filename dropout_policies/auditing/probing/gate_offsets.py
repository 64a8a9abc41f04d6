"""Finds numbers that a cell's code adds to its gates, as a forget bias of 1.

A gate is half open where it lets half of everything through. The bias at which it does is found by
bisection; it is 0 unless the code adds something.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .network import Cell, GateRoles, Network
from .probe import Array
from .signal_weights import SATURATING_BIAS, SignalWeights
from .signals import AMPLITUDE, Run

TOLERANCE = 1e-4
"""How far from half open a gate may be."""

LARGEST_OFFSET = 20.0
"""The largest number that is looked for."""

BISECTIONS = 24
"""How often the range of the number is halved."""


def find_half_open_biases(network: Network, run: Run, features: int) -> Network:
    """The network with the bias at which each gate is half open."""
    found: dict[int, GateRoles] = {}
    for kind, roles in network.gates.items():
        cell = next(c for c in network.cells.values() if c.kind.gates == kind)
        biases = [0.0] * kind
        if cell.biases and kind > 1:
            for gate in set(range(kind)) - {roles.candidate}:
                biases[gate] = _find_half_open_bias(network, cell, gate, run, features)
        found[kind] = replace(roles, half_open_biases=tuple(biases) if any(biases) else ())
    return network.with_gates(found)


def _find_half_open_bias(network: Network, cell: Cell, gate: int, run: Run, features: int) -> float:
    """The bias at which what a gate lets through is halfway between nothing and everything.

    It is relative to both ends, because what evaluation multiplies or keeps is in both.
    """

    def measure(bias: float) -> Array:
        return _measure_signals(network, cell, gate, bias, run, features)

    shut, opened = measure(-SATURATING_BIAS), measure(SATURATING_BIAS)
    moved = np.abs(opened - shut) > 1e-2 * np.maximum(np.abs(opened), np.abs(shut))
    if not moved.any():
        return 0.0
    index = int(moved.argmax())

    def open_share(bias: float) -> float:
        return float((measure(bias) - shut)[index] / (opened - shut)[index])

    middle = 0.0
    below, above = -LARGEST_OFFSET, LARGEST_OFFSET
    for _ in range(BISECTIONS):
        share = open_share(middle)
        if abs(share - 0.5) <= TOLERANCE:
            return middle
        below, above = (middle, above) if share < 0.5 else (below, middle)
        middle = 0.5 * (below + above)
    return 0.0


def _measure_signals(
    network: Network, cell: Cell, gate: int, bias: float, run: Run, features: int
) -> Array:
    """What a signal leaves with a bias on one gate, `[3]`: at its own step, at the next one by the
    cell's memory, and at the next one by the recurrent weights."""
    first, then = cell.ordered(0, 1)
    x = np.zeros((2, features))
    x[first] = AMPLITUDE
    remembering = SignalWeights(network, remembering=[cell])
    remembering.feed_mean(cell).route_to_output(cell)
    recurrent = SignalWeights(network).feed_mean(cell).route_to_output(cell)
    recurrent.set_recurrent(cell, np.eye(cell.units, cell.recurrent_weights.columns))
    by_memory, by_weights = (
        run(weights.add_gate_bias(cell, gate, bias).arrays, x)[:, 0, network.output_offset(cell)]
        for weights in (remembering, recurrent)
    )
    return np.array([by_memory[first], by_memory[then], by_weights[then]])
