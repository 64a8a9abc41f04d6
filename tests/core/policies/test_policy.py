"""Policies: validation, composition, the JSON round trip, the catalogue."""

import contextlib
import copy
import inspect
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.policies import catalog
from dropout_policies.testing import strategies

by_site = {site.value: strategies.rules(site, layers=2) for site in dp.Site}
policies = st.builds(
    lambda rules, name, citation: dp.Policy(name=name, citation=citation, **rules),
    st.fixed_dictionaries({}, optional=by_site),
    st.text(),
    st.text(),
)
"""Any policy there can be."""


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, math.nan, math.inf, "0.5", None, True, [1.5]])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(dp.PolicyError, match=r"\[0, 1\)"):
        dp.drop(rate)


@pytest.mark.parametrize("rate", [0, 0.0, 0.5, 1 - 1e-12])
def test_a_rate_inside_is_kept_as_it_is(rate):
    assert dp.drop(rate).rate == rate


@pytest.mark.parametrize("rate", [[], [[0.5]], [0.5, "a"], [0.1, True]])
def test_rates_that_are_no_list_of_numbers_are_refused(rate):
    with pytest.raises(dp.PolicyError, match="rate"):
        dp.drop(rate)


@pytest.mark.parametrize(
    ("site", "rule", "message"),
    [
        ("input", dp.Rule(0.5, kind="zoneout"), "takes rules of kind 'drop'"),
        ("hidden_update", dp.drop(0.5), "takes rules of kind 'zoneout'"),
        ("input", dp.drop(0.5, per="call"), "lasts per step or sequence"),
        ("recurrent_weight", dp.drop(0.5), "lasts per call"),
        ("embedding", dp.drop(0.5), "lasts per sequence or call"),
        ("output", dp.drop(0.5, gates="untied"), "one mask for all"),
        ("embedding", dp.drop([0.5, 0.1], per="call"), "no layers"),
    ],
)
def test_a_rule_that_cannot_stand_at_its_site_is_refused(site, rule, message):
    with pytest.raises(dp.PolicyError, match=message):
        dp.Policy(**{site: rule})


@pytest.mark.parametrize(
    "words", [{"per": "epoch"}, {"kind": "blur"}, {"gates": "loose"}], ids=lambda w: next(iter(w))
)
def test_an_unknown_word_is_refused(words):
    ((name, word),) = words.items()
    with pytest.raises(dp.PolicyError, match=f"{name}={word!r}"):
        dp.Rule(0.5, **words)


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
        ("{", "not JSON"),
        ("{}", "not a saved policy"),
        ("[1]", "not a saved policy"),
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
            "kind must be 'drop' or 'zoneout'.*blur",
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


def test_the_other_published_policies_are_those_of_their_papers():
    """Site, rate, lifetime, kind, gates and scale of each, as the design's table has them."""

    def rows(policy):
        return {
            site.value: (rule.rate, rule.per, rule.kind, rule.gates, rule.scaled)
            for site, rule in policy.items()
        }

    def drop(rate, per, gates="tied", scaled=True):
        return rate, per, "drop", gates, scaled

    vertical = ("input", "between", "output")
    whole = dict.fromkeys(vertical, drop(0.5, "sequence"))
    assert rows(dp.variational()) == whole | {
        "embedding": drop(0.5, "sequence"),
        "hidden": drop(0.3, "sequence"),
    }
    assert rows(dp.variational(gates="untied"))["hidden"] == drop(0.3, "sequence", "untied")
    assert rows(dp.variational(gates="untied"))["input"] == drop(0.5, "sequence", "untied")
    assert rows(dp.variational(gates="untied"))["output"] == drop(0.5, "sequence")
    assert rows(dp.locked()) == dict.fromkeys(vertical, drop(0.4, "sequence"))
    assert rows(dp.semeniuta()) == {"candidate": drop(0.25, "step")}
    assert rows(dp.semeniuta(per="sequence")) == {"candidate": drop(0.25, "sequence")}
    assert rows(dp.rnndrop()) == {"cell": drop(0.5, "sequence", scaled=False)}
    assert rows(dp.zoneout()) == {
        "hidden_update": (0.025, "step", "zoneout", "tied", False),
        "cell_update": (0.25, "step", "zoneout", "tied", False),
    }
    assert rows(dp.weight_drop()) == {"recurrent_weight": drop(0.5, "call")}
    assert rows(dp.awd()) == {
        "embedding": drop(0.1, "call"),
        "input": drop(0.4, "sequence"),
        "between": drop(0.25, "sequence"),
        "output": drop(0.4, "sequence"),
        "recurrent_weight": drop(0.5, "call"),
    }


