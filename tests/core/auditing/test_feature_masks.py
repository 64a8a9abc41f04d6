"""Masks on features are separated from masks on the entries of their matrix."""

import numpy as np
import pytest

from dropout_policies.auditing.probing.feature_masks import (
    hide_bits_without_input,
    hide_doubtful_bits,
    separate_masks,
)
from dropout_policies.auditing.probing.findings import UNITS_WITHOUT_INPUT

COLUMNS = (np.arange(8)[None] + np.arange(3)[:, None]) % 8


def draw_kept(rate, *shape):
    random = np.random.default_rng(len(shape) + int(10 * rate))
    return (random.random(shape) >= rate) * 1.0


def values_of_features(kept):
    """What three routes of eight units see of features, `[N, T, B, 8]`."""
    return np.stack([kept[..., columns] for columns in COLUMNS], axis=-2)


def test_masks_on_features_alone():
    kept = draw_kept(0.3, 20, 4, 3, 8)
    masks = separate_masks(values_of_features(kept), COLUMNS)
    assert (masks.entries, masks.doubt) == (None, "")
    assert np.array_equal(masks.bits, 1.0 - kept)
    assert list(masks.features) == list(range(8))


def test_masks_on_features_and_on_entries():
    kept, kept_entries = draw_kept(0.3, 20, 4, 3, 8), draw_kept(0.5, 20, 1, 1, 3, 8)
    masks = separate_masks(values_of_features(kept) * kept_entries, COLUMNS)
    known = np.isfinite(masks.entries)
    wrong = masks.entries[known] != (1.0 - kept_entries)[:, 0][known]
    assert wrong.mean() < 0.01  # an entry whose feature was missing twelve times
    known = np.isfinite(masks.bits)
    assert np.array_equal(masks.bits[known], (1.0 - kept)[known])
    assert masks.doubt == ""


def test_entries_that_are_dropped_step_by_step_are_doubted():
    kept = draw_kept(0.3, 20, 4, 3, 8)
    values = values_of_features(kept) * draw_kept(0.5, 20, 4, 3, 3, 8)
    assert "not throughout a call" in separate_masks(values, COLUMNS).doubt


@pytest.mark.parametrize("elsewhere", [False, True])
def test_bits_without_a_known_input_count_only_beside_others(elsewhere):
    bits = np.zeros((2, 4, 3, 5))
    input_known = np.ones((2, 4, 3), bool)
    input_known[0, 1, 2] = False
    bits[0, 1, 2, :4] = 1.0
    bits[1, 0, 0, 0] = float(elsewhere)
    remaining = hide_doubtful_bits(bits, input_known)
    known = np.isfinite(remaining)
    assert known.all() == elsewhere
    assert (~known).sum() == (0 if elsewhere else 4)
    np.testing.assert_array_equal(remaining[known], bits[known])


@pytest.mark.parametrize(("missing", "doubt"), [(2, ""), (8, UNITS_WITHOUT_INPUT)])
def test_missing_h_of_invisible_units_is_hidden_and_doubted_if_it_is_much(missing, doubt):
    bits, visible = np.zeros((1, 1, 2, 20)), np.ones((1, 1, 2, 20), bool)
    visible[..., :5] = False  # ten elements of units that are not visible at the output
    bits[..., : missing // 2] = 1.0
    remaining, found = hide_bits_without_input(bits, visible)
    assert found == doubt
    assert not (remaining == 1.0).any()
    assert np.isnan(remaining).sum() == missing
    bits[0, 0, 0, 10] = 1.0  # of a visible unit: then all of them count
    remaining, found = hide_bits_without_input(bits, visible)
    assert found == ""
    assert (remaining == bits).all()
