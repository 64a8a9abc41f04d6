"""Rates that change with the number of the call."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from dropout_policies.policies.rates import Schedule, rate_at


def test_a_schedule_holds_each_rate_from_its_call_on():
    found = dp.schedule({0: 0.1, 3: 0.5, 10: 0.2})
    assert [rate_at(found, call) for call in (0, 2, 3, 9, 10, 10**6)] == [
        0.1,
        0.1,
        0.5,
        0.5,
        0.2,
        0.2,
    ]
    assert found.highest == 0.5


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 500), st.integers(1, 200))
def test_a_ramp_goes_from_start_to_end_in_equal_steps(start, end, calls, levels):
    found = dp.ramp(start, end, calls, levels=levels)
    assert found.at(0) == start
    assert found.at(calls) == end
    assert len(found.points) == min(levels, calls) + 1
    line = [start + (end - start) * call / calls for call in range(calls)]
    far = np.abs(np.array([found.at(call) for call in range(calls)]) - line)
    assert far.max() <= abs(end - start) / min(levels, calls) + 1e-12


@pytest.mark.parametrize(
    "points", [{}, {1: 0.5}, {0: 0.5, -1: 0.1}, {0.0: 0.5}, {False: 0.5}, {0: 0.1, 2**31: 0.5}]
)
def test_a_schedule_counts_calls_from_zero(points):
    with pytest.raises(dp.PolicyError, match="ascending integers"):
        dp.schedule(points)


def test_a_schedules_rates_are_rates():
    with pytest.raises(dp.PolicyError, match=r"rate from call 5.*\[0, 1\)"):
        dp.schedule({0: 0.1, 5: 1.0})
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(dp.PolicyError, match="calls must be an integer"):
            dp.ramp(0.0, 0.5, wrong)
    with pytest.raises(dp.PolicyError, match="end"):
        dp.ramp(0.0, 1.5, 10)


def test_a_schedule_stands_wherever_a_rate_does():
    rise = dp.ramp(0.0, 0.5, 10)
    policy = dp.resolve("awd", {"input": rise, "between": [0.1, rise]})
    assert policy.scheduled
    assert not dp.awd().scheduled
    assert dp.Policy.from_json(policy.to_json()) == policy
    assert policy[dp.Site.INPUT].active
    assert not dp.drop(dp.schedule({0: 0.0, 9: 0.0})).active


def test_each_call_is_drawn_at_its_own_rate():
    policy = dp.Policy(input=dp.drop(dp.schedule({0: 0.0, 1: 0.5, 2: 0.9})))
    wanted = plan_masks(Placement(policy), Geometry(50, 4, batch=40, steps=30))
    shares = []
    for call in range(4):
        (mask,) = keyed.masks(wanted, 3, call).values()
        shares.append((mask > 0).mean())
        assert set(np.unique(mask)) <= {0.0, 1.0 / (1.0 - policy[dp.Site.INPUT].rate.at(call))}
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.1, 0.1], atol=0.01)


def test_a_schedule_says_where_it_goes_and_until_when():
    assert str(dp.schedule({0: 0.1, 5: 0.9, 10: 0.25})) == "0.1 to 0.25 by call 10"
    assert (
        str(dp.drop([0.5, dp.schedule({0: 0.0, 3: 0.5})]))
        == "drop [0.5, 0 to 0.5 by call 3] per step"
    )
    assert dp.drop(dp.schedule({0: 0.0, 3: 0.5})).active
    assert dp.drop([0.0, 0.5]).active
    assert not dp.drop([0.0, 0.0]).active


def test_a_ramp_has_at_most_one_step_a_call_and_a_hundred_if_nothing_is_said():
    assert dp.ramp(0.0, 0.5, 4).points == ((0, 0.0), (1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5))
    assert dp.ramp(0.5, 0.25, 1).points == ((0, 0.5), (1, 0.25))
    assert dp.ramp(0.0, 0.5, 10, levels=1).points == ((0, 0.0), (10, 0.5))
    assert dp.ramp(0.0, 0.5, 7, levels=2).points == ((0, 0.0), (3, 0.25), (7, 0.5))
    assert len(dp.ramp(0.0, 0.5, 1000).points) == 101


def test_a_policy_with_a_schedule_in_one_layer_is_scheduled():
    rise = dp.ramp(0.0, 0.5, 10)
    assert dp.zaremba([0.1, rise]).scheduled
    assert dp.zaremba(rise).scheduled
    assert not dp.zaremba([0.1, 0.2]).scheduled
    assert not dp.none().scheduled


def test_there_may_be_a_rate_for_every_layer_that_has_a_number():
    assert len(dp.drop([0.5] * 2**16).rate) == 2**16
    with pytest.raises(dp.PolicyError, match="one number for each layer"):
        dp.drop([0.5] * (2**16 + 1))


def test_a_rate_of_a_layer_that_is_wrong_is_named_by_its_number():
    with pytest.raises(dp.PolicyError, match=r"^rate of layer 2 .* Received: 1\.5; write: 0\.5"):
        dp.drop([0.5, 1.5])
    with pytest.raises(dp.PolicyError, match=r"^start "):
        dp.ramp(1.0, 0.5, 10)
    with pytest.raises(dp.PolicyError, match="integer of at least 0"):
        dp.schedule({0: 0.5}).at(-1)


@pytest.mark.parametrize("made", [dp.schedule({0: 0.1, 5: 0.5}), dp.drop(0.5)])
def test_schedules_and_rules_never_change(made):
    field = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, 3)
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize(
    "calls", [[0, 1, 1, 2], [0, 2, 1], [0, None, 2], [0, 2**31 + 1], [0, 1, 1]]
)
def test_a_schedules_calls_are_integers_that_ascend(calls):
    with pytest.raises(dp.PolicyError, match="ascending integers"):
        Schedule(tuple((call, 0.5) for call in calls))


class BrokenSequence(Sequence):
    """As long as a list, but its items cannot be read."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise RuntimeError("broken")


def test_rates_in_a_sequence_that_cannot_be_read_are_refused():
    with pytest.raises(dp.PolicyError, match="a list with one number for each layer"):
        dp.drop(BrokenSequence())
