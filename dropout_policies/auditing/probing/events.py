"""What a unit remembers, as the noise that falls on it explains it.

With no hidden state to see, every unit of a small-signal network is a recurrence of one number. All
that noise can do to it in a few steps is tried, and what was seen says which of it happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ...policies.sites import UPDATES, Site
from .probe import Array

EXIT = Site.OUTPUT
"""Stands for what falls on h on its way out of the cell, whatever comes next."""

SITES: dict[int, tuple[Site, ...]] = {
    4: (EXIT, Site.CANDIDATE, Site.CELL, Site.HIDDEN_UPDATE, Site.CELL_UPDATE),
    3: (EXIT, Site.CANDIDATE, Site.STATE, Site.HIDDEN_UPDATE),
    1: (EXIT, Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE),
}
"""What may fall on a unit, by the number of its gates. (On an LSTM, h itself masked is seen at the
output as a mask on its way out; the recurrent weights tell them apart.)"""

LASTING = (Site.CELL, Site.STATE, Site.HIDDEN)
"""Sites whose masks multiply what is carried, again at every step."""

MOST = 3
"""How many sites at once are tried."""

SAMPLE = 150
"""On how many units sets of sites are tried."""

UNITS = 600
"""On how many units the set that explains those is held to."""

UNLIKELY = 15.0
"""How much less likely, as a logarithm, an explanation may be than another."""

LIKELIER = 4.0
"""How much likelier one by more sites, or by events that are not held, must be to be considered."""

BEYOND_CHANCE = 3.5
"""Standard deviations of a correlation that chance alone seldom makes."""

ROUNDS = 60
"""How often likely rates are made likelier."""

REMEMBERED = 0.5
"""How much of a state lasts to the next step, at gates that are half open."""


@dataclass(frozen=True)
class Events:
    """What fell on the units: 1 where it did, 0 where not, NaN where that cannot be told.

    Args:
        sites: those that explain everything.
        bits: by site, `[U, T]`.
        likelihood: of what was seen, at the likeliest rates, as a logarithm.
        likely: by site, the likeliest rate, and on how many elements it rests.
    """

    sites: tuple[Site, ...]
    bits: Mapping[Site, Array]
    likelihood: float
    likely: Mapping[Site, tuple[float, float]]


def follow(
    gates: int,
    values: Mapping[Site, Array],
    entering: Array,
    state: Array,
    remembered: float = REMEMBERED,
) -> Array:
    """What leaves a unit, `[N, T]`.

    Args:
        gates: of its cell.
        values: by site, `[N, T]`: what is multiplied; for an update, how much of what was stays.
        entering: what its candidate sees, `[N, T]`.
        state: c of an LSTM before the first step (its h is 0), h of the others, `[N]`.
        remembered: how much of a state lasts to the next step.
    """
    shape = entering.shape
    ones, zeros = np.ones(shape), np.zeros(shape)

    def of(site: Site, step: int) -> Array:
        return values.get(site, zeros if site in UPDATES else ones)[:, step]

    leaving = np.zeros(shape)
    h = np.zeros(len(state)) if gates == 4 else state
    for t in range(shape[1]):
        new = remembered * of(Site.HIDDEN, t) * state + of(Site.CANDIDATE, t) * entering[:, t]
        new = new * of(Site.CELL, t)
        stays = of(Site.HIDDEN_UPDATE, t)
        h = stays * h + (1.0 - stays) * new * of(Site.STATE, t)
        stays = of(Site.CELL_UPDATE, t)
        state = stays * state + (1.0 - stays) * new if gates == 4 else h
        leaving[:, t] = h * of(EXIT, t)
    return leaving


def simulate(gates: int, values: Mapping[Site, Array], steps: int, cases: int = 1) -> Array:
    """What is seen of a signal that comes in at each step, and of an initial state, `[N, T, T+1]`;
    arguments as for `follow`."""
    seen = np.zeros((cases, steps, steps + 1))
    for source in range(steps + 1):
        entering = np.zeros((cases, steps))
        entering[:, source : source + 1] = 1.0
        seen[..., source] = follow(gates, values, entering, np.full(cases, float(source == steps)))
    return seen


def explain(gates: int, responses: Array, growth: float) -> list[Events]:
    """The fewest sites that explain what was seen of some units, or more where those fall together
    and more make it far likelier; all sets that do so as well, if none does [].

    Args:
        gates: of their cell.
        responses: `[U, T, T+1]`, NaN where nothing was seen, over what is there at once of a
            signal that nothing has dropped.
        growth: what a state is multiplied by from step to step, where nothing is dropped.
    """
    informative = np.flatnonzero(np.isfinite(responses).any(axis=(1, 2)))
    if not len(informative):
        return []
    informative = informative[_spread(len(informative), UNITS)]
    seen = responses.reshape(len(responses), -1)[informative]
    sample = seen[_spread(len(seen), SAMPLE)]
    steps = responses.shape[1]
    explained: list[Events] = []
    for count in range(MOST + 1):
        found = []
        for sites in combinations(SITES[gates], count):
            table, bits = _table(gates, sites, growth, steps)
            if not _matches(sample, table).any(axis=1).all():
                continue
            fits = _matches(seen, table)
            if fits.any(axis=1).all():
                fits, likelihood, likely = _likely(fits, bits, steps)
                told = {site: _told(fits, of, informative, responses) for site, of in bits.items()}
                found.append(Events(sites, told, likelihood, likely))
        better = _best(found) - _best(explained) if found and explained else 0.0
        if not explained or better > UNLIKELY:
            explained = found
        elif better > LIKELIER:
            explained = explained + found
        # Events of two sites that come together may be those of a third.
        if explained and not any(_come_together(events.bits) for events in explained):
            break
    best = _best(explained)
    return [events for events in explained if events.likelihood > best - UNLIKELY]


def _best(explained: Sequence[Events]) -> float:
    return max((events.likelihood for events in explained), default=0.0)


def _told(
    fits: npt.NDArray[np.bool_], bits: Array, informative: npt.NDArray[np.int_], responses: Array
) -> Array:
    """A site's events, `[U, T]`, where all cases that fit `[I, N]` say the same of them."""
    told = np.full(responses.shape[:2], np.nan)
    share = fits.astype(float) @ bits / fits.sum(axis=1, keepdims=True)
    told[informative] = np.where((share == 0.0) | (share == 1.0), share, np.nan)
    return told


