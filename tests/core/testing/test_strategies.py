"""The strategies that users draw policies, geometries and masks from."""

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from dropout_policies.policies import cell_types
from dropout_policies.policies.rates import Schedule, highest_rate
from dropout_policies.testing import strategies

KINDS = [cell_types.LSTM, cell_types.GRU, cell_types.RNN, cell_types.CUSTOM]


@given(st.data(), st.sampled_from(KINDS), st.integers(1, 3))
def test_a_policy_runs_on_the_layer_it_was_drawn_for(data, cell, layers):
    policy = data.draw(strategies.policies(cell, layers))
    assert set(policy) <= cell.sites | {dp.Site.EMBEDDING}
    for rule in policy.values():
        assert highest_rate(rule.rate) < 1.0
        assert not isinstance(rule.rate, tuple) or len(rule.rate) == layers
        assert cell.gates or rule.gates == "tied"


@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: cell.name)
def test_every_policy_that_a_layer_can_have_is_drawn(cell):
    there = [name for name in dp.names() if strategies.published(name, cell) is not None]
    assert ("weight_drop" in there) == (cell is not cell_types.CUSTOM)
    for name in [*there, "mixed"]:
        find(strategies.policies(cell), lambda policy, name=name: policy.name == name)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda rule: isinstance(rule.rate, Schedule),
        lambda rule: isinstance(rule.rate, tuple),
        lambda rule: rule.gates == "untied",
        lambda rule: rule.per == "sequence",
        lambda rule: not rule.scaled,
    ],
)
def test_every_kind_of_rule_is_drawn(wanted):
    find(strategies.rules(dp.Site.HIDDEN, layers=2), wanted)


@given(st.data(), st.sampled_from(KINDS))
def test_masks_are_those_of_the_plan(data, cell):
    both = cell is not cell_types.CUSTOM
    geometry = data.draw(
        strategies.geometries(cell, [(0,), (0, 1)] if both else [(0,)], cell is cell_types.LSTM)
    )
    policy = data.draw(strategies.policies(cell, geometry.layers))
    masks = data.draw(strategies.masks(policy, geometry))
    wanted = plan_masks(Placement(policy), geometry)
    assert {slot: mask.shape for slot, mask in masks.items()} == {
        slot: mask.shape for slot, mask in wanted.items()
    }
    for mask in masks.values():
        assert (mask >= 0.0).all()
        assert len(np.unique(mask)) <= 2


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_masks_of_either_kind_are_drawn(value):
    geometry = Geometry(2, 1)
    slot = dp.Slot(dp.Site.INPUT, 0, 0)
    find(strategies.masks(dp.zaremba(0.5), geometry), lambda masks: (masks[slot] == value).all())
