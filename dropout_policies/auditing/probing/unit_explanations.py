"""Finds the fewest sites whose masks explain the responses of some units.

Every set of up to three sites is tried, the smallest first. For each, `unit_model` tabulates all
that masks there can do in a few steps. A set explains the units if each unit's response is in the
table. Among these sets, the likelihood of the responses at the likeliest rates decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ...policies.sites import Site
from .probe import Array
from .unit_model import UNIT_SITES, tabulate_cases

MAX_SITES = 3
"""The largest number of sites that are tried at once."""

TRIAL_UNITS = 150
"""The number of units that a set of sites must explain first."""

CHECKED_UNITS = 600
"""The number of units that such a set must explain after that."""

REJECT_MARGIN = 15.0
"""By how much the log likelihood of an explanation may be below that of the likeliest one."""

PREFER_MARGIN = 4.0
"""By how much the log likelihood must be higher for an explanation with more sites, or with masks
that are not held, to be considered."""

CORRELATION_DEVIATIONS = 3.5
"""A correlation of this many standard deviations is rarely due to chance."""

EM_ROUNDS = 60
"""The number of rounds of expectation and maximization."""

Cases = npt.NDArray[np.bool_]
"""Which cases agree with each unit's response, `[U, N]`."""


@dataclass(frozen=True)
class UnitExplanation:
    """Masks at some sites that explain the measurements of some units.

    Args:
        sites: the sites.
        bits: the bits by site, `[U, T]`: 1 dropped, 0 not, NaN undecided.
        log_likelihood: the log likelihood of the responses, at the likeliest rates.
        likely_rates: by site, the likeliest rate, and the number of elements that it rests on.
    """

    sites: tuple[Site, ...]
    bits: Mapping[Site, Array]
    log_likelihood: float
    likely_rates: Mapping[Site, tuple[float, float]]


def explain_units(gates: int, responses: Array, state_scale: float) -> list[UnitExplanation]:
    """Find the fewest sites that explain some units' responses.

    More sites are considered if masks of different sites coincide and more sites make the responses
    far likelier.

    Args:
        gates: the number of gates of the units' cell.
        responses: the responses `[U, T, T+1]`, NaN where nothing was seen. They are relative to a
            signal at its own step of which nothing was dropped.
        state_scale: the factor of a kept state from step to step.

    Returns:
        All explanations that are about as likely as the likeliest one. [] if there is none.
    """
    informative = np.flatnonzero(np.isfinite(responses).any(axis=(1, 2)))
    if not len(informative):
        return []
    informative = informative[_spread_indices(len(informative), CHECKED_UNITS)]
    checked = responses.reshape(len(responses), -1)[informative]
    trial = checked[_spread_indices(len(checked), TRIAL_UNITS)]
    steps = responses.shape[1]
    explanations: list[UnitExplanation] = []
    for count in range(MAX_SITES + 1):
        found = []
        for sites in combinations(UNIT_SITES[gates], count):
            table, bits = tabulate_cases(gates, sites, state_scale, steps)
            if not _matching_cases(trial, table).any(axis=1).all():
                continue
            cases = _matching_cases(checked, table)
            if cases.any(axis=1).all():
                cases, log_likelihood, rates = _fit_rates(cases, bits, steps)
                decided = {
                    site: _decided_bits(cases, of_site, informative, responses)
                    for site, of_site in bits.items()
                }
                found.append(UnitExplanation(sites, decided, log_likelihood, rates))
        gain = _best(found) - _best(explanations) if found and explanations else 0.0
        if not explanations or gain > REJECT_MARGIN:
            explanations = found
        elif gain > PREFER_MARGIN:
            explanations = explanations + found
        # Masks of two sites that coincide may be those of a third site.
        if explanations and not any(_any_coincide(one.bits) for one in explanations):
            break
    best = _best(explanations)
    return [one for one in explanations if one.log_likelihood > best - REJECT_MARGIN]


def _best(explanations: Sequence[UnitExplanation]) -> float:
    return max((one.log_likelihood for one in explanations), default=0.0)


def _spread_indices(count: int, most: int) -> npt.NDArray[np.int_]:
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _matching_cases(responses: Array, table: Array) -> Cases:
    """Find which cases `[N, E]` agree with the response of each unit `[U, E]`."""
    matches = np.ones((len(responses), len(table)), bool)
    for entry in range(responses.shape[1]):
        measured, predicted = responses[:, entry, None], table[None, :, entry]
        tolerance = 1e-3 + 3e-3 * np.abs(predicted)
        matches &= np.isnan(measured) | (np.abs(measured - predicted) <= tolerance)
    return matches