@pytest.mark.parametrize("name", dp.names())
def test_every_published_policy_says_where_it_comes_from(name):
    policy = dp.resolve(name)
    assert policy.citation or name == "none"
    meaned = {"rnndrop", "zoneout"}
    assert policy.evaluation == ("mean of the masks" if name in meaned else "identity")


def test_rates_are_given_for_all_sites_by_layer_or_by_site():
    assert dp.resolve("awd", 0.3) == dp.awd(0.3, 0.3, 0.3, 0.3, 0.3)
    named = dp.resolve("variational", {"input": 0.4, "hidden": [0.1, 0.2]})
    assert named[dp.Site.INPUT].rate == 0.4
    assert named[dp.Site.HIDDEN].rate == (0.1, 0.2)
    assert named[dp.Site.BETWEEN].rate == 0.5
    assert dp.resolve("zaremba", [0.2, 0.5])[dp.Site.OUTPUT].rate == (0.2, 0.5)
    with pytest.raises(dp.PolicyError, match="has no rule at site 'hidden'"):
        dp.resolve("zaremba", {"hidden": 0.1})
    with pytest.raises(dp.PolicyError, match="no site 'weight'"):
        dp.resolve("awd", {"weight": 0.1})


def test_a_registered_policy_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(catalog, "_CATALOG", dict(catalog._CATALOG))
    mine = dp.Policy(input=dp.drop(0.2), name="mine")
    assert dp.register(mine) is mine
    assert "mine" in dp.names()
    assert dp.resolve("mine", 0.4) == dp.Policy(input=dp.drop(0.4))
    assert dp.register(dp.Policy(input=dp.drop(0.2), name="mine")) is mine  # once more, the same
    with pytest.raises(dp.PolicyError, match="There is a policy 'mine' already"):
        dp.register(dp.Policy(input=dp.drop(0.3), name="mine"))
    with pytest.raises(dp.PolicyError, match="There is a policy 'zaremba' already"):
        dp.register(dp.Policy(input=dp.drop(0.3), name="zaremba"))
    with pytest.raises(dp.PolicyError, match="a name first"):
        dp.register(dp.Policy(input=dp.drop(0.3)))
    with pytest.raises(dp.PolicyError, match="takes a Policy"):
        dp.register("mine")


def test_zoneout_goes_on_top_of_zaremba():
    both = dp.zaremba(0.5) | dp.zoneout()
    assert set(both) == set(dp.zaremba()) | set(dp.zoneout())
    assert both.evaluation == "mean of the masks"
    with pytest.raises(dp.PolicyError, match=r"both set a rule for input.*hidden"):
        dp.naive() | dp.variational()


def test_the_first_format_can_still_be_read():
    old = {
        "version": 1,
        "name": "old",
        "citation": "",
        "rules": {"hidden": {"kind": "drop", "rate": 0.5, "per": "sequence"}},
    }
    read = dp.Policy.from_json(json.dumps(old))
    assert read == dp.Policy(hidden=dp.drop(0.5, per="sequence"))
    assert json.loads(read.to_json())["version"] == 3


@pytest.mark.parametrize("name", dp.names())
def test_every_name_resolves_to_the_policy_of_that_name(name):
    assert dp.resolve(name).name == name


