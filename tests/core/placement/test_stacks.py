"""Grouping layers into stacks, and the report that comes of it."""

import dataclasses

import pytest

import dropout_policies as dp
from dropout_policies.placement.plans import Placement
from dropout_policies.placement.report import Applied, Skipped, Stack, Touched
from dropout_policies.placement.stacks import (
    LayerUse,
    RecurrentLayer,
    find_stacks,
    place_layers,
    stack_placement,
)

A, B, C = (RecurrentLayer(name, object(), "LSTM") for name in "abc")


def under(*items, policy=None):
    """Layers, each with its policy."""
    return dict.fromkeys(items, policy or dp.zaremba())


def used(*links):
    """Uses of which each runs once, for pairs (a, b) of which the first feeds the second."""
    sources = {b: [a for a, other in links if other is b] for _, b in links}
    made = {}

    def use(item):
        if item not in made:
            made[item] = LayerUse(item, [use(source) for source in sources.get(item, [])])
        return made[item]

    for pair in links:
        for item in pair:
            use(item)
    return list(made.values())


def names(groups):
    return [[member.item.name for member in members] for members in groups]


def ends(groups):
    """The layers that mask their way in as a stack's first, and their way out as its last."""
    members = [member for members in groups for member in members]
    return [[m.item.name for m in members if m.first], [m.item.name for m in members if m.last]]


def test_links_make_chains_in_the_models_order():
    assert names(find_stacks(under(A, B, C), [], [], None)) == [["a"], ["b"], ["c"]]
    chain = find_stacks(under(A, B, C), used((A, B), (B, C)), [], None)
    assert names(chain) == [["a", "b", "c"]]
    assert ends(chain) == [["a"], ["c"]]
    assert names(find_stacks(under(A, B, C), used((C, A)), [], None)) == [["b"], ["c", "a"]]


def test_what_the_user_says_settles_the_layers_named():
    said = find_stacks(under(A, B, C), used((B, C)), [(A, B)], [["a"], ["b", "c"]])
    assert names(said) == [["a"], ["b", "c"]]
    assert ends(said) == [["a", "b"], ["a", "c"]]
    both = r"stacks=\[\['a', 'b', 'c'\]\] if.*stacks=\[\['b', 'c'\], \['a'\]\] if it does not"
    with pytest.raises(dp.PolicyError, match=both):  # both answers agree with what is seen
        find_stacks(under(A, B, C), used((B, C)), [(A, B)], None)
    said = find_stacks(under(A, B, C), [], [(A, B)], [["b", "a"]])
    assert names(said) == [["b", "a"], ["c"]]
    assert ends(said) == [["b", "c"], ["a", "c"]]


@pytest.mark.parametrize(
    "said", [[["b"]], [["a"]], [["a"], ["b", "c"]], [["b", "a"]], [["c", "b"]]]
)
def test_what_the_user_says_must_not_deny_what_is_seen(said):
    seen = used((A, B), (B, C))
    with pytest.raises(dp.PolicyError, match=r"contradicts the model: '[ab]' feeds '[bc]'"):
        find_stacks(under(A, B, C), seen, [], said)
    assert names(find_stacks(under(A, B, C), seen, [], [["a", "b", "c"]])) == [["a", "b", "c"]]
    twice = [*seen, LayerUse(B)]  # in its second place nothing feeds b
    assert names(find_stacks(under(A, B, C), twice, [], [["b"]]))


def test_a_layer_whose_output_is_only_a_state_does_not_mask_it():
    encoder = LayerUse(A, output_goes=frozenset({"state"}))
    decoder = LayerUse(B, initial_state_from=[encoder], output_goes=frozenset({"elsewhere"}))
    found = find_stacks(under(A, B), [encoder, decoder], [], None)
    assert (names(found), ends(found)) == ([["a"], ["b"]], [["a", "b"], ["b"]])
    both = LayerUse(A, output_goes=frozenset({"state", "elsewhere"}))
    with pytest.raises(
        dp.PolicyError, match=r"output of 'a' is used as an initial state and in another"
    ):
        find_stacks(under(A, B), [both, decoder], [], None)
    whole = dp.zaremba().with_rates({"output": 0})
    assert ends(find_stacks(under(A, B, policy=whole), [both, decoder], [], None))[1] == ["a", "b"]


