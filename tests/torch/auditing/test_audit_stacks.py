"""Masks at several sites of several layers at once: the audit says nothing false of them."""

import pytest

import dropout_policies as dp
from tests.support.stacks import Case, drawn, untrue

CASES = {
    "a held mask on what weights are dropped of": Case(
        "rnn",
        8,
        {0: {"held_x": 0.5, "held_h": 0.2, "W": 0.5}, 2: {"W": 0.3, "state": 0.1, "x": 0.3}},
        seed=25,
        layers=3,
    ),
    "weights behind an h that is dropped": Case(
        "gru",
        8,
        {0: {"candidate": 0.5, "h": 0.3, "U": 0.3}, 1: {"state": 0.5, "U": 0.1, "held_h": 0.1}},
        seed=42,
        layers=2,
    ),
    "a state's mask beside weights' and the output's": Case(
        "rnn", 6, {0: {"state": 0.1, "held_x": 0.5, "U": 0.3}}, 0.3, 10
    ),
    "a state, an h and an output that are dropped": Case(
        "rnn", 8, {0: {"state": 0.1, "h": 0.2}}, 0.3, 4
    ),
    "zoneout that shows at some steps more than at others": Case(
        "gru", 12, {0: {"candidate": 0.1, "old_h": 0.2, "U": 0.5}}, seed=39
    ),
    "scales of sites that are undecided": Case(
        "rnn",
        6,
        {0: {"state": 0.3, "h": 0.1, "W": 0.2}, 1: {"x": 0.3, "U": 0.1}},
        layers=2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stack_gets_no_false_finding(name):
    case = CASES[name]
    audit = dp.audit(case.module())
    assert untrue(case, audit) == [], str(audit)
    assert any(found.verdict == "masked" for found in audit.findings)


@pytest.mark.parametrize("seed", [1, 6])
def test_a_doubtful_state_is_undecided(seed):
    case = CASES["a state, an h and an output that are dropped"]._replace(seed=seed)
    audit = dp.audit(case.module())
    assert untrue(case, audit) == [], str(audit)
    assert audit.at("state").verdict == "undecided"


def test_masks_on_the_state_and_on_the_output_are_separated():
    case = CASES["a state's mask beside weights' and the output's"]
    audit = dp.audit(case.module())
    masked = {found.site.value for found in audit.findings if found.verdict == "masked"}
    assert masked == {"input", "output", "state", "recurrent_weight"}, str(audit)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_masks_before_an_activation_are_at_no_site(kind):
    audit = dp.audit(Case(kind, 8, {0: {"activation": 0.5}}).module())
    assert {found.verdict for found in audit.findings} == {"undecided"}, str(audit)
    assert audit.at("state").text() == "undecided: no site explains what is seen of the state"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_stacks_get_no_false_finding(seed):
    case = drawn(seed)
    audit = dp.audit(case.module())
    assert untrue(case, audit) == [], (case, str(audit))
