"""Which policy goes on which layer: names, patterns, `only=`, `skip=`, and rates that are used."""

import numpy as np
import pytest

import dropout_policies as dp
from dropout_policies.placement.plans import Placement
from dropout_policies.placement.selection import ApplyRequest, Choice, check_rates_are_used
from dropout_policies.placement.stacks import RecurrentLayer
from dropout_policies.policies import cell_types

KINDS = {"LSTM": cell_types.LSTM, "GRU": cell_types.GRU, "RNN": cell_types.RNN}


def layer(name, kind="LSTM", aliases=()):
    return RecurrentLayer(name, object(), kind, aliases=aliases)


LAYERS = [
    layer("encoder.low"),
    layer("encoder.high", "GRU"),
    layer("decoder.rnn", aliases=("tied.rnn",)),
]
WORDS = [RecurrentLayer("words", object(), "Embedding")]


def select(policy="zaremba", embeddings=(), layers=LAYERS, **more):
    choices = policy if isinstance(policy, dict) else {"*": policy}
    chosen = {pattern: Choice.of(each) for pattern, each in choices.items()}
    request = ApplyRequest(chosen, **more)
    return request.select(layers, embeddings, lambda item: KINDS[item.kind].sites)


def names(selection):
    return [item.name for item in selection.layers]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, ["encoder.low", "encoder.high", "decoder.rnn"]),
        ("encoder.*", ["encoder.low", "encoder.high"]),
        ("encoder", ["encoder.low", "encoder.high"]),
        ("decoder.rnn", ["decoder.rnn"]),
        ("tied.*", ["decoder.rnn"]),
        (["encoder.low", "decoder.*"], ["encoder.low", "decoder.rnn"]),
        (("*.high",), ["encoder.high"]),
        (lambda name, _: name.endswith("rnn"), ["decoder.rnn"]),
        (lambda _, layer: layer is LAYERS[1].layer, ["encoder.high"]),
    ],
)
def test_layers_are_chosen_by_name_pattern_list_and_function(only, expected):
    selection = select(only=only)
    assert names(selection) == expected
    skipped = {item.name for item in LAYERS} - set(expected)
    assert {left.name for left in selection.skipped} == skipped
    assert all(left.why == "not among only=" for left in selection.skipped)
    if only is not None:
        assert set(names(select(skip=only))) == skipped


def test_only_and_skip_together_leave_what_both_allow():
    assert names(select(only="encoder.*", skip="*.low")) == ["encoder.high"]


@pytest.mark.parametrize("argument", ["only", "skip"])
def test_a_name_that_nothing_matches_is_refused_with_the_nearest(argument):
    with pytest.raises(
        dp.PolicyError, match=rf"{argument} names 'encodr\.\*'.*Did you mean 'encoder\."
    ):
        select(**{argument: "encodr.*"})
    with pytest.raises(dp.PolicyError, match=r"names 'x'.*There are: 'encoder.low', .*'tied.rnn'"):
        select(**{argument: ["encoder.low", "x"]})


@pytest.mark.parametrize("argument", ["only", "skip"])
@pytest.mark.parametrize("value", [3, [3], {"a"}, [["a"]], b"a", np.array(["a"])])
def test_what_names_no_layers_is_refused(argument, value):
    with pytest.raises(dp.PolicyError, match=rf"{argument} takes a name, a pattern, a list"):
        select(**{argument: value})


def test_nothing_left_is_an_error():
    with pytest.raises(dp.PolicyError, match=r"leave no layer.*'encoder.low', 'encoder.high'"):
        select(skip=lambda *_: True)


def test_the_first_pattern_that_matches_counts():
    selection = select({"encoder.low": dp.naive(), "encoder.*": "zaremba", "decoder.*": "locked"})
    assert [policy.name for policy in selection.layers.values()] == ["naive", "zaremba", "locked"]
    selection = select({"decoder.*": "locked", "*.low": dp.naive()})
    assert names(selection) == ["encoder.low", "decoder.rnn"]
    (left,) = selection.skipped
    assert (left.name, left.why) == ("encoder.high", "no pattern of policy= matches it")
    with pytest.raises(dp.PolicyError, match="policy names 'middle'"):
        select({"middle": "locked", "*": "zaremba"})