def test_forks_and_joins_mask_every_connection_once():
    fork = find_stacks(under(A, B, C), used((A, B), (A, C)), [], None)
    assert names(fork) == [["a", "b", "c"]]
    assert ends(fork) == [["a"], ["b", "c"]]
    join = find_stacks(under(A, B, C), used((A, C), (B, C)), [], None)
    assert names(join) == [["a", "b", "c"]]
    assert ends(join) == [["a", "b"], ["c"]]
    stack = Stack(
        tuple(Touched(m.item.name, "LSTM", 1, p) for m, p in zip(*placed(fork), strict=True))
    )
    assert (stack.layers, stack.connections, stack.masked) == (3, 5, 5)


def placed(groups):
    members = [member for members in groups for member in members]
    places = place_layers(under(*(member.item for member in members)), groups)
    return members, [places[member.item] for member in members]


def test_a_layer_in_two_unlike_places_must_be_said():
    a = LayerUse(A)
    for uses in (
        [a, LayerUse(A, [a])],
        [a, LayerUse(B, [a]), LayerUse(B)],
        [a, (b := LayerUse(B, [a])), LayerUse(A, [b])],
        [a, LayerUse(B, [a]), LayerUse(A)],
    ):
        with pytest.raises(dp.PolicyError, match=r"is in two places.*stacks=\[\['[ab]'\]\]"):
            find_stacks(under(A, B), uses, [], None)
        assert names(find_stacks(under(A, B), uses, [], [["a"], ["b"]])) == [["a"], ["b"]]
    alike = [a, LayerUse(B, [a]), (again := LayerUse(A)), LayerUse(B, [again])]
    assert ends(find_stacks(under(A, B), alike, [], None)) == [["a"], ["b"]]


@pytest.mark.parametrize(
    "stacks", [["a", "b"], "a", [["a"], []], 3, [None], [["a", ["b"]]], [["a", 1]]]
)
def test_stacks_that_are_no_lists_of_names_are_refused(stacks):
    with pytest.raises(dp.PolicyError, match=r"write|stacks=\[\['low', 'high'\]\]"):
        find_stacks(under(A, B), [], [], stacks)


def test_what_is_unclear_must_be_said():
    with pytest.raises(
        dp.PolicyError, match=r"stacks=\[\['a', 'b'\]\].*stacks=\[\['a'\], \['b'\]\]"
    ):
        find_stacks(under(A, B), [], [(A, B)], None)


def test_what_was_said_of_some_layers_leaves_the_others_open():
    unclear = [(A, B), (A, C), (B, A), (B, C), (C, A), (C, B)]
    with pytest.raises(
        dp.PolicyError, match=r"These pairs are open: 'b' into 'c', 'c' into 'a'\."
    ) as error:
        find_stacks(under(A, B, C), [], unclear, [["a", "b"]])
    assert "stacks=[['a', 'b', 'c']] if each feeds the next" in str(error.value)
    assert "stacks=[['a', 'b'], ['c']] if none feeds another" in str(error.value)
    for stacks in ([["a", "b", "c"]], [["a", "b"], ["c"]], [["c"], ["a"], ["b"]]):
        assert names(find_stacks(under(A, B, C), [], unclear, stacks)) == sorted(stacks)
    with pytest.raises(dp.PolicyError, match=r"'a' may feed 'b'"):
        find_stacks(under(A, B), [], [(A, B)], [["b"]])
    d = RecurrentLayer("d", object(), "LSTM")
    with pytest.raises(dp.PolicyError, match="'b' may feed 'c'") as error:
        find_stacks(under(A, B, C, d), [], [(B, C)], [["d"], ["a", "b"]])
    assert "stacks=[['d'], ['a', 'b', 'c']] if" in str(error.value)
    assert "stacks=[['d'], ['a', 'b'], ['c']] if it" in str(error.value)


