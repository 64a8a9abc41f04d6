"""What is made of a model's connections: existing dropout, notes of the report, and pictures."""

import dataclasses
import re

import pytest

import dropout_policies as dp
from dropout_policies.placement.connections import (
    DropoutUse,
    ExistingDropout,
    LayerUse,
    RecurrentLayer,
)
from dropout_policies.placement.existing_dropout import check_existing, plan_existing_dropout
from dropout_policies.placement.stacks import find_stacks, place_layers
from dropout_policies.placement.wiring_notes import notes_on_wiring
from dropout_policies.placement.wirings import Wiring

A, B = RecurrentLayer("a", object(), "LSTM"), RecurrentLayer("b", object(), "GRU")
DROP = ExistingDropout("drop", "Dropout", "p=0.2", object())
CALLED = ExistingDropout("model.py:3", "F.dropout", "p=0.4", None, can_switch_off=False)


def chain(**more):
    """a feeds b."""
    first = LayerUse(A, output_goes=frozenset({"layer"}))
    return [first, LayerUse(B, [first], output_goes=frozenset({"elsewhere"}), **more)]


def placed(uses, policy="zaremba", rate=None):
    policies = dict.fromkeys((A, B), dp.resolve(policy, rate))
    return place_layers(policies, find_stacks(policies, uses, [], None))


def plan(*dropouts, existing="take over", policy="zaremba", uses=None, **more):
    uses = chain() if uses is None else uses
    wiring = Wiring((A, B), uses, dropouts, **more)
    return plan_existing_dropout(wiring, placed(uses, policy), existing)


BETWEEN = DropoutUse(DROP, [A], (), [B])


@pytest.mark.parametrize(
    ("use", "place"),
    [
        (BETWEEN, "what goes from 'a' into 'b'"),
        (DropoutUse(DROP, (), (), [A]), "the input of 'a'"),
        (DropoutUse(DROP, [B], (), (), goes_elsewhere=True), "the output of 'b'"),
        (DropoutUse(DROP, (), (), [A, B]), "the input of 'a' and the input of 'b'"),
        (
            DropoutUse(DROP, [A, B], (), [B]),
            "what goes from 'a' and 'b' into 'b' and the output of",
        ),
    ],
)
def test_a_dropout_on_a_masked_connection_is_taken_over(use, place):
    found = plan(use)
    assert found.kept == []
    assert list(found.taken_over) == [DROP]
    assert found.taken_over[DROP].startswith(place)
    (one,) = found.reported()
    assert (one.name, one.kind, one.rate) == ("drop", "Dropout", "p=0.2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.kept = []


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (
            DropoutUse(DROP, [A], (), (), goes_elsewhere=True),
            "it is on the output of 'a', which no",
        ),
        (
            DropoutUse(DROP, (), [B], (), goes_elsewhere=True),
            "it is on the last state of 'b', whic",
        ),
        (DropoutUse(DROP, goes_elsewhere=True), "it is on a connection between other layers, whic"),
    ],
)
def test_a_dropout_elsewhere_stays_and_is_reported(use, why):
    found = plan(use)
    assert not found.taken_over
    (kept,) = found.kept
    assert kept.why.startswith(f"p=0.2; {why}")
    assert (kept.name, kept.kind) == ("drop", "Dropout")


def test_only_policies_that_mask_connections_look_at_dropout():
    for policy in ("zoneout", "weight_drop", "none"):
        found = plan(BETWEEN, policy=policy, unplaced_dropouts=[DROP])
        assert (found.taken_over, found.kept) == ({}, [])
    found = plan(DropoutUse(DROP, (), (), [A]), policy=dp.Policy(output=dp.drop(0.5)))
    assert "it is on the input of 'a', which no mask falls on" in found.kept[0].why


@pytest.mark.parametrize(
    "uses",
    [
        [DropoutUse(DROP, [A], (), [B], goes_elsewhere=True)],
        [BETWEEN, DropoutUse(DROP, goes_elsewhere=True)],
        [DropoutUse(DROP, [B], [B], (), goes_elsewhere=True)],
        [DropoutUse(DROP, (), (), [RecurrentLayer("other", None, "RNN"), A])],
    ],
)
def test_a_dropout_that_would_be_missed_elsewhere_is_not_switched_off(uses):
    with pytest.raises(dp.PolicyError, match=r"drop \(Dropout, p=0.2\) masks .*, and it is also"):
        plan(*uses)
    assert "a second time" in plan(*uses, existing="keep").kept[0].why


