"""A unit of a small-signal network as a recurrence of one number, under masks at any site.

Without recurrent weights, the state of each unit depends only on that unit. `tabulate_cases` runs a
unit under every combination of masks that can fall in a few steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...policies.sites import UPDATES, Site
from .probe import Array

EXIT = Site.OUTPUT
"""Stands for a mask on h on its way out of the cell, whatever comes next."""

UNIT_SITES: dict[int, tuple[Site, ...]] = {
    4: (EXIT, Site.CANDIDATE, Site.CELL, Site.HIDDEN_UPDATE, Site.CELL_UPDATE),
    3: (EXIT, Site.CANDIDATE, Site.STATE, Site.HIDDEN_UPDATE),
    1: (EXIT, Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE),
}
"""The sites whose masks a unit may show, by the number of its gates. On an LSTM, a mask on h itself
looks at the output like a mask on its way out. The recurrent weights tell the two apart."""

CARRIED_SITES = (Site.CELL, Site.STATE, Site.HIDDEN)
"""Sites whose masks multiply what is carried, anew at every step."""

KEPT_SHARE = 0.5
"""The share of a state that lasts to the next step if gates are half open."""


def run_unit(
    gates: int,
    factors: Mapping[Site, Array],
    candidates: Array,
    state: Array,
    kept_share: float = KEPT_SHARE,
) -> Array:
    """Run units step by step.

    Args:
        gates: the number of gates of their cell.
        factors: the factor at each site, `[N, T]`. For an update, it is the share of the old value
            that stays.
        candidates: what the candidate sees, `[N, T]`.
        state: the state before the first step, `[N]`: c of an LSTM, whose h is 0, or h of others.
        kept_share: the share of a state that lasts to the next step.

    Returns:
        The output of the units, `[N, T]`.
    """
    shape = candidates.shape
    ones, zeros = np.ones(shape), np.zeros(shape)

    def factor(site: Site, step: int) -> Array:
        return factors.get(site, zeros if site in UPDATES else ones)[:, step]

    output = np.zeros(shape)
    h = np.zeros(len(state)) if gates == 4 else state
    for t in range(shape[1]):
        candidate = factor(Site.CANDIDATE, t) * candidates[:, t]
        new = kept_share * factor(Site.HIDDEN, t) * state + candidate
        new = new * factor(Site.CELL, t)
        stays = factor(Site.HIDDEN_UPDATE, t)
        h = stays * h + (1.0 - stays) * new * factor(Site.STATE, t)
        stays = factor(Site.CELL_UPDATE, t)
        state = stays * state + (1.0 - stays) * new if gates == 4 else h
        output[:, t] = h * factor(EXIT, t)
    return output


def simulate_responses(
    gates: int, factors: Mapping[Site, Array], steps: int, cases: int = 1
) -> Array:
    """Simulate the responses to a signal at each step, and to an initial state, `[N, T, T+1]`.

    Args:
        gates: the number of gates of the units' cell.
        factors: the factors, as for `run_unit`.
        steps: T.
        cases: N.
    """
    responses = np.zeros((cases, steps, steps + 1))
    for source in range(steps + 1):
        candidates = np.zeros((cases, steps))
        candidates[:, source : source + 1] = 1.0
        state = np.full(cases, float(source == steps))
        responses[..., source] = run_unit(gates, factors, candidates, state)
    return responses


def tabulate_cases(
    gates: int, sites: Sequence[Site], state_scale: float, steps: int
) -> tuple[Array, dict[Site, Array]]:
    """Tabulate everything that masks at some sites can do in some steps.

    Args:
        gates: the number of gates of the units' cell.
        sites: the sites where masks fall.
        state_scale: the factor of a kept state from step to step.
        steps: T.

    Returns:
        The response in each case, `[N, T*(T+1)]`, and by site the bits of each case, `[N, T]`.
    """
    width = steps * len(sites)
    numbers = np.arange(2**width)
    every = (numbers[:, None] >> np.arange(width)[None, :]) & 1
    bits = {
        site: every[:, steps * i : steps * (i + 1)].astype(float) for i, site in enumerate(sites)
    }
    # The response is the same whichever of these sites scales the state.
    scaling = next((site for site in CARRIED_SITES if site in sites), None)
    factors = {
        site: dropped
        if site in UPDATES
        else (1.0 - dropped) * (state_scale if site is scaling else 1.0)
        for site, dropped in bits.items()
    }
    responses = simulate_responses(gates, factors, steps, len(numbers))
    if scaling in (Site.CELL, Site.STATE):
        responses[..., :steps] /= state_scale  # it already applies once when the signal comes in
    return responses.reshape(len(numbers), -1), bits