def _decided_bits(
    cases: Cases, bits: Array, informative: npt.NDArray[np.int_], responses: Array
) -> Array:
    """Return a site's bits, `[U, T]`, where all matching cases `[I, N]` agree on them."""
    decided = np.full(responses.shape[:2], np.nan)
    share = cases.astype(float) @ bits / cases.sum(axis=1, keepdims=True)
    decided[informative] = np.where((share == 0.0) | (share == 1.0), share, np.nan)
    return decided


def _any_coincide(bits: Mapping[Site, Array]) -> bool:
    """Whether masks of two sites coincide by more than chance, at one step or neighbouring steps.

    Two sites with the same mask do not count.
    """
    for first, second in combinations(bits.values(), 2):
        if _is_same(first, second):
            continue
        lagged = [(first[:, :-1], second[:, 1:]), (second[:, :-1], first[:, 1:])]
        if any(_is_correlated(*pair) for pair in [(first, second), *lagged]):
            return True
    return False


def _is_same(first: Array, second: Array) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    return bool((first[both] == second[both]).all())


def _is_correlated(first: Array, second: Array) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    one, other = first[both], second[both]
    if not both.any() or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return False
    correlation = float(np.corrcoef(one, other)[0, 1])
    return bool(abs(correlation) * np.sqrt(both.sum()) > CORRELATION_DEVIATIONS)


def _fit_rates(
    cases: Cases, bits: Mapping[Site, Array], steps: int
) -> tuple[Cases, float, dict[Site, tuple[float, float]]]:
    """Find the remaining cases, the log likelihood of the responses, and the likeliest rates.

    If a site's masks never need to change from step to step, they count once for each unit, unless
    that is less likely.
    """
    (remaining, held), *others = _held_site_sets(cases, bits)
    best = (remaining, *_maximize_likelihood(remaining, held, bits, steps))
    for remaining, held in others:
        fit = (remaining, *_maximize_likelihood(remaining, held, bits, steps))
        best = fit if fit[1] > best[1] + PREFER_MARGIN else best
    return best


def _held_site_sets(
    cases: Cases, bits: Mapping[Site, Array]
) -> list[tuple[Cases, tuple[Site, ...]]]:
    """Find the sets of sites whose masks can be the same at all steps for every unit.

    The largest sets come first. Each one comes with the cases that remain.
    """
    found: list[tuple[Cases, tuple[Site, ...]]] = []
    for count in range(len(bits), -1, -1):
        for sites in combinations(bits, count):
            constant = [_is_constant(bits[site]) for site in sites]
            remaining = cases & np.logical_and.reduce(constant) if constant else cases
            if remaining.any(axis=1).all():
                found.append((remaining, sites))
    return found


def _is_constant(bits: Array) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = np.ptp(bits, axis=1) == 0.0
    return same


def _maximize_likelihood(
    matches: Cases, held: Sequence[Site], bits: Mapping[Site, Array], steps: int
) -> tuple[float, dict[Site, tuple[float, float]]]:
    """Find the largest log likelihood, and the rates that give it.

    This uses expectation and maximization, because whether a bit can be told depends on the bit.
    """
    if not bits:
        return 0.0, {}
    rates = dict.fromkeys(bits, 0.3)
    cases, all_bits = matches.astype(float), np.concatenate(list(bits.values()), axis=1)
    expected: dict[Site, Array] = {}
    log_likelihood = 0.0
    for _ in range(EM_ROUNDS):
        prior = np.ones(len(all_bits))
        for site, rate in rates.items():
            dropped = bits[site].sum(axis=1) / (steps if site in held else 1)
            trials = 1 if site in held else steps
            prior = prior * (rate**dropped * (1.0 - rate) ** (trials - dropped))
        probability = cases @ prior
        log_likelihood = float(np.log(probability).sum())
        parts = cases @ (prior[:, None] * all_bits) / probability[:, None]
        expected = dict(zip(bits, np.split(parts, len(bits), axis=1), strict=True))
        rates = {s: float(np.clip(e.mean(), 1e-9, 1.0 - 1e-9)) for s, e in expected.items()}
    found = {}
    for site, rate in rates.items():
        unsure = expected[site] * (1.0 - expected[site]) / (rate * (1.0 - rate))
        elements = np.clip(1.0 - unsure, 0.0, 1.0)
        found[site] = (rate, float(elements.sum() / (steps if site in held else 1)))
    return log_likelihood, found
