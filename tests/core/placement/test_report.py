"""What `apply` says of a model: rules of each layer, stacks, and their diagrams."""

import dataclasses

import pytest

import dropout_policies as dp
from dropout_policies.placement.plans import Placement
from dropout_policies.placement.report import (
    Applied,
    Skipped,
    Stack,
    Touched,
    TouchedEmbedding,
    rules_text,
)

PER_LAYER = dp.Policy(
    name="mine",
    input=dp.drop([0.1, 0.2, 0.3]),
    between=dp.drop([0.1, 0.2, 0.3]),
    output=dp.drop([0.1, 0.2, 0.3]),
    hidden=dp.drop([0.4, 0.4, 0.0], per="sequence"),
    embedding=dp.drop(0.5, per="sequence"),
)


def touched(policy, name, layers, number, first, last, native=""):
    return Touched(name, "LSTM", layers, Placement(policy, number, first, last, number), native)


def test_equal_rules_are_written_once():
    every = frozenset(dp.Site)
    assert rules_text(dp.naive(0.5), every) == "input, between, output, hidden 0.5 per step"
    assert rules_text(dp.naive(0.0), every) == "no masks"
    assert rules_text(dp.naive(0.5), frozenset({dp.Site.HIDDEN})) == "hidden 0.5 per step"
    both = dp.zaremba(0.5) | dp.zoneout(0.25, 0.0)
    text = "input, between, output 0.5 per step; cell_update 0.25 per step"
    assert rules_text(both, every) == text


def test_a_layers_rules_are_those_at_its_place_in_the_stack():
    low = touched(PER_LAYER, "low", 1, 0, True, False)
    high = touched(PER_LAYER, "high", 2, 1, False, True)
    assert low.sites() == "input 0.1 per step; hidden 0.4 per sequence"
    assert high.sites() == (
        "between [0.2, 0.3] per step; output 0.3 per step; hidden [0.4, 0] per sequence"
    )
    assert (low.masked, high.masked) == (1, 3)
    whole = touched(dp.zaremba(0.5), "all", 3, 0, True, True)
    assert whole.sites() == "input, between, output 0.5 per step"
    middle = touched(dp.awd(), "middle", 1, 1, False, False)
    assert middle.sites() == "between 0.25 per sequence; recurrent_weight 0.5 per call"


def test_a_layers_rows_are_its_part_of_the_network():
    low = list(touched(PER_LAYER, "low", 1, 0, True, False).rows())
    assert [(row.name, row.notes, row.masked) for row in low] == [
        ("input", "0.1 per step", True),
        ("low", "hidden 0.4 per sequence", True),
    ]
    high = list(touched(PER_LAYER, "high", 2, 1, False, True).rows())
    assert [(row.name, row.notes, row.masked) for row in high] == [
        ("between", "0.2 per step", True),
        ("high, layer 1", "hidden 0.4 per sequence", True),
        ("between", "0.3 per step", True),
        ("high, layer 2", "", False),
        ("output", "0.3 per step", True),
    ]


def applied(*stacks, policy=PER_LAYER, **more):
    return Applied([policy], stacks, more.get("skipped", ()), (), more.get("embeddings", ()))


def test_a_stack_is_drawn_as_one_and_layers_that_fork_each_by_itself():
    low = touched(PER_LAYER, "low", 1, 0, True, False)
    high = touched(PER_LAYER, "high", 2, 1, False, True)
    (drawn,) = applied([low, high]).diagrams(3, path=(1, 2))
    assert drawn.title == "mine on low and high"
    assert (drawn.steps, drawn.path, drawn.layers) == (3, (1, 2), 3)
    assert [row.name for row in drawn.rows[1::2]] == ["low", "high, layer 1", "high, layer 2"]

    fork = [low, high, touched(PER_LAYER, "side", 1, 1, False, True)]
    drawn = applied(fork).diagrams()
    assert [d.title for d in drawn] == ["mine on low", "mine on high", "mine on side"]
    top = drawn[0].rows[-1]
    assert (top.name, top.notes, top.masked) == ("output", "masked where it is taken in", False)
    assert [row.name for row in drawn[2].rows] == ["between", "side", "output"]
    assert drawn[0].steps == 4