def test_a_rate_goes_with_a_name_only():
    assert dp.resolve("zaremba", 0.65) == dp.zaremba(0.65)
    with pytest.raises(dp.PolicyError, match="has its rates already"):
        dp.resolve(dp.zaremba(0.5), 0.3)
    with pytest.raises(dp.PolicyError, match="has no rate"):
        dp.resolve("none", 0.3)


@pytest.mark.parametrize(("name", "near"), [("zarembe", "'zaremba'"), ("Naive", "'naive'")])
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    with pytest.raises(dp.PolicyError, match=f"Did you mean {near}"):
        dp.resolve(name)


@pytest.mark.parametrize("policy", [3, None, ["zaremba"]])
def test_what_is_neither_name_nor_policy_is_refused(policy):
    with pytest.raises(dp.PolicyError, match="must be a name or a Policy"):
        dp.resolve(policy)


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
    with pytest.raises(dp.PolicyError, match="This is not a saved policy"):
        dp.Policy.from_json(text)


def test_a_rule_says_what_is_out_of_the_ordinary():
    assert str(dp.drop(0.5)) == "drop 0.5 per step"
    odd = dp.drop([0.5, 0.25], per="sequence", gates="untied", scaled=False)
    assert str(odd) == "drop [0.5, 0.25] per sequence untied unscaled"
    assert str(dp.Rule(0.1, kind="zoneout")) == "zoneout 0.1 per step"
    assert repr(dp.zaremba(0.5) | dp.zoneout(0.5, 0.25)) == (
        "<policy zaremba|zoneout: input=drop 0.5 per step, between=drop 0.5 per step, "
        "output=drop 0.5 per step, hidden_update=zoneout 0.25 per step, "
        "cell_update=zoneout 0.5 per step>"
    )
    assert repr(dp.none()) == "<policy none: no masks>"


@pytest.mark.parametrize(
    ("rule", "kept", "dropped", "mean"),
    [
        (dp.drop(0.75), 4.0, 0.0, 1.0),
        (dp.drop(0.75, scaled=False), 1.0, 0.0, 0.25),
        (dp.Rule(0.75, kind="zoneout"), 0.0, 1.0, 0.75),
    ],
)
def test_what_a_mask_holds_and_its_mean(rule, kept, dropped, mean):
    assert rule.values(0.75) == (kept, dropped)
    assert (rule.value(True, 0.75), rule.value(False, 0.75)) == (kept, dropped)
    assert rule.mean(0.75) == mean
    assert rule.values(0.0) == ((0.0, 1.0) if rule.kind == "zoneout" else (1.0, 0.0))


def test_evaluation_is_the_identity_unless_a_rule_that_is_active_has_a_mean():
    assert dp.drop(0.5).same_in_evaluation
    assert not dp.drop(0.5, scaled=False).same_in_evaluation
    assert not dp.Rule(0.5, kind="zoneout").same_in_evaluation
    assert (dp.zaremba() | dp.rnndrop(0.0)).evaluation == "identity"
    assert (dp.zaremba(0.0) | dp.rnndrop()).evaluation == "mean of the masks"


def test_a_rule_of_some_layers_has_their_rates():
    rule = dp.drop([0.1, 0.2, 0.2])
    assert rule.of_layers(0, 2).rate == (0.1, 0.2)
    assert rule.of_layers(1, 2).rate == 0.2
    assert rule.of_layers(0, 1) == dp.drop(0.1)
    assert dp.drop(0.5).of_layers(7, 2) == dp.drop(0.5)
    assert dp.drop(0.5).of_layer(7) == 0.5
    with pytest.raises(
        dp.PolicyError, match=r"rates for 3 layers.*layer number 4. Received: rate="
    ):
        rule.of_layers(2, 2)


