"""Grouping layers into stacks, and the report that comes of it."""

import pytest

import dropout_policies as dp
from dropout_policies.plan import Placement
from dropout_policies.report import Applied, Skipped, Touched
from dropout_policies.stacks import Found, group, place, stack_placement

A, B, C = (Found(name, object(), "LSTM") for name in "abc")


def names(groups):
    return [[item.name for item in members] for members in groups]


def test_links_make_chains_in_the_models_order():
    assert names(group([A, B, C], [], [], None)) == [["a"], ["b"], ["c"]]
    assert names(group([A, B, C], [(A, B), (B, C)], [], None)) == [["a", "b", "c"]]
    assert names(group([A, B, C], [(C, A)], [], None)) == [["b"], ["c", "a"]]


def test_what_the_user_says_settles_the_layers_named():
    assert names(group([A, B, C], [(B, C)], [(A, B)], [["a"], ["b"]])) == [["a"], ["b"], ["c"]]
    assert names(group([A, B, C], [], [(A, B)], [["b", "a"]])) == [["b", "a"], ["c"]]


def test_what_is_unclear_must_be_said():
    with pytest.raises(
        dp.PolicyError, match=r"stacks=\[\['a', 'b'\]\].*stacks=\[\['a'\], \['b'\]\]"
    ):
        group([A, B], [], [(A, B)], None)


def test_layers_are_numbered_over_all_stacks():
    two = Found("two", object(), "LSTM", layers=2)
    row = place(dp.zaremba(), [[A, two], [B]])
    numbers = [(p.layer, p.first, p.last) for members in row for p in members]
    assert numbers == [(0, True, False), (1, False, True), (3, True, True)]


@pytest.mark.parametrize("stack", [(2, 2), (-1, 2), (0, 0), (0,), "ab", (0.0, 2), 3])
def test_a_place_that_no_stack_has_is_refused(stack):
    with pytest.raises(dp.PolicyError, match="LSTM"):
        stack_placement(dp.zaremba(), stack, 1, "LSTM")


def test_the_report_counts_connections_and_masks():
    policy = dp.Policy(between=dp.drop(0.5), output=dp.drop(0.0), name="mine")
    touched = [
        Touched("a", "LSTM", 1, Placement(policy, 0, True, False)),
        Touched("b", "LSTM", 2, Placement(policy, 1, False, True), "dropout=0.3"),
    ]
    undone = []
    applied = Applied(policy, [touched], [Skipped("g", "GRU", "why")], lambda: undone.append(1))
    (stack,) = applied.stacks
    assert (stack.layers, stack.connections, stack.masked) == (3, 4, 2)
    assert str(applied) == (
        "policy mine: 2 recurrent layers in 1 stack; evaluation: identity\n"
        "  stack 1: L = 3, 2 of 4 vertical connections masked\n"
        "    a (LSTM): no masks\n"
        "    b (LSTM x2): between 0.5 per step, output 0 per step\n"
        "      taken over, back on remove(): dropout=0.3\n"
        "  skipped g (GRU): why"
    )
    applied.remove()
    applied.remove()
    assert undone == [1]
    assert str(applied).startswith("policy mine (removed): ")