@pytest.mark.parametrize(
    ("places", "forked"),
    [
        ([(True, True)], False),
        ([(True, False), (False, True)], False),
        ([(True, False), (False, True), (False, True)], True),
        ([(True, False), (True, False), (False, True)], True),
        ([(True, False), (False, False)], True),
        ([(False, False), (False, True)], True),
    ],
)
def test_a_stack_is_a_chain_if_it_begins_once_and_ends_once(places, forked):
    members = [touched(dp.zaremba(), "a", 1, n, *place) for n, place in enumerate(places)]
    assert Stack(tuple(members)).forked == forked


def test_the_report_is_a_text_of_all_that_was_touched_and_skipped():
    one = touched(dp.awd(), "one", 1, 0, True, True)
    two = touched(dp.awd(), "two", 2, 1, True, True, native="dropout=0.5")
    words = TouchedEmbedding("words", "Embedding", dp.awd())
    left = Skipped("other", "GRU", "a subclass")
    lines = [
        "    one (LSTM): input, output 0.4 per sequence; recurrent_weight 0.5 per call",
        "  stack 2: L = 2, 3 of 3 vertical connections masked",
        "    two (LSTM x2): input, output 0.4 per sequence; between 0.25 per sequence; "
        "recurrent_weight 0.5 per call",
        "      taken over, back on remove(): dropout=0.5",
        "  words (Embedding): embedding 0.1 per call",
        "  skipped other (GRU): a subclass",
    ]
    given = applied([one], [two], policy=dp.awd(), skipped=[left], embeddings=[words])
    assert str(given).splitlines() == [
        "policy awd: 2 recurrent layers in 2 stacks; evaluation: identity",
        "  stack 1: L = 1, 2 of 2 vertical connections masked",
        *lines,
    ]
    assert repr(given) == f"<Applied {str(given).splitlines()[0]}>"
    assert given.touched == (one, two)
    only = applied([one], policy=dp.awd())
    assert str(only).splitlines()[0] == (
        "policy awd: 1 recurrent layer in 1 stack; evaluation: identity"
    )


def test_a_notebook_shows_the_stacks_and_the_report():
    one = touched(dp.zaremba(), "<one>", 1, 0, True, True)
    given = applied([one], [one], policy=dp.zaremba())
    shown = given._repr_html_()
    assert shown.count("<svg") == 2
    assert shown.endswith("</pre>")
    assert "<pre>policy zaremba: 2 recurrent layers" in shown
    assert "&lt;one&gt; (LSTM)" in shown
    assert "<one>" not in shown


def test_a_context_removes_the_policy_at_its_end_whatever_happens():
    undone = []

    class Memory:
        def check(self):
            undone.append("check")

        def restore(self):
            undone.append("restore")

    given = Applied([dp.zaremba()], [], [], [Memory()])
    with given as entered:
        assert entered is given
        assert given.active
    assert undone == ["check", "restore"]
    given = Applied([dp.zaremba()], [], [], [Memory()])
    with pytest.raises(ZeroDivisionError), given:
        raise ZeroDivisionError
    assert undone == ["check", "restore"] * 2
    assert not given.active


def test_nothing_is_removed_if_one_layer_cannot_be():
    undone = []

    class Memory:
        def __init__(self, fails):
            self.fails = fails

        def check(self):
            if self.fails:
                raise dp.PolicyError("changed since")

        def restore(self):
            undone.append("restore")

    given = Applied([dp.zaremba()], [], [], [Memory(False), Memory(True)])
    with pytest.raises(dp.PolicyError, match="changed since"):
        given.remove()
    assert undone == []
    assert given.active


def test_none_are_several():
    assert str(applied(policy=dp.none())) == (
        "policy none: 0 recurrent layers in 0 stacks; evaluation: identity"
    )


@pytest.mark.parametrize(
    "part",
    [
        touched(dp.zaremba(), "one", 1, 0, True, True),
        TouchedEmbedding("words", "Embedding", PER_LAYER),
        Skipped("other", "GRU", "a subclass"),
        Stack(()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_is_reported_never_changes(part):
    field = dataclasses.fields(part)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, field, "another")
    assert not hasattr(part, "__dict__")
