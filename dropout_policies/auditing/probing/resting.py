"""What evaluation does: nothing, or each mask's mean in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...policies.sites import UPDATES, WEIGHTS, Site
from .events import REMEMBERED, follow
from .evidence import Finding
from .network import Cell, Network, Place
from .probe import Array
from .signals import STEPS

WIDE = 1.6
"""From a 99% interval to one of four standard deviations."""

Means = Mapping[Place, Mapping[Site, float]]
"""By cell and site, what stands in a mask's place."""


def predicted(network: Network, cell: Cell, means: Means, forgets: bool) -> Array:
    """What is seen at step t of a signal that comes into a network at step s, and of an initial
    state of the cell, that alone remembers: `[T, T+1]`, over what there is at once without noise.

    Args:
        network: the network, of which every layer sees the mean of what comes in.
        cell: the cell that remembers.
        means: what stands in the masks' places.
        forgets: whether the other cells forget; they remember too if not.
    """

    def through(passed: Cell, signal: Array, state: float = 0.0) -> Array:
        here = means.get(passed.place, {})
        values = {site: np.full((1, STEPS), mean) for site, mean in here.items()}
        into = here.get(Site.INPUT, 1.0)
        remembers = passed is cell or (not forgets and passed.kind.gates > 1)
        turn = -1 if passed.place[1] == 1 else 1
        y = follow(
            passed.kind.gates,
            values,
            into * signal[None, ::turn],
            np.array([state]),
            REMEMBERED if remembers else 0.0,
        )
        return y[0, ::turn]

    seen = np.zeros((STEPS, STEPS + 1))
    for source in range(STEPS + 1):
        signal = np.zeros(STEPS)
        signal[source : source + 1] = 1.0
        for layer in range(cell.place[0]):
            cells = network.layer(layer)
            widths = [c.width for c in cells]
            signal = np.average([through(c, signal) for c in cells], axis=0, weights=widths)
        signal = through(cell, signal, float(source == STEPS))
        for upper in network.above(cell):
            signal = through(upper, signal)
        seen[:, source] = signal
    return seen


class Expected(NamedTuple):
    """What evaluation has in the masks' places.

    Args:
        means: at the measured rates.
        others: the same, with one rate at one end of its interval, and at the other.
    """

    means: Means
    others: Sequence[tuple[Means, Means]] = ()


def agrees(network: Network, cell: Cell, seen: Array, expected: Expected, forgets: bool) -> bool:
    """Whether what was seen in evaluation, `[T, B, n, T+1]`, is what means predict."""
    middle = predicted(network, cell, expected.means, forgets)
    room = 1e-3 + 3e-3 * np.abs(middle)
    for pair in expected.others:
        ends = [np.abs(predicted(network, cell, means, forgets) - middle) for means in pair]
        room = room + np.max(ends, axis=0)
    there = np.isfinite(seen)
    off = np.abs(seen - middle[:, None, None])
    return bool((off <= np.broadcast_to(room[:, None, None], off.shape))[there].all())


def expected(findings: Sequence[Finding]) -> Expected:
    """What stands in the place of the masks that were found, if it is their mean."""
    middle: dict[Place, dict[Site, float]] = {}
    ends: list[tuple[Place, Site, list[float]]] = []
    for found in findings:
        if found.verdict != "masked" or found.site in (Site.EMBEDDING, Site.HIDDEN, *WEIGHTS):
            continue
        if found.site not in UPDATES and found.scaled is not False:
            continue
        site = Site.INPUT if found.site is Site.BETWEEN else found.site
        rates = [found.rate, *wide(found)]
        values = rates if found.site in UPDATES else [1.0 - rate for rate in rates]
        place = (found.layer, found.direction)
        middle.setdefault(place, {})[site] = values[0]
        ends.append((place, site, values[1:]))

    def changed(place: Place, site: Site, value: float) -> Means:
        return {**middle, place: {**middle[place], site: value}}

    others = [(changed(p, s, low), changed(p, s, high)) for p, s, (low, high) in ends]
    return Expected(middle, others)


def wide(found: Finding) -> tuple[float, float]:
    """Bounds of a rate that chance alone does not pass in any of many audits."""
    low, high = (found.rate + WIDE * (bound - found.rate) for bound in found.interval)
    return max(low, 0.0), min(high, 1.0)