def _come_together(bits: Mapping[Site, Array]) -> bool:
    """Whether some events, of a step or of one and the next, come together otherwise than by
    chance; not where two sites have one mask."""
    for first, second in combinations(bits.values(), 2):
        if _same(first, second):
            continue
        lagged = [(first[:, :-1], second[:, 1:]), (second[:, :-1], first[:, 1:])]
        if any(_correlated(one, other) for one, other in [(first, second), *lagged]):
            return True
    return False


def _same(first: Array, second: Array) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    return bool((first[both] == second[both]).all())


def _correlated(first: Array, second: Array) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    one, other = first[both], second[both]
    if not both.any() or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return False
    correlation = float(np.corrcoef(one, other)[0, 1])
    return bool(abs(correlation) * np.sqrt(both.sum()) > BEYOND_CHANCE)


def _spread(count: int, most: int) -> npt.NDArray[np.int_]:
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _likely(
    fits: npt.NDArray[np.bool_], bits: Mapping[Site, Array], steps: int
) -> tuple[npt.NDArray[np.bool_], float, dict[Site, tuple[float, float]]]:
    """The cases that may be, how likely what was seen is, and at which rates it is likeliest.

    Sites whose events need never change from step to step count once for each unit, unless that is
    less likely.
    """
    (held, lasting), *others = _lasting(fits, bits)
    best = (held, *_at_best(held, lasting, bits, steps))
    for held, lasting in others:
        way = (held, *_at_best(held, lasting, bits, steps))
        best = way if way[1] > best[1] + LIKELIER else best
    return best


