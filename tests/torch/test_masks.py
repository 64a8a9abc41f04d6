"""Masks on the device: the core's bits, exactly."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import masks
from hypothesis import given
from hypothesis import strategies as st

from dropout_policies import keyed
from dropout_policies.plan import PlannedMask, Slot
from dropout_policies.policy import Rule
from dropout_policies.sites import Site

CPU = torch.device("cpu")
words = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))


@given(words, words, sizes, st.floats(0, 1, exclude_max=True), st.integers(0, 100))
def test_mask_bits_are_the_cores(k0, k1, shape, rate, row_offset):
    got = masks.keep_bits((k0, k1), rate, shape, row_offset, CPU)
    np.testing.assert_array_equal(got.numpy(), keyed.keep_bits((k0, k1), rate, shape, row_offset))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_a_drawn_plan_is_the_cores(seed):
    wanted = {
        Slot(Site.INPUT, 0, 0): PlannedMask(Rule(0.3), (3, 4, 5)),
        Slot(Site.HIDDEN, 1, 1): PlannedMask(Rule(0.5, "sequence"), (1, 4, 2)),
    }
    got = masks.draw(wanted, seed, 2**32 - 1, 6, CPU, torch.float64)
    expected = keyed.masks(wanted, seed, 2**32 - 1, 6)
    assert got.keys() == expected.keys()
    for slot, mask in got.items():
        np.testing.assert_array_equal(mask.numpy(), expected[slot])
