"""Mask bits: Threefry's published answers, and what a key promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies import keyed
from dropout_policies.plan import Geometry, Placement, Slot, plan
from dropout_policies.sites import Site

# The known-answer vectors of Threefry-2x32 with 20 rounds that the Random123 library publishes:
# counter, key, result.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]
SLOT = Slot(Site.INPUT, 0, 0)
KNOWN_MASK = [[[0, 1, 1, 1], [1, 0, 1, 0]], [[0, 0, 0, 1], [1, 0, 0, 1]]]
words = st.integers(0, 2**32 - 1)
slots = st.builds(Slot, st.sampled_from(Site), st.integers(0, 2**16 - 1), st.integers(0, 1))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_threefry_gives_its_published_answers(counter, key, result):
    def arrays(pair):
        return tuple(np.array([word], np.uint32) for word in pair)

    x0, x1 = keyed.threefry2x32(arrays(key), arrays(counter), keyed.rotate_left)
    assert (x0[0], x1[0]) == result


def test_a_known_mask_stays_what_it_is():
    """Seeds in papers must mean the same masks in every release."""
    bits = keyed.keep_bits(keyed.mask_key(1, 0, SLOT), 0.5, (2, 2, 4))
    assert bits.astype(int).tolist() == KNOWN_MASK


@given(words, words, slots, slots)
def test_two_slots_never_share_a_tag(seed, call, a, b):
    assert (a == b) == (keyed.tag(a) == keyed.tag(b))
    if a != b:
        assert keyed.mask_key(seed, call, a) != keyed.mask_key(seed, call, b)


@given(words, st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 4))
def test_a_samples_bits_depend_on_neither_batch_nor_length(seed, steps, batch, width, offset):
    key = keyed.mask_key(seed, 3, SLOT)
    whole = keyed.keep_bits(key, 0.5, (steps + 3, batch + offset, width))
    part = keyed.keep_bits(key, 0.5, (steps, batch, width), row_offset=offset)
    np.testing.assert_array_equal(part, whole[:steps, offset:])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.65, 0.999])
def test_the_share_that_is_kept_is_one_minus_rate(rate):
    kept = keyed.keep_bits(keyed.mask_key(5, 0, SLOT), rate, (50, 40, 51))
    deviation = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) <= 5 * deviation


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_are_independent_along_every_axis(axis):
    kept = keyed.keep_bits(keyed.mask_key(5, 0, SLOT), 0.5, (50, 40, 51)).astype(float) - 0.5
    a = np.take(kept, range(1, kept.shape[axis]), axis)
    b = np.take(kept, range(kept.shape[axis] - 1), axis)
    assert abs(4 * (a * b).mean()) < 5 / np.sqrt(a.size)


def test_the_threshold_is_the_rounded_rate_and_never_past_a_word():
    assert keyed.threshold(0.5) == 2**31
    assert keyed.threshold(0.0) == 0
    assert keyed.threshold(1 - 1e-16) == 2**32 - 1


def test_masks_are_planned_shapes_of_zero_and_the_scale():
    wanted = plan(Placement(dp.zaremba(0.75)), Geometry(3, 4, layers=2, batch=2, steps=5))
    drawn = keyed.masks(wanted, seed=1, call=0)
    assert [slot.site for slot in drawn] == [Site.INPUT, Site.BETWEEN, Site.OUTPUT]
    for slot, mask in drawn.items():
        assert mask.shape == wanted[slot].shape
        assert set(np.unique(mask)) <= {0.0, 4.0}


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "1", None])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(dp.PolicyError, match="seed must be an integer"):
        keyed.check_seed(seed)


def test_too_many_layers_are_refused():
    with pytest.raises(dp.PolicyError, match="65,536"):
        keyed.tag(Slot(Site.INPUT, 2**16, 0))


def test_seeds_made_of_one_are_unlike_and_known():
    """One of them is written down: what was sampled once can be sampled again in every release."""
    made = {keyed.derived_seed(seed, number) for seed in range(50) for number in range(50)}
    assert len(made) == 2500
    assert keyed.derived_seed(7, 3) == 2021455403