def _lasting(
    fits: npt.NDArray[np.bool_], bits: Mapping[Site, Array]
) -> list[tuple[npt.NDArray[np.bool_], tuple[Site, ...]]]:
    """The sets of sites with which every unit can be explained if their events are the same at all
    steps, the largest first, and the cases that are left."""
    found: list[tuple[npt.NDArray[np.bool_], tuple[Site, ...]]] = []
    for count in range(len(bits), -1, -1):
        for sites in combinations(bits, count):
            constant = [_constant(bits[site]) for site in sites]
            held = fits & np.logical_and.reduce(constant) if constant else fits
            if held.any(axis=1).all():
                found.append((held, sites))
    return found


def _constant(bits: Array) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = np.ptp(bits, axis=1) == 0.0
    return same


def _at_best(
    fits: npt.NDArray[np.bool_], lasting: Sequence[Site], bits: Mapping[Site, Array], steps: int
) -> tuple[float, dict[Site, tuple[float, float]]]:
    """The likeliest rates, found by expectation and maximization, for whether an event can be told
    depends on the event itself."""
    if not bits:
        return 0.0, {}
    rates = dict.fromkeys(bits, 0.3)
    cases, every = fits.astype(float), np.concatenate(list(bits.values()), axis=1)
    share: dict[Site, Array] = {}
    likelihood = 0.0
    for _ in range(ROUNDS):
        chance = np.ones(len(every))
        for site, rate in rates.items():
            count = bits[site].sum(axis=1) / (steps if site in lasting else 1)
            most = 1 if site in lasting else steps
            chance = chance * (rate**count * (1.0 - rate) ** (most - count))
        of_any = cases @ chance
        likelihood = float(np.log(of_any).sum())
        parts = cases @ (chance[:, None] * every) / of_any[:, None]
        share = dict(zip(bits, np.split(parts, len(bits), axis=1), strict=True))
        rates = {s: float(np.clip(q.mean(), 1e-9, 1.0 - 1e-9)) for s, q in share.items()}
    found = {}
    for site, rate in rates.items():
        unsure = share[site] * (1.0 - share[site]) / (rate * (1.0 - rate))
        elements = np.clip(1.0 - unsure, 0.0, 1.0)
        found[site] = (rate, float(elements.sum() / (steps if site in lasting else 1)))
    return likelihood, found


def _table(
    gates: int, sites: Sequence[Site], growth: float, steps: int
) -> tuple[Array, dict[Site, Array]]:
    """All that can happen in some steps: what is seen, `[N, T*(T+1)]`, and when what falls."""
    width = steps * len(sites)
    numbers = np.arange(2**width)
    every = (numbers[:, None] >> np.arange(width)[None, :]) & 1
    bits = {
        site: every[:, steps * i : steps * (i + 1)].astype(float) for i, site in enumerate(sites)
    }
    # Whichever of these it is that a state grows by, what is seen is the same.
    grows = next((site for site in LASTING if site in sites), None)
    values = {
        site: fallen if site in UPDATES else (1.0 - fallen) * (growth if site is grows else 1.0)
        for site, fallen in bits.items()
    }
    seen = simulate(gates, values, steps, len(numbers))
    if grows in (Site.CELL, Site.STATE):
        seen[..., :steps] /= growth  # once already when the signal comes in
    return seen.reshape(len(numbers), -1), bits


def _matches(seen: Array, table: Array) -> npt.NDArray[np.bool_]:
    """Which cases `[N, E]` what was seen of each unit `[U, E]` agrees with, `[U, N]`."""
    fits = np.ones((len(seen), len(table)), bool)
    for entry in range(seen.shape[1]):
        one, other = seen[:, entry, None], table[None, :, entry]
        fits &= np.isnan(one) | (np.abs(one - other) <= 1e-3 + 3e-3 * np.abs(other))
    return fits
