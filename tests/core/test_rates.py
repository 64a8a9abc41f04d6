"""Rates that change with the number of the call."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies import keyed
from dropout_policies.plan import Geometry, Placement, plan
from dropout_policies.rates import rate_at


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
    policy = dp.catalog.resolve("awd", {"input": rise, "between": [0.1, rise]})
    assert policy.scheduled
    assert not dp.awd().scheduled
    assert dp.Policy.from_json(policy.to_json()) == policy
    assert policy[dp.Site.INPUT].active
    assert not dp.drop(dp.schedule({0: 0.0, 9: 0.0})).active


def test_each_call_is_drawn_at_its_own_rate():
    policy = dp.Policy(input=dp.drop(dp.schedule({0: 0.0, 1: 0.5, 2: 0.9})))
    wanted = plan(Placement(policy), Geometry(50, 4, batch=40, steps=30))
    shares = []
    for call in range(4):
        (mask,) = keyed.masks(wanted, 3, call).values()
        shares.append((mask > 0).mean())
        assert set(np.unique(mask)) <= {0.0, 1.0 / (1.0 - policy[dp.Site.INPUT].rate.at(call))}
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.1, 0.1], atol=0.01)
