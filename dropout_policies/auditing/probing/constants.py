"""Numbers that a cell's code adds to its gates, as a forget bias of 1, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .network import SHUT, Cell, Gates, Network, Setting
from .probe import Array
from .signals import AMPLITUDE

Run = Callable[[Mapping[str, Array], Array], Array]

EXACT = 1e-4
"""How far from half open a gate is taken to be so."""

LARGEST = 20.0
"""The largest number that is looked for."""

HALVINGS = 24
"""How often the range is halved that it is looked for in."""


def with_half_open(network: Network, run: Run, features: int) -> Network:
    """A network that knows which bias each gate is half open at: 0, unless code adds something."""
    found: dict[int, Gates] = {}
    for kind, gates in network.gates.items():
        cell = next(c for c in network.cells.values() if c.kind.gates == kind)
        biases = [0.0] * kind
        if cell.biases and kind > 1:
            for gate in set(range(kind)) - {gates.candidate}:
                biases[gate] = _half_open(network, cell, gate, run, features)
        found[kind] = replace(gates, half_open=tuple(biases) if any(biases) else ())
    return network.with_gates(found)


def _half_open(network: Network, cell: Cell, gate: int, run: Run, features: int) -> float:
    """The bias at which what a gate lets through is halfway between nothing and all.

    Between the two, for what evaluation multiplies or keeps is in both ends as well.
    """

    def seen(bias: float) -> Array:
        return _seen(network, cell, gate, bias, run, features)

    shut, wide = seen(-SHUT), seen(SHUT)
    moved = np.abs(wide - shut) > 1e-2 * np.maximum(np.abs(wide), np.abs(shut))
    if not moved.any():
        return 0.0
    way = int(moved.argmax())

    def share(bias: float) -> float:
        return float((seen(bias) - shut)[way] / (wide - shut)[way])

    middle = 0.0
    below, above = -LARGEST, LARGEST
    for _ in range(HALVINGS):
        there = share(middle)
        if abs(there - 0.5) <= EXACT:
            return middle
        below, above = (middle, above) if there < 0.5 else (below, middle)
        middle = 0.5 * (below + above)
    return 0.0


def _seen(network: Network, cell: Cell, gate: int, bias: float, run: Run, features: int) -> Array:
    """What a signal leaves at its own step, at the next by what the cell remembers, and there by
    what goes back, `[3]`, with a bias on one gate."""
    first, then = (0, 1) if cell.place[1] == 0 else (1, 0)
    x = np.zeros((2, features))
    x[first] = AMPLITUDE
    remembers = Setting(network, remembers=[cell]).feed(cell).pass_up(cell)
    hands_back = Setting(network).feed(cell).pass_up(cell)
    hands_back.back(cell, np.eye(cell.units, cell.back.columns))
    by_memory, by_weights = (
        run(setting.open(cell, gate, bias).arrays, x)[:, 0, network.leaves_at(cell)]
        for setting in (remembers, hands_back)
    )
    return np.array([by_memory[first], by_memory[then], by_weights[then]])
