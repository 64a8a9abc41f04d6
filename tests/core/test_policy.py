"""Policies: validation, composition, the JSON round trip, the catalogue."""

import copy
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.policy import Rule

rates = st.floats(0.0, 1.0, exclude_max=True)
rules = st.builds(Rule, rates, st.sampled_from(["step", "sequence"]))
policies = st.dictionaries(st.sampled_from([site.value for site in dp.Site]), rules).flatmap(
    lambda some: st.builds(
        lambda name, citation: dp.Policy(name=name, citation=citation, **some), st.text(), st.text()
    )
)


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, math.nan, math.inf, "0.5", None, True, [0.5]])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(dp.PolicyError, match=r"\[0, 1\)"):
        dp.drop(rate)


@pytest.mark.parametrize("rate", [0, 0.0, 0.5, 1 - 1e-12])
def test_a_rate_inside_is_kept_as_it_is(rate):
    assert dp.drop(rate).rate == rate


def test_an_unknown_lifetime_is_refused():
    with pytest.raises(dp.PolicyError, match="per='epoch'"):
        dp.drop(0.5, per="epoch")


def test_an_unknown_site_is_refused_with_the_sites_there_are():
    with pytest.raises(dp.PolicyError, match=r"no site 'hiden'.*hidden"):
        dp.Policy(hiden=dp.drop(0.5))


def test_a_bare_number_is_refused_with_what_to_write():
    with pytest.raises(dp.PolicyError, match=r"input=dp.drop\(0.5\)"):
        dp.Policy(input=0.5)


@given(policies)
def test_json_gives_back_the_same_policy(policy):
    again = dp.Policy.from_json(policy.to_json())
    assert again == policy
    assert (again.name, again.citation) == (policy.name, policy.citation)
    assert again.to_json() == policy.to_json()


@given(policies)
def test_copies_are_equal(policy):
    for again in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert again == policy
        assert hash(again) == hash(policy)
        assert again.name == policy.name


@given(policies, policies)
def test_policies_join_unless_they_clash(a, b):
    clash = set(a) & set(b)
    if clash:
        with pytest.raises(dp.PolicyError, match="both set a rule for"):
            a | b
    else:
        assert dict(a | b) == {**a, **b}
        assert (a | b) == (b | a)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("{}", "no saved policy"),
        ("[1]", "no saved policy"),
        (json.dumps({"version": 99, "rules": {}}), "format version 99"),
        (
            json.dumps(
                {
                    "version": 1,
                    "name": "",
                    "citation": "",
                    "rules": {"input": {"kind": "blur", "rate": 0.5, "per": "step"}},
                }
            ),
            "unknown kind of rule 'blur'",
        ),
        (
            json.dumps(
                {
                    "version": 1,
                    "name": "",
                    "citation": "",
                    "rules": {"input": {"kind": "drop", "rate": 1.5, "per": "step"}},
                }
            ),
            "must lie in",
        ),
    ],
)
def test_json_that_is_no_policy_is_refused(text, message):
    with pytest.raises(dp.PolicyError, match=message):
        dp.Policy.from_json(text)


def test_a_policy_cannot_be_changed():
    policy = dp.zaremba()
    with pytest.raises(TypeError):
        policy[dp.Site.INPUT] = dp.drop(0.1)
    with pytest.raises(AttributeError):
        policy.name = "other"
    with pytest.raises(AttributeError):
        policy[dp.Site.INPUT].rate = 0.1


def test_the_catalogue_places_what_the_papers_place():
    vertical = {"input", "between", "output"}
    assert set(dp.none()) == set()
    assert {site.value for site in dp.zaremba()} == vertical
    assert {site.value for site in dp.naive()} == vertical | {"hidden"}
    for policy in (dp.zaremba(0.25), dp.naive(0.25)):
        assert all(rule == dp.drop(0.25, per="step") for rule in policy.values())
        assert "1409.2329" in policy.citation
    assert not dp.none().active
    assert not dp.zaremba(0.0).active
    assert dp.zaremba(0.1).active


@pytest.mark.parametrize("name", dp.names())
def test_every_name_resolves_to_the_policy_of_that_name(name):
    assert dp.catalog.resolve(name).name == name


def test_a_rate_goes_with_a_name_only():
    assert dp.catalog.resolve("zaremba", 0.65) == dp.zaremba(0.65)
    with pytest.raises(dp.PolicyError, match="has its rates already"):
        dp.catalog.resolve(dp.zaremba(0.5), 0.3)
    with pytest.raises(dp.PolicyError, match="has no rate"):
        dp.catalog.resolve("none", 0.3)


@pytest.mark.parametrize(("name", "near"), [("zarembe", "'zaremba'"), ("Naive", "'naive'")])
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    with pytest.raises(dp.PolicyError, match=f"Did you mean {near}"):
        dp.catalog.resolve(name)


@pytest.mark.parametrize("policy", [3, None, ["zaremba"]])
def test_what_is_neither_name_nor_policy_is_refused(policy):
    with pytest.raises(dp.PolicyError, match="must be a name or a Policy"):
        dp.catalog.resolve(policy)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "rules": "abc", "name": "", "citation": ""}',
        '{"version": 1, "rules": {}, "name": 3, "citation": ""}',
        '{"version": 1, "rules": {}, "name": "", "citation": null}',
        '{"version": 1, "rules": {"input": 3}, "name": "", "citation": ""}',
        "[1]",
    ],
)
def test_json_of_something_else_is_refused(text):
    with pytest.raises(dp.PolicyError, match="This is no saved policy"):
        dp.Policy.from_json(text)
