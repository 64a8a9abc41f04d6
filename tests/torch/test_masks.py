"""Masks on the device: the core's bits, exactly."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import masks
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.masks import compiled_bits, keyed
from dropout_policies.placement.plans import PlannedMask, Slot
from dropout_policies.policies.sites import Site

CPU = torch.device("cpu")
words = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))


@pytest.fixture(params=["compiled", "by PyTorch's own functions"])
def bits(request, monkeypatch):
    """Both ways that keyed bits are computed."""
    if request.param == "compiled":
        assert compiled_bits.has_compiled_bits(), "the tests need a C compiler"
    else:
        monkeypatch.setattr(masks, "has_compiled_bits", lambda: False)


@pytest.mark.usefixtures("bits")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words, words, sizes, st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 6))
@example(1, 2, (3, 2, 1027), 0.5, 7)  # of an odd width, and wider than what is computed at once
@example(1, 2, (2, 2, 2048), 0.5, 7)
def test_mask_bits_are_the_cores(k0, k1, shape, rate, row_offset):
    key = masks._to_int32(k0), masks._to_int32(k1)
    got = masks.keep_bits(key, keyed.threshold(rate) - 2**31, shape, row_offset, CPU)
    np.testing.assert_array_equal(got.numpy(), keyed.keep_bits((k0, k1), rate, shape, row_offset))


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.65])
def test_masks_without_a_seed_are_pytorchs_generators(rate):
    """The one of `torch.manual_seed`: which masks follows from it, and no two are the same."""
    one = PlannedMask(dp.drop(rate), rate, (50, 40, 51))
    wanted = {Slot(Site.INPUT, 0, 0): one, Slot(Site.BETWEEN, 1, 0): one}

    def drawn():
        found = masks.draw(wanted, None, 0, 0, CPU, torch.float32)
        return [np.asarray(mask) != 0 for mask in found.values()]

    torch.manual_seed(0)
    first, second = drawn(), drawn()
    torch.manual_seed(0)
    np.testing.assert_array_equal(first, drawn())
    count = first[0].size
    expected = np.eye(4) * rate * (1 - rate) + (1 - rate) ** 2
    found = [[(a & b).mean() for b in (*first, *second)] for a in (*first, *second)]
    np.testing.assert_allclose(found, expected, atol=5 / count**0.5)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_a_drawn_plan_is_the_cores(seed):
    wanted = {
        Slot(Site.INPUT, 0, 0): PlannedMask(dp.drop(0.3), 0.3, (3, 4, 5)),
        Slot(Site.HIDDEN, 1, 1): PlannedMask(dp.drop(0.5, per="sequence"), 0.5, (1, 4, 2)),
        Slot(Site.CELL, 0, 0): PlannedMask(dp.drop(0.5, scaled=False), 0.5, (3, 4, 2)),
        Slot(Site.CELL_UPDATE, 0, 0): PlannedMask(dp.Rule(0.2, kind="zoneout"), 0.2, (3, 4, 2)),
        Slot(Site.INPUT_WEIGHT, 0, 0): PlannedMask(
            dp.drop(0.5, per="call"), 0.5, (1, 8, 2), by_sample=False
        ),
    }
    got = masks.draw(wanted, seed, 2**32 - 1, 6, CPU, torch.float64)
    expected = keyed.masks(wanted, seed, 2**32 - 1, 6)
    assert got.keys() == expected.keys()
    for slot, mask in got.items():
        np.testing.assert_array_equal(np.asarray(mask), expected[slot])


@pytest.mark.parametrize("call", [0, 1, 2, 5, 2**31 - 1])
def test_a_call_that_only_a_graph_knows_has_the_same_masks(call):
    """In a compiled graph the number of the call is a tensor; schedules are looked up there."""
    rate = dp.schedule({0: 0.0, 2: 0.3, 5: 0.9})
    wanted = {
        Slot(Site.INPUT, 0, 0): PlannedMask(dp.drop(rate), rate, (3, 4, 5)),
        Slot(Site.HIDDEN, 1, 1): PlannedMask(dp.drop(0.5), 0.5, (3, 4, 2)),
    }
    got = masks.draw(wanted, 2**32 - 5, torch.tensor(call), 6, CPU, torch.float64)
    for slot, mask in keyed.masks(wanted, 2**32 - 5, call, 6).items():
        np.testing.assert_array_equal(np.asarray(got[slot]), mask)
    unseeded = masks.draw(wanted, None, torch.tensor(call), 6, CPU, torch.float64)
    values = np.unique(unseeded[Slot(Site.INPUT, 0, 0)])
    assert set(values) <= {0.0, 1.0 / (1.0 - rate.at(call))}


@pytest.mark.parametrize(
    ("site", "rule", "small"),
    [
        (Site.INPUT, dp.drop(0.5), True),
        (Site.BETWEEN, dp.drop(0.5), True),
        (Site.OUTPUT, dp.drop(0.5, scaled=False), True),
        (Site.RECURRENT_WEIGHT, dp.drop(0.5, per="call"), True),
        (Site.INPUT, dp.drop(0.5, gates="untied"), False),
        (Site.HIDDEN, dp.drop(0.5), False),
        (Site.CELL_UPDATE, dp.Rule(0.5, kind="zoneout"), False),
    ],
)
@pytest.mark.parametrize("seed", [3, None])
def test_a_large_mask_that_falls_at_once_takes_a_byte_for_each_element(site, rule, small, seed):
    """The backward pass holds on to it."""
    wanted = {Slot(site, 0, 0): PlannedMask(rule, 0.5, (3, 4, 8))}
    (mask,) = masks.draw(wanted, seed, 0, 0, CPU, torch.float32).values()
    assert isinstance(mask, masks.BitMask) == small
    held = mask.keep if small else mask
    assert held.element_size() == (1 if small else 4)
    assert tuple(mask.shape) == (3, 4, 8)


def test_kernels_of_a_gpu_are_for_masks_on_a_gpu(monkeypatch):
    """Triton may be there, and a model on the CPU, and no C compiler."""
    monkeypatch.setattr(masks, "has_compiled_bits", lambda: False)
    monkeypatch.setattr(masks, "load_triton_kernels", object)
    key = masks._to_int32(1), masks._to_int32(2)
    got = masks.keep_bits(key, keyed.threshold(0.5) - 2**31, (3, 4, 5), 0, CPU)
    np.testing.assert_array_equal(got.numpy(), keyed.keep_bits((1, 2), 0.5, (3, 4, 5), 0))


def test_the_key_of_a_mask_without_a_seed_may_be_any_two_words(monkeypatch):
    """All quarters of the words are drawn alike often."""
    keys, given = [], masks.keep_bits

    def keep_bits(key, *rest):
        keys.extend(int(word) for word in key)
        return given(key, *rest)

    monkeypatch.setattr(masks, "keep_bits", keep_bits)
    wanted = {Slot(Site.INPUT, 0, 0): PlannedMask(dp.drop(0.5), 0.5, (1, 1, 1))}
    torch.manual_seed(0)
    for _ in range(500):
        masks.draw(wanted, None, 0, 0, CPU, torch.float32)
    share, _ = np.histogram(keys, bins=4, range=(-(2**31), 2**31))
    assert share.sum() == 1000
    np.testing.assert_allclose(share / 1000, 0.25, atol=0.07)


@pytest.mark.usefixtures("bits")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes, st.integers(0, 9))
def test_a_mask_may_begin_at_a_later_step(shape, first_step):
    key = masks._to_int32(11), masks._to_int32(12)
    got = masks.keep_bits(key, keyed.threshold(0.5) - 2**31, shape, 2, CPU, first_step)
    expected = keyed.keep_bits((11, 12), 0.5, shape, 2, first_step)
    np.testing.assert_array_equal(got.numpy(), expected)
