"""What the audit concludes from what it sees, on noise that is made up and so known."""

from itertools import combinations

import numpy as np
import pytest

from dropout_policies.auditing.probing import events
from dropout_policies.auditing.probing.chance import proportion
from dropout_policies.auditing.probing.events import SITES, explain, simulate
from dropout_policies.auditing.probing.evidence import (
    UNFED,
    Finding,
    finding,
    told,
    without_doubtful,
    without_unfed,
)
from dropout_policies.auditing.probing.scales import with_scales
from dropout_policies.auditing.probing.ties import one_mask
from dropout_policies.policies.sites import UPDATES, Site

STEPS = 4
PAIRS = [
    (gates, pair)
    for gates, sites in SITES.items()
    for count in (0, 1, 2)
    for pair in combinations(sites, count)
]


def fallen(sites, rate=0.3, units=400, held=False, seed=0):
    random = np.random.default_rng(seed)
    shape = (units, 1 if held else STEPS)
    return {
        site: np.broadcast_to(random.random(shape) < rate, (units, STEPS)).astype(float)
        for site in sites
    }


def responses(gates, bits, seed=1, unseen=0.2):
    """What is seen of units on which something falls, and some of it not at all."""
    values = {s: b if s in UPDATES else 1.0 - b for s, b in bits.items()}
    seen = simulate(gates, values, STEPS, 400)
    hidden = np.random.default_rng(seed).random((400, STEPS, 1)) < unseen
    return np.where(hidden, np.nan, seen)


@pytest.mark.parametrize(("gates", "sites"), PAIRS)
def test_what_fell_is_found(gates, sites):
    bits = fallen(sites)
    best, *others = explain(gates, responses(gates, bits), 1.0)
    assert not others
    assert set(best.sites) == set(sites)
    for site, seen in best.bits.items():
        known = np.isfinite(seen)
        assert known.sum() > 200
        assert np.array_equal(seen[known], bits[site][known])
        rate, elements = best.likely[site]
        assert abs(rate - bits[site].mean()) < 0.06
        assert elements > 200


def test_a_rate_is_not_that_of_what_can_be_told():
    """Of a signal that is seen at once alone, a mask on its way out hides what a candidate's mask
    did: only those are told that nothing fell on, and the likeliest rate is that of both."""
    sites = (events.EXIT, Site.CANDIDATE)
    bits = fallen(sites, rate=0.5)
    seen = responses(4, bits, unseen=0.0)
    seen[:200, 1:] = np.nan  # of half of the units, the first step alone
    seen[:200, :, STEPS] = np.nan
    (best,) = explain(4, seen, 1.0)
    true = bits[Site.CANDIDATE].mean()
    assert np.nanmean(best.bits[Site.CANDIDATE][:200, 0]) == 0.0
    assert abs(best.likely[Site.CANDIDATE][0] - true) < 0.06


def test_what_no_site_explains_is_not_explained():
    seen = responses(4, fallen((Site.CELL,)))
    seen[0, 2, 1] = 0.777
    assert explain(4, seen, 1.0) == []


def test_masks_held_on_cell_or_candidate_are_told_apart_by_an_initial_state_alone():
    seen = responses(4, fallen((Site.CELL,), held=True), unseen=0.0)
    with_state = {event.sites for event in explain(4, seen, 1.0)}
    assert (Site.CANDIDATE,) not in with_state
    seen[..., STEPS] = np.nan
    assert {(Site.CELL,), (Site.CANDIDATE,)} <= {e.sites for e in explain(4, seen, 1.0)}


def drawn(steps=STEPS, batch=3, units=8, draws=30, rate=0.4, seed=0):
    shape = [draws, STEPS, 3, 8]
    random = np.random.default_rng(seed)
    base = random.random((draws, steps, batch, units)) < rate
    return np.broadcast_to(base, shape).astype(float)


@pytest.mark.parametrize(
    ("bits", "per", "shared", "alike"),
    [
        (drawn(), "step", False, False),
        (drawn(steps=1), "sequence", False, False),
        (drawn(steps=1, batch=1), "call", True, False),
        (drawn(batch=1), "step", True, False),
        (drawn(units=1), "step", False, True),
    ],
)
def test_how_long_a_mask_lives_and_who_shares_it(bits, per, shared, alike):
    found = finding(Site.INPUT, 0, 0, bits)
    assert (found.verdict, found.per, found.shared, found.alike) == ("masked", per, shared, alike)
    assert found.frozen is False
    assert found.interval[0] < 0.4 < found.interval[1]


def joined(first, second):
    return np.maximum(first, second)


@pytest.mark.parametrize(
    ("bits", "words", "per", "shared"),
    [
        (joined(drawn(steps=1), drawn(seed=1)), "steps", None, False),
        (np.repeat(drawn()[:, ::2], 2, axis=1), "steps", None, False),
        (joined(drawn(batch=1), drawn(seed=1)), "samples", "step", False),
        (np.repeat(drawn()[..., ::2], 2, axis=-1), "units", "step", False),
    ],
    ids=["held and not", "every second step", "for the batch and not", "pairs of units"],
)
def test_elements_that_are_partly_dropped_together_are_seen(bits, words, per, shared):
    found = finding(Site.INPUT, 0, 0, bits)
    assert found.note == f"{words} are dropped together more often than by chance"
    assert (found.per, found.shared) == (per, shared)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [{}, {"steps": 1}, {"batch": 1}, {"units": 1}])
def test_elements_that_are_dropped_apart_are_not_said_to_be_dropped_together(rate, sizes):
    for seed in range(40):
        for unseen in (0.0, 0.15):
            bits = drawn(rate=rate, seed=seed, **sizes)
            hidden = np.random.default_rng(seed).random(bits.shape) < unseen
            found = finding(Site.INPUT, 0, 0, np.where(hidden, np.nan, bits))
            assert "together" not in found.note, (seed, found)