def test_a_drop_is_scaled_tied_and_per_step_if_nothing_is_said():
    assert dp.drop(0.5) == dp.Rule(0.5) == dp.Rule(0.5, "step", "drop", "tied", True)
    assert dp.Rule(0.5, kind="zoneout").scaled is False


@pytest.mark.parametrize("site", dp.Site)
def test_each_site_takes_the_rules_that_can_stand_there(site):
    """As the tables of sites and rules in the documentation have it."""
    taken = set()
    for kind in ("drop", "zoneout"):
        for per in ("step", "sequence", "call"):
            for gates in ("tied", "untied"):
                with contextlib.suppress(dp.PolicyError):
                    dp.Policy(**{site: dp.Rule(0.5, per, kind, gates)})
                    taken.add((kind, per, gates))
    lives = ["step", "sequence"]
    if site in ("recurrent_weight", "input_weight"):
        lives = ["call"]
    elif site == "embedding":
        lives = ["sequence", "call"]
    kind = "zoneout" if site in ("hidden_update", "cell_update") else "drop"
    gates = ["tied", "untied"] if site in ("input", "between", "hidden") else ["tied"]
    assert taken == {(kind, per, way) for per in lives for way in gates}


def test_the_second_format_can_still_be_read():
    rule = {"kind": "drop", "rate": 0.5, "per": "step", "gates": "tied", "scaled": True}
    old = {"version": 2, "name": "old", "citation": "", "rules": {"input": rule}}
    assert dp.Policy.from_dict(old) == dp.Policy(input=dp.drop(0.5))
    with pytest.raises(dp.PolicyError, match="not a saved rule: it has no 'shape'"):
        dp.Policy.from_dict({**old, "version": 3})


def test_a_policy_of_channels_has_them_where_values_have_any():
    assert dp.zaremba(0.5).with_shape("channel") == dp.Policy(
        **dict.fromkeys(("input", "between", "output"), dp.drop(0.5, shape="channel"))
    )
    awd = dp.awd().with_shape("channel")
    shapes = {site.value: rule.shape for site, rule in awd.items()}
    assert shapes == {
        **dict.fromkeys(("input", "between", "output"), "channel"),
        **dict.fromkeys(("embedding", "recurrent_weight"), "element"),
    }
    assert dp.Policy.from_json(awd.to_json()) == awd
    assert awd.with_shape("element") == dp.awd()
    assert awd.name == "awd"
    assert dp.locked(0.5).with_shape("channel").as_arguments() == (
        "policy='locked', rate=0.5, shape='channel'"
    )
    assert str(dp.drop(0.5, shape="channel")) == "drop 0.5 per step and channel"
    with pytest.raises(dp.PolicyError, match="shape must be 'element' or 'channel'"):
        dp.zaremba().with_shape("map")
    for site in ("embedding", "input_weight", "recurrent_weight"):
        rule = dp.Rule(0.5, per="call", shape="channel")
        with pytest.raises(dp.PolicyError, match=f"{site}' has no channels"):
            dp.Policy(**{site: rule})


def test_the_latest_format_has_every_field():
    data = dp.zaremba().to_dict()
    for field in ("gates", "scaled", "shape"):
        rules = {"input": {k: v for k, v in dp.drop(0.5).to_dict().items() if k != field}}
        with pytest.raises(dp.PolicyError, match=f"not a saved rule: it has no '{field}'"):
            dp.Policy.from_dict({**data, "rules": rules})
        read = dp.Policy.from_dict({**data, "version": 1, "rules": rules})
        assert read == dp.Policy(input=dp.drop(0.5))


def test_a_policy_is_equal_to_one_of_the_same_rules_alone():
    assert dp.zaremba() != dict(dp.zaremba())
    assert dp.zaremba() != dp.zaremba(0.4)
    assert dp.locked(0.5) != dp.zaremba(0.5)
    named = dp.Policy(name="other", citation="x", **{s.value: r for s, r in dp.zaremba().items()})
    assert named == dp.zaremba()
    assert hash(named) == hash(dp.zaremba())
    assert len(dp.zaremba()) == 3
    with pytest.raises(TypeError):
        dp.zaremba() | {}