def test_what_cannot_be_switched_off_is_an_error_that_names_everything():
    uses = [DropoutUse(CALLED, [A], (), [B]), DropoutUse(DROP, [B], [B], (), goes_elsewhere=True)]
    with pytest.raises(dp.PolicyError) as error:
        plan(*uses)
    text = str(error.value)
    assert "policy 'zaremba' masks too: model.py:3 (F.dropout, p=0.4) masks what goes f" in text
    assert "cannot be switched off from outside; drop (Dropout, p=0.2) masks the output" in text
    assert "write existing='keep' to have both" in text
    assert len(plan(*uses, existing="keep").kept) == 2


def test_the_user_may_refuse_all_dropout():
    with pytest.raises(dp.PolicyError, match=r"p=0.2\) masks what.*existing='take over' to switch"):
        plan(BETWEEN, existing="refuse")
    assert not plan(DropoutUse(DROP), existing="refuse").taken_over


@pytest.mark.parametrize("observed", [True, False])
def test_dropout_that_nothing_places_is_reported(observed):
    (kept,) = plan(unplaced_dropouts=[DROP], observed=observed).kept
    why = "it did not run on the example" if observed else "it may mask a connection a second time"
    assert why in kept.why
    assert ("with example= apply sees" in kept.why) != observed


def notes(uses, policy="zaremba", stacks=None, **more):
    return notes_on_wiring(Wiring((A, B), uses, **more), placed(uses, policy), stacks)


def test_an_ordinary_model_needs_no_notes():
    assert notes(chain(calls=1, steps=5), observed=True) == []
    assert notes([]) == []


def test_notes_say_how_layers_are_called():
    (note,) = notes(chain(calls=3, steps=3))
    assert (
        note
        == "b is called 3 times over one sequence, each from the state that the call before left"
    )
    (note,) = notes(chain(calls=3, steps=3), "awd")
    assert "(between, output, recurrent_weight) is drawn anew each time, unless" in note
    two = [LayerUse(A, calls=1), LayerUse(A, calls=1)]
    assert notes(two) == ["a runs over 2 sequences with the same weights"]
    assert notes([LayerUse(A), LayerUse(A)]) == []  # two places in a container, of no known number
    assert "b did not run on the example; it" in notes([LayerUse(A, calls=1)], observed=True)[0]


def test_notes_say_which_states_stay_whole():
    encoder = LayerUse(A, output_goes=frozenset({"state"}), calls=1)
    decoder = LayerUse(B, (), [encoder], frozenset({"elsewhere"}), calls=1)
    assert notes([encoder, decoder]) == [
        "a: its output is used only as an initial state, and no mask falls on it",
        "b starts from the state of a, which stays whole",
    ]
    classifier = LayerUse(A, calls=1, state_is_used=True)
    assert notes([classifier])[0].startswith("the output of a is masked and not used")
    assert notes([classifier], "zoneout") == []
    assert notes([LayerUse(A, calls=1)]) == []  # nobody takes either: the run shows only a part


def test_notes_tell_of_layers_that_may_be_joined_all_the_same():
    apart = [LayerUse(A), LayerUse(B)]
    (note,) = notes(apart, unlikely_pairs=[(A, B)])
    assert "'a' into 'b'" in note
    assert "example=batch shows it" in note
    assert notes(apart, unlikely_pairs=[(A, B)], stacks=[["a"], ["b"]]) == []
    assert notes(apart, "zoneout", unlikely_pairs=[(A, B)]) == []
    assert notes(apart, notes=["what was seen"]) == ["what was seen"]


def shown():
    first, second = chain(calls=2, steps=6)
    third = LayerUse(B, (), [first], calls=1, steps=1, state_is_used=True)
    return Wiring((A, B), [first, second, third], [BETWEEN] * 2, [CALLED], [(A, B)], observed=True)