def test_one_mask_for_all_calls_is_seen():
    bits = np.repeat(drawn(draws=1), 30, axis=0)
    assert finding(Site.INPUT, 0, 0, bits).frozen is True


def test_little_is_not_taken_for_nothing():
    assert finding(Site.INPUT, 0, 0, np.full((1, 1, 1, 20), np.nan)).verdict == "undecided"
    assert finding(Site.INPUT, 0, 0, np.zeros((1, 1, 1, 20))).verdict == "undecided"
    whole = finding(Site.INPUT, 0, 0, np.zeros((1, 1, 1, 2000)))
    assert whole.verdict == "whole"
    assert whole.interval[1] == pytest.approx(1 - 0.01 ** (1 / 2000))
    few = np.zeros((1, 2, 2, 200))
    few[0, :, :, :20] = 1.0
    assert finding(Site.INPUT, 0, 0, few).per is not None
    few[0, 1] = np.nan
    assert finding(Site.INPUT, 0, 0, few).per is None


def test_an_interval_holds_the_rate():
    share, (low, high) = proportion(30, 100)
    assert share == 0.3
    assert (low, high) == (pytest.approx(0.1975, abs=1e-3), pytest.approx(0.4274, abs=1e-3))


def test_masks_of_entries_are_told_from_masks_of_columns():
    random = np.random.default_rng(0)
    columns = (np.arange(8)[None] + np.arange(3)[:, None]) % 8
    column = np.repeat((random.random((20, 4, 3, 1, 8)) < 0.7) * 1.0, 3, axis=-2)
    seen = np.stack([column[..., r, columns[r]] for r in range(3)], axis=-2)
    plain = told(seen, columns)
    assert (plain.entries, plain.doubt) == (None, "")
    assert np.array_equal(plain.bits, 1.0 - column[..., 0, :])
    assert list(plain.features) == list(range(8))
    entry = (random.random((20, 1, 1, 3, 8)) < 0.5) * 1.0
    both = told(seen * entry, columns)
    known = np.isfinite(both.entries)
    wrong = both.entries[known] != (1.0 - entry)[:, 0][known]
    assert wrong.mean() < 0.01  # an entry that its column hid twelve times
    there = np.isfinite(both.bits)
    assert np.array_equal(both.bits[there], (1.0 - column[..., 0, :])[there])
    assert both.doubt == ""
    step_by_step = (random.random((20, 4, 3, 3, 8)) < 0.5) * 1.0
    assert "not throughout a call" in told(seen * step_by_step, columns).doubt


def test_one_mask_at_two_sites_is_seen():
    first, second = drawn(), drawn(seed=1)
    assert one_mask(first, first)
    assert not one_mask(first, second)
    assert not one_mask(np.zeros_like(first), np.zeros_like(first))


def masked(site, rate):
    return Finding(site, 0, 0, "masked", rate, (rate - 0.02, rate + 0.02))


A, B = (Site.CANDIDATE, 0, 0), (Site.OUTPUT, 0, 0)


@pytest.mark.parametrize(
    ("product", "scaled"),
    [(1.0, (False, False)), (1 / 0.7 / 0.4, (True, True)), (1 / 0.4, (False, True))],
)
def test_scales_are_told_from_their_product(product, scaled):
    found = {A: masked(Site.CANDIDATE, 0.3), B: masked(Site.OUTPUT, 0.6)}
    made = with_scales(found, [(product, [A, B])])
    assert (made[A].scaled, made[B].scaled) == scaled


def test_a_scale_that_could_be_eithers_is_nobodys():
    found = {A: masked(Site.CANDIDATE, 0.5), B: masked(Site.OUTPUT, 0.5)}
    made = with_scales(found, [(2.0, [A, B])])
    assert (made[A].scaled, made[B].scaled) == (None, None)
    made = with_scales(found, [(7.0, [A, B])])
    assert made[A].note == "what is kept is multiplied by 7"


def test_of_many_scales_together_nothing_is_said():
    keys = [(Site.BETWEEN, layer, 0) for layer in range(30)]
    found = {key: Finding(*key, "masked", 0.5, (0.45, 0.55)) for key in keys}
    made = with_scales(found, [(4.0, keys[n : n + 2]) for n in range(29)])
    assert all(each.scaled is None for each in made.values())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_may_never_have_come_in_counts_only_beside_what_did(elsewhere):
    bits = np.zeros((2, 4, 3, 5))
    fed = np.ones((2, 4, 3), bool)
    fed[0, 1, 2] = False
    bits[0, 1, 2, :4] = 1.0
    bits[1, 0, 0, 0] = float(elsewhere)
    told = without_doubtful(bits, fed)
    known = np.isfinite(told)
    assert known.all() == elsewhere
    assert (~known).sum() == (0 if elsewhere else 4)
    np.testing.assert_array_equal(told[known], bits[known])


@pytest.mark.parametrize(("gone", "doubt"), [(2, ""), (8, UNFED)])
def test_h_that_is_missing_of_units_that_are_not_seen_alone_is_no_mask_but_may_be_if_it_is_much(
    gone, doubt
):
    bits, seen = np.zeros((1, 1, 2, 20)), np.ones((1, 1, 2, 20), bool)
    seen[..., :5] = False  # ten elements of units that are not seen at the output
    bits[..., : gone // 2] = 1.0
    left, why = without_unfed(bits, seen)
    assert why == doubt
    assert not (left == 1.0).any()
    assert np.isnan(left).sum() == gone
    bits[0, 0, 0, 10] = 1.0  # of one that is seen: then all of them count
    left, why = without_unfed(bits, seen)
    assert why == ""
    assert (left == bits).all()
