"""The plan: which masks a call needs, and their shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.plan import (
    Geometry,
    Placement,
    Slot,
    check_sites,
    masked_connections,
    plan,
)
from dropout_policies.sites import Site

GEOMETRY = Geometry(3, 4, layers=2, directions=(0, 1), batch=5, steps=7)


def test_zaremba_masks_every_vertical_connection_of_both_directions():
    wanted = {slot: mask.shape for slot, mask in plan(Placement(dp.zaremba()), GEOMETRY).items()}
    assert wanted == {
        Slot(Site.INPUT, 0, 0): (7, 5, 3),
        Slot(Site.INPUT, 0, 1): (7, 5, 3),
        Slot(Site.BETWEEN, 1, 0): (7, 5, 8),
        Slot(Site.BETWEEN, 1, 1): (7, 5, 8),
        Slot(Site.OUTPUT, 1, 0): (7, 5, 4),
        Slot(Site.OUTPUT, 1, 1): (7, 5, 4),
    }


def test_naive_adds_the_hidden_site_of_every_layer():
    extra = set(plan(Placement(dp.naive()), GEOMETRY)) - set(
        plan(Placement(dp.zaremba()), GEOMETRY)
    )
    assert extra == {Slot(Site.HIDDEN, layer, way) for layer in (0, 1) for way in (0, 1)}


def test_a_rule_per_sequence_plans_one_step():
    policy = dp.Policy(input=dp.drop(0.5, per="sequence"), output=dp.drop(0.5))
    shapes = {slot.site: mask.shape for slot, mask in plan(Placement(policy), GEOMETRY).items()}
    assert shapes == {Site.INPUT: (1, 5, 3), Site.OUTPUT: (7, 5, 4)}


def test_every_mask_has_the_rule_of_its_own_site():
    policy = dp.Policy(
        input=dp.drop(0.1), between=dp.drop(0.2), output=dp.drop(0.3), hidden=dp.drop(0.4)
    )
    for slot, mask in plan(Placement(policy), GEOMETRY).items():
        assert mask.rule is policy[slot.site]


def test_rate_zero_needs_no_mask():
    assert plan(Placement(dp.zaremba(0.0)), GEOMETRY) == {}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_stack_of_objects_has_l_plus_one_masks_whatever_its_split(parts):
    total, number, slots = sum(parts), 0, []
    for index, layers in enumerate(parts):
        placement = Placement(dp.zaremba(), number, index == 0, index == len(parts) - 1)
        slots += plan(placement, Geometry(4, 4, layers=layers))
        assert masked_connections(placement, layers) == len(plan(placement, Geometry(4, 4, layers)))
        number += layers
    assert slots == list(plan(Placement(dp.zaremba()), Geometry(4, 4, layers=total)))
    assert len(slots) == total + 1


def test_a_site_that_a_layer_cannot_have_is_refused():
    with pytest.raises(dp.PolicyError, match=r"LSTM has no site 'candidate'.*It has: input"):
        check_sites(dp.Policy(candidate=dp.drop(0.5), input=dp.drop(0.1)), "LSTM")
