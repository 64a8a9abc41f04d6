"""What the bits of a mask say of its rate, its lifetime and who shares it."""

import numpy as np
import pytest

from dropout_policies.auditing.probing.mask_summary import summarize_mask
from dropout_policies.auditing.probing.shared_masks import is_same_mask
from dropout_policies.auditing.probing.significance import estimate_proportion
from dropout_policies.policies.sites import Site

STEPS = 4
INPUT = (Site.INPUT, 0, 0)


def draw_bits(steps=STEPS, batch=3, units=8, draws=30, rate=0.4, seed=0):
    """Bits `[draws, 4, 3, 8]` that are the same along every axis whose length here is 1."""
    shape = [draws, STEPS, 3, 8]
    random = np.random.default_rng(seed)
    bits = random.random((draws, steps, batch, units)) < rate
    return np.broadcast_to(bits, shape).astype(float)


@pytest.mark.parametrize(
    ("bits", "per", "shared", "alike"),
    [
        (draw_bits(), "step", False, False),
        (draw_bits(steps=1), "sequence", False, False),
        (draw_bits(steps=1, batch=1), "call", True, False),
        (draw_bits(batch=1), "step", True, False),
        (draw_bits(units=1), "step", False, True),
    ],
)
def test_how_long_a_mask_lives_and_who_shares_it(bits, per, shared, alike):
    found = summarize_mask(INPUT, bits)
    assert (found.verdict, found.per, found.shared, found.alike) == ("masked", per, shared, alike)
    assert found.frozen is False
    assert found.interval[0] < 0.4 < found.interval[1]


@pytest.mark.parametrize(
    ("bits", "words", "per", "shared"),
    [
        (np.maximum(draw_bits(steps=1), draw_bits(seed=1)), "steps", None, False),
        (np.repeat(draw_bits()[:, ::2], 2, axis=1), "steps", None, False),
        (np.maximum(draw_bits(batch=1), draw_bits(seed=1)), "samples", "step", False),
        (np.repeat(draw_bits()[..., ::2], 2, axis=-1), "units", "step", False),
    ],
    ids=["held and not", "every second step", "for the batch and not", "pairs of units"],
)
def test_elements_that_are_partly_dropped_together_are_noted(bits, words, per, shared):
    found = summarize_mask(INPUT, bits)
    assert found.note == f"{words} are dropped together more often than by chance"
    assert (found.per, found.shared) == (per, shared)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [{}, {"steps": 1}, {"batch": 1}, {"units": 1}])
def test_independent_elements_are_not_noted_as_dropped_together(rate, sizes):
    for seed in range(40):
        for unseen in (0.0, 0.15):
            bits = draw_bits(rate=rate, seed=seed, **sizes)
            hidden = np.random.default_rng(seed).random(bits.shape) < unseen
            found = summarize_mask(INPUT, np.where(hidden, np.nan, bits))
            assert "together" not in found.note, (seed, found)


def test_one_mask_for_all_calls_is_frozen():
    bits = np.repeat(draw_bits(draws=1), 30, axis=0)
    assert summarize_mask(INPUT, bits).frozen is True


def test_few_elements_are_not_enough_for_a_verdict():
    assert summarize_mask(INPUT, np.full((1, 1, 1, 20), np.nan)).verdict == "undecided"
    assert summarize_mask(INPUT, np.zeros((1, 1, 1, 20))).verdict == "undecided"
    whole = summarize_mask(INPUT, np.zeros((1, 1, 1, 2000)))
    assert whole.verdict == "whole"
    assert whole.interval[1] == pytest.approx(1 - 0.01 ** (1 / 2000))
    few = np.zeros((1, 2, 2, 200))
    few[0, :, :, :20] = 1.0
    assert summarize_mask(INPUT, few).per is not None
    few[0, 1] = np.nan
    assert summarize_mask(INPUT, few).per is None


def test_an_interval_holds_the_rate():
    share, (low, high) = estimate_proportion(30, 100)
    assert share == 0.3
    assert (low, high) == (pytest.approx(0.1975, abs=1e-3), pytest.approx(0.4274, abs=1e-3))


def test_one_mask_at_two_sites_is_found():
    first, second = draw_bits(), draw_bits(seed=1)
    assert is_same_mask(first, first)
    assert not is_same_mask(first, second)
    assert not is_same_mask(np.zeros_like(first), np.zeros_like(first))
