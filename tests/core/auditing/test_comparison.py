"""What was measured, held against a policy: what is told, in words."""

from dataclasses import replace

import pytest

import dropout_policies as dp
from dropout_policies.auditing.comparison import unlike
from dropout_policies.auditing.probing.evidence import MORE, UNKNOWN, Finding
from dropout_policies.auditing.probing.resting import wide

MASKED = Finding(
    dp.Site.INPUT, 0, 0, "masked", 0.5, (0.49, 0.51), 1000, "step", gates="tied", scaled=True
)
WHOLE = Finding(dp.Site.HIDDEN, 0, 0, "whole", interval=(0.0, 0.01))


def texts(policy, *findings, rates=False):
    return [str(difference) for difference in unlike(policy, findings, rates)]


def test_what_is_as_under_the_policy_is_not_told():
    assert texts(dp.zaremba(), MASKED, WHOLE, rates=True) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"verdict": "whole"}, "input is whole"),
        ({"per": "sequence"}, "input has a mask per sequence, not per step"),
        ({"per": "sequence", "shared": True}, "input has a mask per sequence, not per step"),
        ({"shared": True}, "input has one mask for all samples of a batch"),
        ({"per": None, "shared": True}, "input has one mask for all samples of a batch"),
        ({"alike": True}, "input has one mask for all units"),
        ({"gates": "untied"}, "input has untied masks for its gates, not tied ones"),
        ({"scaled": False}, "input is not scaled"),
        ({"scaled": False, "note": "odd"}, "input is not scaled"),
        ({"note": "odd"}, "input is otherwise: odd"),
        ({"frozen": True}, "input has the same mask at every call"),
        ({"verdict": "undecided", "note": MORE}, f"input is otherwise: {MORE}"),
    ],
)
def test_what_is_otherwise_is_told(change, text):
    assert texts(dp.zaremba(), replace(MASKED, **change)) == [text]


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
def test_what_cannot_be_told_is_not_compared(change):
    assert texts(dp.zaremba(), replace(MASKED, **change)) == []


def test_several_differences_are_all_told():
    found = replace(MASKED, per="sequence", alike=True, gates="untied", scaled=False, frozen=True)
    assert texts(dp.zaremba(), found) == [
        "input has a mask per sequence, not per step",
        "input has one mask for all units",
        "input has untied masks for its gates, not tied ones",
        "input is not scaled",
        "input has the same mask at every call",
    ]


def test_a_mask_where_the_policy_has_none_is_told_with_all_that_is_known_of_it():
    found = replace(MASKED, site=dp.Site.HIDDEN, layer=1)
    text = "hidden of layer 2 is masked (drop 0.5 [0.49, 0.51], per step)"
    assert texts(dp.zaremba(), found) == [text]
    assert texts(dp.naive(0.0), found) == [text]
    assert texts(dp.none(), WHOLE) == []


def test_the_place_is_named():
    def place(**where):
        return texts(dp.none(), replace(MASKED, **where))[0].partition(" is masked")[0]

    assert place(site=dp.Site.BETWEEN, layer=1) == "between of layer 2"
    assert place(site=dp.Site.HIDDEN) == "hidden of layer 1"
    assert place(site=dp.Site.HIDDEN, direction=1) == "hidden of layer 1 backward"
    assert place(site=dp.Site.INPUT, direction=1) == "input"
    assert place(site=dp.Site.EMBEDDING, layer=-1) == "embedding"


def test_one_mask_for_all_samples_is_what_a_rule_per_call_has():
    found = replace(MASKED, site=dp.Site.RECURRENT_WEIGHT, per="call", shared=True)
    assert texts(dp.weight_drop(), found) == []
    found = replace(found, site=dp.Site.EMBEDDING, layer=-1)
    assert texts(dp.awd(), found) == []


def test_zoneout_is_never_scaled_and_other_drops_may_not_be():
    found = replace(MASKED, site=dp.Site.CELL_UPDATE, scaled=True)
    assert texts(dp.zoneout(), found) == []
    found = replace(MASKED, site=dp.Site.CELL, per="sequence")
    assert texts(dp.rnndrop(), found) == ["cell of layer 1 is scaled"]
    assert texts(dp.rnndrop(), replace(found, scaled=False)) == []


def test_a_rate_counts_where_it_is_asked_for_and_lies_outside_what_chance_explains():
    low, high = widened_interval(MASKED)
    assert low < 0.49
    assert high > 0.51
    for rate, there in ((low, False), (high, False), (low - 1e-6, True), (high + 1e-6, True)):
        policy = dp.zaremba(rate)
        assert texts(policy, MASKED) == []
        expected = [f"input has rate 0.5, not {rate:g}"] * there
        assert texts(policy, MASKED, rates=True) == expected
    assert texts(dp.zaremba(dp.ramp(0.0, 0.1, 10)), MASKED, rates=True) == []


def test_rates_by_layer_are_compared_layer_by_layer():
    policy = dp.Policy(hidden=dp.drop([0.5, 0.1]), embedding=dp.drop(0.5, per="sequence"))
    found = [replace(MASKED, site=dp.Site.HIDDEN, layer=layer) for layer in (0, 1)]
    text = "hidden of layer 2 has rate 0.5, not 0.1"
    assert texts(policy, *found, rates=True) == [text]
    words = replace(MASKED, site=dp.Site.EMBEDDING, layer=-1, per="sequence")
    assert texts(policy, words, rates=True) == []


def test_a_difference_has_its_finding():
    (difference,) = unlike(dp.none(), [WHOLE, MASKED])
    assert difference.finding is MASKED


def test_a_rate_is_not_compared_unless_that_is_asked_for():
    assert unlike(dp.zaremba(0.9), [MASKED]) == []
    assert len(unlike(dp.zaremba(0.9), [MASKED], rates=True)) == 1


@pytest.mark.parametrize("given", ["step", "sequence"])
def test_another_lifetime_is_told_whichever_it_is(given):
    for found in {"step", "sequence", "call"} - {given}:
        policy = dp.Policy(input=dp.drop(0.5, per=given))
        text = f"input has a mask per {found}, not per {given}"
        assert texts(policy, replace(MASKED, per=found)) == [text]


def test_masks_for_all_gates_are_told_where_each_is_to_have_its_own():
    policy = dp.Policy(input=dp.drop(0.5, gates="untied"))
    assert texts(policy, MASKED) == ["input has tied masks for its gates, not untied ones"]


@pytest.mark.parametrize("note", [*sorted(UNKNOWN - {MORE}), "a", "z"])
def test_of_what_is_undecided_only_what_no_policy_does_is_told(note):
    assert texts(dp.zaremba(), replace(MASKED, verdict="undecided", note=note)) == []
