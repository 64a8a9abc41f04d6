"""What was measured is compared with a policy, and the differences are told in words."""

from dataclasses import replace

import pytest

import dropout_policies as dp
from dropout_policies.auditing.comparison import find_differences
from dropout_policies.auditing.probing.findings import (
    SEVERAL_SCALES,
    UNKNOWN_NOISE,
    Finding,
    widened_interval,
)

MASKED = Finding(
    dp.Site.INPUT, 0, 0, "masked", 0.5, (0.49, 0.51), 1000, "step", gates="tied", scaled=True
)
WHOLE = Finding(dp.Site.HIDDEN, 0, 0, "whole", interval=(0.0, 0.01))


def differences(policy, *findings, rates=False):
    return [str(one) for one in find_differences(policy, findings, rates)]


def test_a_mask_as_the_policy_has_it_is_no_difference():
    assert differences(dp.zaremba(), MASKED, WHOLE, rates=True) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"verdict": "whole"}, "input is whole"),
        ({"per": "sequence"}, "input has a mask per sequence, not per step"),
        ({"per": "sequence", "shared": True}, "input has a mask per sequence, not per step"),
        ({"shared": True}, "input has one mask for all samples of a batch"),
        ({"per": None, "shared": True}, "input has one mask for all samples of a batch"),
        ({"alike": True}, "input has one mask for all units"),
        ({"gates": "untied"}, "input has untied masks for its gates, not tied masks"),
        ({"scaled": False}, "input is not scaled"),
        ({"scaled": False, "note": "odd"}, "input is not scaled"),
        ({"note": "odd"}, "input is otherwise: odd"),
        ({"frozen": True}, "input has the same mask at every call"),
        ({"verdict": "undecided", "note": SEVERAL_SCALES}, f"input is otherwise: {SEVERAL_SCALES}"),
    ],
)
def test_each_difference_has_its_words(change, text):
    assert differences(dp.zaremba(), replace(MASKED, **change)) == [text]


@pytest.mark.parametrize(
    "change",
    [
        {"per": None},
        {"gates": None},
        {"scaled": None},
        {"shared": False},
        {"alike": False},
        {"frozen": False},
        {"verdict": "undecided"},
        {"verdict": "undecided", "note": "odd"},
    ],
)
def test_what_is_unknown_is_not_compared(change):
    assert differences(dp.zaremba(), replace(MASKED, **change)) == []


def test_several_differences_are_all_listed():
    found = replace(MASKED, per="sequence", alike=True, gates="untied", scaled=False, frozen=True)
    assert differences(dp.zaremba(), found) == [
        "input has a mask per sequence, not per step",
        "input has one mask for all units",
        "input has untied masks for its gates, not tied masks",
        "input is not scaled",
        "input has the same mask at every call",
    ]


def test_a_mask_where_the_policy_has_none_is_described():
    found = replace(MASKED, site=dp.Site.HIDDEN, layer=1)
    text = "hidden of layer 2 is masked (drop 0.5 [0.49, 0.51], per step)"
    assert differences(dp.zaremba(), found) == [text]
    assert differences(dp.naive(0.0), found) == [text]
    assert differences(dp.none(), WHOLE) == []


def test_the_place_is_named():
    def place(**where):
        return differences(dp.none(), replace(MASKED, **where))[0].partition(" is masked")[0]

    assert place(site=dp.Site.BETWEEN, layer=1) == "between of layer 2"
    assert place(site=dp.Site.HIDDEN) == "hidden of layer 1"
    assert place(site=dp.Site.HIDDEN, direction=1) == "hidden of layer 1 backward"
    assert place(site=dp.Site.INPUT, direction=1) == "input"
    assert place(site=dp.Site.EMBEDDING, layer=-1) == "embedding"


def test_one_mask_for_all_samples_is_what_a_rule_per_call_has():
    found = replace(MASKED, site=dp.Site.RECURRENT_WEIGHT, per="call", shared=True)
    assert differences(dp.weight_drop(), found) == []
    found = replace(found, site=dp.Site.EMBEDDING, layer=-1)
    assert differences(dp.awd(), found) == []


def test_zoneout_is_never_scaled_and_other_drops_may_not_be():
    found = replace(MASKED, site=dp.Site.CELL_UPDATE, scaled=True)
    assert differences(dp.zoneout(), found) == []
    found = replace(MASKED, site=dp.Site.CELL, per="sequence")
    assert differences(dp.rnndrop(), found) == ["cell of layer 1 is scaled"]
    assert differences(dp.rnndrop(), replace(found, scaled=False)) == []


def test_a_rate_outside_the_widened_interval_is_a_difference_if_rates_are_compared():
    low, high = widened_interval(MASKED)
    assert low < 0.49
    assert high > 0.51
    for rate, differs in ((low, False), (high, False), (low - 1e-6, True), (high + 1e-6, True)):
        policy = dp.zaremba(rate)
        assert differences(policy, MASKED) == []
        expected = [f"input has rate 0.5, not {rate:g}"] * differs
        assert differences(policy, MASKED, rates=True) == expected
    assert differences(dp.zaremba(dp.ramp(0.0, 0.1, 10)), MASKED, rates=True) == []


def test_rates_by_layer_are_compared_layer_by_layer():
    policy = dp.Policy(hidden=dp.drop([0.5, 0.1]), embedding=dp.drop(0.5, per="sequence"))
    found = [replace(MASKED, site=dp.Site.HIDDEN, layer=layer) for layer in (0, 1)]
    text = "hidden of layer 2 has rate 0.5, not 0.1"
    assert differences(policy, *found, rates=True) == [text]
    words = replace(MASKED, site=dp.Site.EMBEDDING, layer=-1, per="sequence")
    assert differences(policy, words, rates=True) == []


def test_a_difference_has_its_finding():
    (difference,) = find_differences(dp.none(), [WHOLE, MASKED])
    assert difference.finding is MASKED


def test_a_rate_is_not_compared_unless_that_is_asked_for():
    assert find_differences(dp.zaremba(0.9), [MASKED]) == []
    assert len(find_differences(dp.zaremba(0.9), [MASKED], compare_rates=True)) == 1


@pytest.mark.parametrize("given", ["step", "sequence"])
def test_another_lifetime_is_told_whichever_it_is(given):
    for found in {"step", "sequence", "call"} - {given}:
        policy = dp.Policy(input=dp.drop(0.5, per=given))
        text = f"input has a mask per {found}, not per {given}"
        assert differences(policy, replace(MASKED, per=found)) == [text]


def test_masks_for_all_gates_are_told_where_each_is_to_have_its_own():
    policy = dp.Policy(input=dp.drop(0.5, gates="untied"))
    assert differences(policy, MASKED) == ["input has tied masks for its gates, not untied masks"]


@pytest.mark.parametrize("note", [*sorted(UNKNOWN_NOISE - {SEVERAL_SCALES}), "a", "z"])
def test_of_what_is_undecided_only_what_no_policy_does_is_told(note):
    assert differences(dp.zaremba(), replace(MASKED, verdict="undecided", note=note)) == []