def test_the_text_has_every_connection_and_dropout():
    assert str(shown()).splitlines() == [
        "2 recurrent layers, seen in a run on the example",
        "  a (LSTM)",
        "  b (GRU): 2 calls over 6 steps, each from the state that the one before left",
        "    input from a",
        "  b (GRU): one call over 1 step",
        "    initial state from a",
        "    its output is not used, its last state is",
        "  a may feed b: only the code knows",
        "  dropout drop (Dropout, p=0.2): from the output of a to the input of b",
        "  dropout model.py:3 (F.dropout, p=0.4): it did not run on the example",
    ]
    dropouts = [DropoutUse(DROP), DropoutUse(DROP, (), [A], (), True)]
    read = str(Wiring((A,), [], dropouts, [CALLED], notes=["n"]))
    assert read.splitlines() == [
        "1 recurrent layer, read from the model's structure",
        "  a (LSTM)",
        "    only the code knows what feeds it",
        "  dropout drop (Dropout, p=0.2): not next to a recurrent layer",
        "  dropout drop (Dropout, p=0.2): from the last state of a to other layers",
        "  dropout model.py:3 (F.dropout, p=0.4): only the code knows what it falls on",
        "  n",
    ]


def test_the_picture_has_a_box_for_each_layer_and_a_line_for_each_connection(tmp_path):
    wiring = shown()
    svg = wiring.svg()
    assert svg.count("<rect") == 3
    lines = re.findall(r'<path d="([^"]*)"( stroke-dasharray="4 4")?/>', svg)
    assert lines == [("M240 74V106", ""), ("M150 52H102V204H150", ' stroke-dasharray="4 4"')]
    assert svg.count("drop p=0.2") == 2  # on the input of b, in both of its places
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts[:2] == ["a", "LSTM"]
    wiring.save(tmp_path / "w.svg")
    assert (tmp_path / "w.svg").read_text() == svg
    assert svg in wiring._repr_html_()
    with pytest.raises(dp.PolicyError, match=r"ends with \.svg\. Received: 'w\.png'"):
        wiring.save("w.png")


def drawn(wiring):
    """The shapes of a picture, and its texts with their places."""
    svg = wiring.svg()
    head = re.match(r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="([^"]*)" width="520"', svg)
    boxes = re.findall(r'<rect x="150" y="(\d+)" width="220" height="44" rx="6"/>', svg)
    lines = re.findall(r'<path d="([^"]*)"', svg)
    pattern = r'<text x="(\d+)" y="(\d+)" font-size="(\d+)" text-anchor="(\w+)"[^>]*>([^<]*)</text>'
    return head.group(1), boxes, lines, re.findall(pattern, svg)


def test_the_picture_is_laid_out_so():
    before = DropoutUse(DROP, (), (), [A])
    after = DropoutUse(DROP, [B], (), (), goes_elsewhere=True)
    first = LayerUse(A, calls=1, steps=1)
    second = LayerUse(B, [first], [first], calls=2, steps=5)
    far = LayerUse(A, [first], [second])
    last = LayerUse(B, [first, second])
    seen = drawn(Wiring((A, B), [first, second, far, last], [before, after]))
    assert seen[0] == "0 0 520 354"
    assert seen[1] == ["30", "106", "182", "258"]
    assert seen[2] == [
        "M240 74V106",
        "M280 74V106",
        "M150 52H102V204H150",
        "M280 150V182",
        "M150 52H78V280H150",
        "M150 128H102V280H150",
    ]
    assert [text for text in seen[3] if text[4] != "drop p=0.2"] == [
        ("260", "49", "13", "middle", "a"),
        ("260", "65", "10", "middle", "LSTM, 1 call, T = 1"),
        ("260", "125", "13", "middle", "b"),
        ("260", "141", "10", "middle", "GRU, 2 calls, T = 5"),
        ("260", "201", "13", "middle", "a"),
        ("260", "217", "10", "middle", "LSTM"),
        ("260", "277", "13", "middle", "b"),
        ("260", "293", "10", "middle", "GRU"),
        ("260", "346", "10", "middle", "solid: what comes in; dashed: the initial state"),
    ]
    marks = [text[:4] for text in seen[3] if text[4] == "drop p=0.2"]
    assert marks == [
        ("385", "22", "10", "start"),
        ("385", "164", "10", "start"),
        ("385", "174", "10", "start"),
        ("385", "316", "10", "start"),
    ]
    one = drawn(Wiring((A,), [LayerUse(A)]))
    assert one[0] == "0 0 520 126"
    assert one[3][-1][4] == ""  # one box needs no legend
    assert drawn(Wiring((A,), []))[0] == "0 0 520 126"
    many = [LayerUse(A) for _ in range(9)]
    fork = LayerUse(B, [many[0]])
    assert drawn(Wiring((A, B), [*many, fork]))[2] == ["M150 52H30V736H150"]  # no further out


