"""Mask bits: Threefry's published answers, and what a key promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.argument_checks import check_seed
from dropout_policies.masks import compiled_bits, keyed
from dropout_policies.placement.plans import Geometry, Placement, Slot, plan_embedding, plan_masks
from dropout_policies.policies.sites import Site

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


def threefry_by_definition(key, counter):
    """One block as the paper defines it, in integers, without a line of the library's."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    schedule = (*key, 0x1BD11BDA ^ key[0] ^ key[1])
    x, y = (counter[0] + key[0]) % 2**32, (counter[1] + key[1]) % 2**32
    for number in range(20):
        bits = rotations[number // 4 % 2][number % 4]
        x = (x + y) % 2**32
        y = (y * 2**bits % 2**32 + y // 2 ** (32 - bits)) ^ x
        if number % 4 == 3:
            round_ = number // 4 + 1
            x = (x + schedule[round_ % 3]) % 2**32
            y = (y + schedule[(round_ + 1) % 3] + round_) % 2**32
    return x, y


def bits_by_definition(key, rate, shape, row_offset=0):
    """A mask's bits as the design defines them, one element after another: for each step the
    rows of the batch, 1 where an element is kept."""
    steps, batch, width = shape

    def kept(t, b, f):
        p = t * width + f
        word = threefry_by_definition(key, (row_offset + b, p // 2))[p % 2]
        return word >= round(rate * 2**32)

    return "/".join(
        " ".join("".join(str(int(kept(t, b, f))) for f in range(width)) for b in range(batch))
        for t in range(steps)
    )


def written(keep):
    """Bits `[T, B, F]` as `bits_by_definition` writes them."""
    return "/".join(" ".join("".join(str(int(f)) for f in b) for b in t) for t in keep)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_threefry_gives_its_published_answers(counter, key, result):
    assert threefry_by_definition(key, counter) == result

    def arrays(pair):
        return tuple(np.array([word], np.uint32) for word in pair)

    x0, x1 = keyed.threefry2x32(arrays(key), arrays(counter), keyed.rotate_left)
    assert (x0[0], x1[0]) == result


def test_a_known_mask_stays_what_it_is():
    """Seeds in papers must mean the same masks in every release."""
    bits = keyed.keep_bits(keyed.mask_key(1, 0, SLOT), 0.5, (2, 2, 4))
    assert bits.astype(int).tolist() == KNOWN_MASK


def test_a_sites_number_stays_what_it_is():
    """The number is one field of a key; a new site gets the next one."""
    assert {site.value: site.number for site in Site} == {
        "embedding": 0,
        "input": 1,
        "between": 2,
        "output": 3,
        "hidden": 4,
        "state": 5,
        "cell": 6,
        "candidate": 7,
        "hidden_update": 8,
        "cell_update": 9,
        "recurrent_weight": 10,
        "input_weight": 11,
    }


# One field after another is changed: seed, call, site, both bytes of the layer, direction.
KEYS = [
    (0x01234567, 5, Slot(Site.CELL, 0x0203, 1), (5, 0x01060203), (0xB1BD4E44, 0x75F54F63)),
    (0x01234568, 5, Slot(Site.CELL, 0x0203, 1), (5, 0x01060203), (0xDD1E42D1, 0x797ADB6A)),
    (0x01234567, 6, Slot(Site.CELL, 0x0203, 1), (6, 0x01060203), (0x8A2471C1, 0x07FDD3BE)),
    (0x01234567, 5, Slot(Site.CANDIDATE, 0x0203, 1), (5, 0x01070203), (0x30F630D5, 0xFEFF8EDE)),
    (0x01234567, 5, Slot(Site.CELL, 0x0204, 1), (5, 0x01060204), (0x5AC251CC, 0x47EC713B)),
    (0x01234567, 5, Slot(Site.CELL, 0x0303, 1), (5, 0x01060303), (0xDAA8462B, 0x7923274A)),
    (0x01234567, 5, Slot(Site.CELL, 0x0203, 0), (5, 0x00060203), (0xD4B517E1, 0x97748A4A)),
    (
        *(0xFFFFFFFF, 0x7FFFFFFF, Slot(Site.INPUT_WEIGHT, 0xFFFF, 1)),
        *((0x7FFFFFFF, 0x010BFFFF), (0xE98D7A08, 0xD766F467)),
    ),
]


@pytest.mark.parametrize(("seed", "call", "slot", "counter", "key"), KEYS)
def test_the_key_of_a_mask_is_known_field_by_field(seed, call, slot, counter, key):
    assert threefry_by_definition((seed, 0), counter) == key
    assert keyed.tag(slot) == counter[1]
    assert keyed.mask_key(seed, call, slot) == key


# Of the first key above, with an odd width, so that a step begins in the middle of a block.
BITS = [
    (0.1, 0, "11111 11111/11110 11101/01101 11111"),
    (0.1, 7, "11111 11011/11001 11111/11111 11111"),
    (0.5, 0, "00011 00111/00010 00101/01100 11100"),
    (0.5, 7, "11011 11001/10001 10111/10100 00101"),
    (0.9, 0, "00001 00100/00000 00000/01100 01000"),
    (0.9, 7, "00010 00000/00000 00011/00000 00000"),
]


@pytest.mark.parametrize(("rate", "row_offset", "bits"), BITS)
def test_the_bits_of_a_key_are_known_element_by_element(rate, row_offset, bits):
    shape, key = (3, 2, 5), KEYS[0][-1]
    assert bits_by_definition(key, rate, shape, row_offset) == bits
    assert written(keyed.keep_bits(key, rate, shape, row_offset)) == bits


# Of seed 20140908 at call 9: per step between layers and for the cell, per sequence and gate for
# the hidden state, per call for weights, whose rows are not the samples'.
KNOWN_MASKS = {
    ("between", 4, 0): "1011 0011/0001 0001/1001 1001",
    ("between", 4, 1): "1010 1001/1101 1100/1101 1101",
    ("between", 3, 0): "110 110/000 001/000 010",
    ("between", 3, 1): "010 100/010 010/010 000",
    ("output", 4, 0): "00 11",
    ("output", 4, 1): "11 00",
    ("hidden", 3, 0): "11100000 00000001",
    ("hidden", 3, 1): "11011110 10000101",
    ("hidden", 4, 0): "01001000 11010100",
    ("hidden", 4, 1): "01010001 10001011",
    ("cell_update", 3, 0): "00 11/10 11/10 10",
    ("cell_update", 3, 1): "10 11/10 11/01 11",
    ("cell_update", 4, 0): "11 11/00 01/11 10",
    ("cell_update", 4, 1): "11 10/00 10/11 00",
    ("recurrent_weight", 3, 0): "01 01 01 01 01 00 10 01",
    ("recurrent_weight", 3, 1): "01 11 10 00 11 01 10 11",
    ("recurrent_weight", 4, 0): "10 10 11 10 10 10 01 11",
    ("recurrent_weight", 4, 1): "11 10 11 01 11 00 01 01",
}


def test_the_masks_of_a_policy_are_known_for_every_lifetime_layer_and_direction():
    policy = dp.Policy(
        between=dp.drop(0.5),
        output=dp.drop(0.5, per="sequence"),
        hidden=dp.drop(0.5, per="sequence", gates="untied"),
        cell_update=dp.Rule(0.5, kind="zoneout"),
        recurrent_weight=dp.drop(0.5, per="call"),
    )
    placement = Placement(policy, layer=3, first=False)
    wanted = plan_masks(placement, Geometry(3, 2, layers=2, directions=(0, 1), batch=2, steps=3))
    drawn = keyed.masks(wanted, 20140908, 9, row_offset=4)
    kept = {slot: 0.0 if slot.site is Site.CELL_UPDATE else 2.0 for slot in drawn}
    assert {
        (slot.site.value, slot.layer, slot.direction): written(mask == kept[slot])
        for slot, mask in drawn.items()
    } == KNOWN_MASKS
    for slot, mask in drawn.items():
        key = keyed.mask_key(20140908, 9, slot)
        offset = 4 * (slot.site is not Site.RECURRENT_WEIGHT)
        assert written(mask == kept[slot]) == bits_by_definition(key, 0.5, mask.shape, offset)


def test_a_batch_begins_at_row_0_if_nothing_is_said():
    wanted = plan_masks(Placement(dp.zaremba()), Geometry(3, 4, batch=2, steps=2))
    (a, b), (c, d) = (
        keyed.masks(wanted, 1, 0, **more).values() for more in ({}, {"row_offset": 0})
    )
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)


@pytest.mark.parametrize(("per", "bits"), [("sequence", "1101000 0100010"), ("call", "0101000")])
def test_the_masks_of_an_embedding_are_known(per, bits):
    """Per call one row serves all samples, and it is the same in every process."""
    wanted = plan_embedding(dp.Policy(embedding=dp.drop(0.5, per=per)), 2, 7, 2)
    (mask,) = keyed.masks(wanted, 20140908, 9, row_offset=4).values()
    assert written(mask == 2.0) == bits


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
    wanted = plan_masks(Placement(dp.zaremba(0.75)), Geometry(3, 4, layers=2, batch=2, steps=5))
    drawn = keyed.masks(wanted, seed=1, call=0)
    assert [slot.site for slot in drawn] == [Site.INPUT, Site.BETWEEN, Site.OUTPUT]
    for slot, mask in drawn.items():
        assert mask.shape == wanted[slot].shape
        assert set(np.unique(mask)) <= {0.0, 4.0}


def test_a_word_at_the_threshold_is_kept():
    key = KEYS[0][-1]
    for p in range(4):
        word = threefry_by_definition(key, (0, p // 2))[p % 2]
        kept = [keyed.keep_bits(key, (word + d) / 2**32, (1, 1, 4))[0, 0, p] for d in (-1, 0, 1)]
        assert kept == [True, True, False]


def test_the_ends_of_what_a_seed_may_be_are_seeds():
    assert [check_seed(seed) for seed in (0, 2**32 - 1)] == [0, 2**32 - 1]


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 1, 1.5, True, "1", None])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(dp.PolicyError, match="seed must be an integer"):
        check_seed(seed)


def test_too_many_layers_are_refused():
    for layer in (2**16, 2**16 + 1, -1):
        with pytest.raises(dp.PolicyError, match="65,536"):
            keyed.tag(Slot(Site.INPUT, layer, 0))


def test_seeds_made_of_one_are_unlike_and_known():
    """One of them is written down: what was sampled once can be sampled again in every release."""
    made = {keyed.derived_seed(seed, number) for seed in range(50) for number in range(50)}
    assert len(made) == 2500
    assert keyed.derived_seed(7, 3) == 2021455403
    assert keyed.derived_seed(0x01234567, 0x89AB) == 2744054864
    assert threefry_by_definition((0x01234567, 0), (0x89AB, 0xFFFFFFFF))[0] == 2744054864


@given(
    first=st.integers(0, 9),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 7)),
    row_offset=st.sampled_from([0, 3, 2**32 - 2]),
)
def test_a_mask_from_a_later_step_on_is_the_end_of_a_longer_one(first, shape, row_offset):
    """In NumPy and in C, blocks that begin before the first step included."""
    steps, batch, width = shape
    key = keyed.mask_key(3, 1, SLOT)
    whole = keyed.keep_bits(key, 0.5, (first + steps, batch, width), row_offset)
    part = keyed.keep_bits(key, 0.5, shape, row_offset, first)
    np.testing.assert_array_equal(part, whole[first:])
    assert compiled_bits.has_compiled_bits()
    written = np.zeros(shape, np.uint8)
    least, address = keyed.threshold(0.5), written.ctypes.data
    compiled_bits.write_keep_bits(key, least, shape, row_offset, address, first)
    np.testing.assert_array_equal(written.astype(bool), part)
