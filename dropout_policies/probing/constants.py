"""Numbers that a cell's code adds to its gates, as a forget bias of 1, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .network import SHUT, Cell, Gates, Network, Setting
from .probe import Array
from .signals import AMPLITUDE

Run = Callable[[Mapping[str, Array], Array], Array]

EXACT = 1e-3
"""How far from half open a gate may be that nothing is added to."""

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
            others = [gate for gate in range(kind) if gate != gates.candidate]
            for gate in others:
                biases[gate] = _half_open(network, cell, gate, run, features)
        found[kind] = replace(gates, half_open=tuple(biases) if any(biases) else ())
    return network.with_gates(found)


def _half_open(network: Network, cell: Cell, gate: int, run: Run, features: int) -> float:
    """The bias at which what a gate lets through is halfway between nothing and all.

    Between the two, for what evaluation multiplies or keeps is in both ends as well.
    """
    ways = range(len(_seen(network, cell, gate, 0.0, run, features)))
    ends = [_seen(network, cell, gate, sign * SHUT, run, features) for sign in (-1.0, 1.0)]
    for way in ways:
        low, high = ends[0][way], ends[1][way]
        if abs(high - low) <= 1e-2 * max(abs(high), abs(low)):
            continue

        def share(bias: float, way: int = way, low: float = low, high: float = high) -> float:
            return (_seen(network, cell, gate, bias, run, features)[way] - low) / (high - low)

        if abs(share(0.0) - 0.5) <= EXACT:
            return 0.0
        below, above = -LARGEST, LARGEST
        for _ in range(HALVINGS):
            middle = 0.5 * (below + above)
            below, above = (middle, above) if share(middle) < 0.5 else (below, middle)
        return middle if abs(share(middle) - 0.5) <= EXACT else 0.0
    return 0.0


def _seen(
    network: Network, cell: Cell, gate: int, bias: float, run: Run, features: int
) -> list[float]:
    """What a signal leaves at its own step, at the next by what the cell remembers, and there by
    what goes back, with a bias on one gate."""
    first, then = (0, 1) if cell.place[1] == 0 else (1, 0)
    x = np.zeros((2, features))
    x[first] = AMPLITUDE
    found = []
    for back in (False, True):
        setting = Setting(network, remembers=[] if back else [cell]).feed(cell).pass_up(cell)
        if back:
            setting.back(cell, np.eye(cell.units, cell.back.columns))
        y = run(setting.open(cell, gate, bias).arrays, x)[:, 0, network.leaves_at(cell)]
        found += [float(y[then])] if back else [float(y[first]), float(y[then])]
    return found