def test_only_pairs_of_layers_that_are_asked_for_are_open():
    c = RecurrentLayer("c", None, "RNN")
    wiring = Wiring((A, B, c), [], ambiguous_pairs=[(A, B), (B, c), (c, A)])
    assert wiring.pairs_among([A, B]) == [(A, B)]
    assert wiring.pairs_among([c]) == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        wiring.observed = True


def test_the_text_tells_one_from_many():
    uses = [LayerUse(A, calls=1, steps=0), LayerUse(A, calls=0, steps=2), LayerUse(A, calls=1)]
    lines = str(Wiring((), uses)).splitlines()
    assert lines[:2] == [
        "0 recurrent layers, read from the model's structure",
        "  a (LSTM): one call over 0 steps",
    ]
    assert lines[3].startswith("  a (LSTM): 0 calls over 2 steps")
    assert "  a (LSTM): one call" in lines
    both = LayerUse(A, output_goes=frozenset({"state", "elsewhere"}))
    assert "as a state only" not in str(Wiring((A,), [both]))
    alone = LayerUse(A, output_goes=frozenset({"state"}))
    assert "its output is used as a state only" in str(Wiring((A,), [alone]))
    ends = [DropoutUse(DROP, [A]), DropoutUse(DROP, (), (), [A])]
    text = str(Wiring((A,), [], ends))
    assert "from the output of a to nothing" in text
    assert "from other layers to the input of a" in text


@pytest.mark.parametrize("existing", ["take over", "keep", "refuse"])
def test_the_three_words_are_taken_as_they_are(existing):
    assert check_existing(existing) == existing


@pytest.mark.parametrize("existing", ["", "a", "zz", "Keep", None, 1])
def test_no_other_word_is_taken(existing):
    with pytest.raises(dp.PolicyError, match="existing must be 'take over'"):
        check_existing(existing)


def test_two_steps_in_one_call_and_layers_of_another_policy_are_no_notes():
    assert len(notes(chain(calls=2, steps=2))) == 1
    both = [LayerUse(A, output_goes=frozenset({"state", "layer"}), calls=1)]
    policies = {A: dp.Policy(input=dp.drop(0.5)), B: dp.zaremba(0.5)}
    apart = place_layers(policies, find_stacks(policies, [], [], None))
    assert notes_on_wiring(Wiring((A, B), both), apart, None) == []
    assert notes_on_wiring(Wiring((A, B), [], unlikely_pairs=[(A, B)]), apart, None) == []
    half = [LayerUse(A, calls=1), LayerUse(A)]
    assert notes(half) == ["a runs over 2 sequences with the same weights"]
    assert notes(half[::-1]) == []


def test_dropout_on_the_carried_state_is_looked_at_by_policies_that_mask_it():
    use = DropoutUse(DROP, (), [A], initial_states_of=[A])
    for policy in ("variational", "naive"):
        assert plan(use, policy=policy).taken_over[DROP] == "the state of 'a'"
    only = dp.Policy(hidden=dp.drop(0.5))
    assert plan(use, policy=only).taken_over[DROP] == "the state of 'a'"
    (kept,) = plan(use).kept  # zaremba leaves the state whole
    assert "it is on the state that 'a' starts from, which no mask falls on" in kept.why
    elsewhere = DropoutUse(DROP, (), [A], goes_elsewhere=True, initial_states_of=[A])
    with pytest.raises(dp.PolicyError, match="also used where the policy does not mask"):
        plan(elsewhere, policy="variational")
    text = str(Wiring((A,), [], [use]))
    assert "from the last state of a to the initial state of a" in text