def test_policies_that_join_have_both_names_and_citations():
    both = dp.zaremba() | dp.zoneout()
    assert both.name == "zaremba|zoneout"
    assert both.citation == f"{dp.zaremba().citation}; {dp.zoneout().citation}"
    assert (dp.none() | dp.zoneout()).citation == dp.zoneout().citation
    with pytest.raises(dp.PolicyError, match=r"^zaremba and naive both set a rule for input, betw"):
        dp.zaremba() | dp.naive()


def test_rates_keep_the_name_and_the_citation():
    for rate in (0.1, {"input": 0.1}):
        changed = dp.zaremba().with_rates(rate)
        assert (changed.name, changed.citation) == ("zaremba", dp.zaremba().citation)
    with pytest.raises(dp.PolicyError, match=r"\[0, 1\)"):
        dp.none().with_rates(2)


def test_the_three_nearest_names_are_told_and_all_the_names(monkeypatch):
    near = {f"droppy{n}": dp.none() for n in range(5)}
    monkeypatch.setattr(catalog, "_CATALOG", near)
    with pytest.raises(
        dp.PolicyError, match=r"Did you mean 'droppy\d' or 'droppy\d' or 'droppy\d'\?"
    ):
        dp.resolve("DROPPY")
    with pytest.raises(
        dp.PolicyError, match=r"'xyz'\. See dp.names\(\)\. The names are: droppy0, "
    ):
        dp.resolve("xyz")


def test_a_site_is_called_by_its_name_or_by_itself():
    for site in dp.Site:
        assert dp.Site.of(site) is dp.Site.of(site.value) is site


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.75])
def test_the_mean_of_a_mask_is_that_of_its_bits(rate):
    assert dp.drop(rate, scaled=False).mean(rate) == pytest.approx(1 - rate)
    assert dp.drop(rate).mean(rate) == pytest.approx(1)
    assert dp.Rule(rate, kind="zoneout").mean(rate) == pytest.approx(rate)


def test_a_mask_at_an_impossible_rate_has_no_values():
    """At 1 there would be nothing left to scale."""
    rule = dp.drop(0.5)
    assert rule.values(0.0) == (1.0, 0.0)
    assert rule.values(0.25) == (1.0 / 0.75, 0.0)
    for rate in (1.0, 1.5, -0.25, math.nan, math.inf):
        with pytest.raises(dp.PolicyError, match="rate"):
            rule.values(rate)


def test_words_beside_a_rate_are_named():
    kinds = {name: p.kind.name for name, p in inspect.signature(dp.drop).parameters.items()}
    assert kinds.pop("rate") == "POSITIONAL_OR_KEYWORD"
    assert set(kinds.values()) == {"KEYWORD_ONLY"}


def test_a_policys_name_is_no_bare_argument():
    with pytest.raises(TypeError):
        dp.Policy("mine", input=dp.drop(0.5))


def test_a_diagram_has_two_layers_and_four_steps_if_nothing_is_said():
    policy = dp.zaremba()
    assert str(policy.diagram()) == str(policy.diagram(layers=2, steps=4))
    assert policy._repr_html_() == policy.diagram(layers=2, steps=4).svg()


@pytest.mark.parametrize("name", dp.names())
def test_rates_of_a_published_policy_may_be_named_and_words_must_be(name):
    kinds = {n: p.kind.name for n, p in inspect.signature(getattr(dp, name)).parameters.items()}
    words = {"gates", "per"} & set(kinds)
    assert {kinds.pop(word) for word in words} <= {"KEYWORD_ONLY"}
    assert set(kinds.values()) <= {"POSITIONAL_OR_KEYWORD"}


def test_a_policy_stands_for_itself():
    mine = dp.Policy(input=dp.drop(0.2))
    assert catalog.resolve(mine) is mine
