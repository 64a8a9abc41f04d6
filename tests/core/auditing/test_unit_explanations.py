"""Which sites explain the responses of units, on masks that the tests draw and so know."""

from itertools import combinations

import numpy as np
import pytest

from dropout_policies.auditing.probing.unit_explanations import explain_units
from dropout_policies.auditing.probing.unit_model import EXIT, UNIT_SITES, simulate_responses
from dropout_policies.policies.sites import UPDATES, Site

STEPS = 4
SITE_SETS = [
    (gates, sites)
    for gates, all_sites in UNIT_SITES.items()
    for count in (0, 1, 2)
    for sites in combinations(all_sites, count)
]


def draw_bits(sites, rate=0.3, units=400, held=False, seed=0):
    random = np.random.default_rng(seed)
    shape = (units, 1 if held else STEPS)
    return {
        site: np.broadcast_to(random.random(shape) < rate, (units, STEPS)).astype(float)
        for site in sites
    }


def measure_responses(gates, bits, seed=1, unseen=0.2):
    """The responses of units under masks; some of them are not seen."""
    factors = {s: b if s in UPDATES else 1.0 - b for s, b in bits.items()}
    responses = simulate_responses(gates, factors, STEPS, 400)
    hidden = np.random.default_rng(seed).random((400, STEPS, 1)) < unseen
    return np.where(hidden, np.nan, responses)


@pytest.mark.parametrize(("gates", "sites"), SITE_SETS)
def test_the_sites_of_the_masks_are_found(gates, sites):
    bits = draw_bits(sites)
    best, *others = explain_units(gates, measure_responses(gates, bits), 1.0)
    assert not others
    assert set(best.sites) == set(sites)
    for site, found in best.bits.items():
        known = np.isfinite(found)
        assert known.sum() > 200
        assert np.array_equal(found[known], bits[site][known])
        rate, elements = best.likely_rates[site]
        assert abs(rate - bits[site].mean()) < 0.06
        assert elements > 200


def test_the_likeliest_rate_counts_bits_that_cannot_be_told():
    """Where only the response at once is seen, a mask on h's way out hides the candidate's mask.
    Then only kept candidates can be told, and the likeliest rate makes up for the hidden ones."""
    bits = draw_bits((EXIT, Site.CANDIDATE), rate=0.5)
    responses = measure_responses(4, bits, unseen=0.0)
    responses[:200, 1:] = np.nan  # of half of the units, the first step alone
    responses[:200, :, STEPS] = np.nan
    (best,) = explain_units(4, responses, 1.0)
    assert np.nanmean(best.bits[Site.CANDIDATE][:200, 0]) == 0.0
    assert abs(best.likely_rates[Site.CANDIDATE][0] - bits[Site.CANDIDATE].mean()) < 0.06


def test_a_response_that_no_site_has_is_not_explained():
    responses = measure_responses(4, draw_bits((Site.CELL,)))
    responses[0, 2, 1] = 0.777
    assert explain_units(4, responses, 1.0) == []


def test_only_an_initial_state_tells_held_masks_on_the_cell_from_those_on_the_candidate():
    responses = measure_responses(4, draw_bits((Site.CELL,), held=True), unseen=0.0)
    with_state = {one.sites for one in explain_units(4, responses, 1.0)}
    assert (Site.CANDIDATE,) not in with_state
    responses[..., STEPS] = np.nan
    without_state = {one.sites for one in explain_units(4, responses, 1.0)}
    assert {(Site.CELL,), (Site.CANDIDATE,)} <= without_state