def test_layers_are_numbered_over_all_stacks():
    two = RecurrentLayer("two", object(), "LSTM", layers=2)
    groups = find_stacks(under(A, two, B), used((A, two)), [], None)
    numbers = [(p.layer, p.first, p.last) for p in placed(groups)[1]]
    assert numbers == [(0, True, False), (1, False, True), (3, True, True)]


@pytest.mark.parametrize(
    ("stack", "layers", "first", "last"),
    [
        (None, 2, True, True),
        ((0, 1), 1, True, True),
        ((0, 2), 1, True, False),
        ((1, 2), 1, False, True),
        ((1, 3), 1, False, False),
        ((0, 3), 2, True, False),
        ((1, 3), 2, False, True),
        ((2, 5), 2, False, False),
        ((3, 5), 2, False, True),
        ((0, 4), 4, True, True),
    ],
)
def test_a_place_in_a_stack_says_where_the_stack_begins_and_ends(stack, layers, first, last):
    number = 0 if stack is None else stack[0]
    policy = dp.zaremba()
    found = stack_placement(policy, stack, layers, "LSTM")
    assert found == Placement(policy, number, first, last, number)


def test_layers_and_their_uses_are_told_apart_by_what_they_are_and_never_change():
    """Two layers may have one name and kind, in two models."""
    item = RecurrentLayer("a", None, "LSTM")
    assert item != RecurrentLayer("a", None, "LSTM")
    assert LayerUse(item) != LayerUse(item)
    for fixed, field in ((item, "name"), (LayerUse(item), "item")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(fixed, field, "b")


@pytest.mark.parametrize(
    "stack",
    [(2, 2), (-1, 2), (0, 0), (0,), "ab", (0.0, 2), 3, (False, 2), (0, True), (True, True), (1, 1)],
)
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

    class Memory:
        def __init__(self, number):
            self.number = number

        def check(self):
            undone.append(f"check {self.number}")

        def restore(self):
            undone.append(self.number)

    skipped = [Skipped("g", "GRU", "why")]
    applied = Applied([policy], [touched], skipped, [Memory(1), Memory(2)])
    (stack,) = applied.stacks
    assert (stack.layers, stack.connections, stack.masked) == (3, 4, 2)
    assert str(applied) == (
        "policy mine: 2 recurrent layers in 1 stack; evaluation: identity\n"
        "  stack 1: L = 3, 2 of 4 vertical connections masked\n"
        "    a (LSTM): no masks\n"
        "    b (LSTM x2): between 0.5 per step\n"
        "      taken over, back on remove(): dropout=0.3\n"
        "  skipped g (GRU): why"
    )
    applied.remove()
    applied.remove()
    assert undone == ["check 1", "check 2", 1, 2]
    assert str(applied).startswith("policy mine (removed): ")


def test_between_two_policies_a_pair_matters_where_both_would_mask_it():
    policies = {A: dp.zaremba(0.5), B: dp.locked(0.5)}
    with pytest.raises(dp.PolicyError, match="'a' may feed 'b'"):
        find_stacks(policies, [], [(A, B)], None)
    for first, second in ((dp.zoneout(), dp.zaremba()), (dp.zaremba(), dp.zoneout())):
        assert len(find_stacks({A: first, B: second}, [], [(A, B)], None)) == 2
    between = dp.Policy(between=dp.drop(0.5))
    with pytest.raises(dp.PolicyError, match="'a' may feed 'b'"):  # under one, masks between too
        find_stacks({A: between, B: between}, [], [(A, B)], None)


def test_an_answer_repeats_only_the_chains_that_it_is_about():
    d, e = (RecurrentLayer(name, object(), "LSTM") for name in "de")
    with pytest.raises(dp.PolicyError) as error:
        find_stacks(under(A, B, d, e), used((d, e)), [(A, B)], None)
    assert "stacks=[['a', 'b']] if" in str(error.value)
    assert "'d'" not in str(error.value)