def test_an_embedding_follows_the_policy_whose_pattern_it_matches():
    selection = select({"words": "awd", "encoder.*": "zaremba"}, WORDS)
    assert {item.name: p.name for item, p in selection.embeddings.items()} == {"words": "awd"}
    assert not select("zaremba", WORDS).embeddings
    left = select("awd", WORDS, skip="words")
    assert not left.embeddings
    assert [skipped.name for skipped in left.skipped] == ["words"]
    assert not select("zaremba", WORDS, skip="words").skipped, "zaremba drops no word types"


def test_a_policy_by_name_leaves_out_the_cell_state_of_layers_that_have_none():
    low, high, decoder = select("zoneout").layers.values()
    both = {dp.Site.HIDDEN_UPDATE, dp.Site.CELL_UPDATE}
    assert (set(low), set(high), set(decoder)) == (both, {dp.Site.HIDDEN_UPDATE}, both)
    assert high.name == "zoneout"
    assert high.citation == low.citation
    given = select(dp.zoneout()).layers.values()
    assert all(set(policy) == both for policy in given), "a Policy stands for itself"


def test_a_policy_by_name_of_which_nothing_is_left_is_kept_to_be_refused():
    assert set(Choice.of("rnndrop").on(cell_types.GRU.sites)) == {dp.Site.CELL}
    assert set(Choice.of("zoneout", {"hidden_update": 0.0}).on(cell_types.GRU.sites)) == {
        dp.Site.HIDDEN_UPDATE,
        dp.Site.CELL_UPDATE,
    }


def test_a_layer_that_is_made_with_a_policy_keeps_a_site_with_a_rate_of_the_users():
    sites = cell_types.GRU.sites
    assert set(Choice.of("zoneout").on_one(sites)) == {dp.Site.HIDDEN_UPDATE}
    rated = Choice.of("zoneout", {"cell_update": 0.1})
    assert dp.Site.CELL_UPDATE in rated.on_one(sites)
    assert dp.Site.CELL_UPDATE not in rated.on(sites)


def used(policy, rate=None, layers=1, embeddings=False, cell=cell_types.LSTM, place=()):
    choice = Choice.of(policy, rate)
    placement = Placement(choice.on(cell.sites), 0, *(place or (True, True)))
    return check_rates_are_used(ApplyRequest({"*": choice}), [(placement, layers)], embeddings)


def test_a_rate_that_falls_somewhere_is_fine():
    assert used("variational", {"hidden": 0.2}, embeddings=True) == []
    assert used("zaremba", {"between": 0.2}, layers=2) == []
    assert used("zoneout", {"hidden_update": 0.2}, cell=cell_types.GRU) == []
    assert used("zaremba", 0.2) == [], "one rate for every site is for those that there are"
    assert used("zaremba", {"between": 0.0}) == []


@pytest.mark.parametrize(
    ("policy", "rate", "more"),
    [
        ("variational", {"embedding": 0.9}, {}),
        ("zaremba", {"between": 0.3}, {}),
        ("zaremba", {"output": 0.3}, {"place": (True, False)}),
        ("zoneout", {"cell_update": 0.3}, {"cell": cell_types.GRU}),
        ("zoneout", {"cell_update": 0.3, "hidden_update": 0.1}, {"cell": cell_types.RNN}),
    ],
)
def test_a_rate_that_falls_nowhere_is_an_error(policy, rate, more):
    site = next(iter(rate))
    with pytest.raises(
        dp.PolicyError, match=rf"The rate for '{site}' of policy '{policy}' is not used"
    ):
        used(policy, rate, **more)


@pytest.mark.parametrize("policy", ["awd", "variational"])
def test_a_policy_for_word_types_says_that_it_found_none(policy):
    (note,) = used(policy)
    assert note == f"policy {policy}: no embedding was found, so no word types are dropped"
    assert used(policy, embeddings=True) == []
