"""The plan: which masks a call needs, and their shapes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.placement.plans import (
    Geometry,
    Placement,
    PlannedMask,
    Slot,
    check_sites,
    masked_connections,
    plan_at_call,
    plan_embedding,
    plan_in_evaluation,
    plan_masks,
)
from dropout_policies.policies import cell_types
from dropout_policies.policies.sites import Site

GEOMETRY = Geometry(3, 4, layers=2, directions=(0, 1), batch=5, steps=7)


def test_zaremba_masks_every_vertical_connection_of_both_directions():
    wanted = {
        slot: mask.shape for slot, mask in plan_masks(Placement(dp.zaremba()), GEOMETRY).items()
    }
    assert wanted == {
        Slot(Site.INPUT, 0, 0): (7, 5, 3),
        Slot(Site.INPUT, 0, 1): (7, 5, 3),
        Slot(Site.BETWEEN, 1, 0): (7, 5, 8),
        Slot(Site.BETWEEN, 1, 1): (7, 5, 8),
        Slot(Site.OUTPUT, 1, 0): (7, 5, 4),
        Slot(Site.OUTPUT, 1, 1): (7, 5, 4),
    }


def test_naive_adds_the_hidden_site_of_every_layer():
    extra = set(plan_masks(Placement(dp.naive()), GEOMETRY)) - set(
        plan_masks(Placement(dp.zaremba()), GEOMETRY)
    )
    assert extra == {Slot(Site.HIDDEN, layer, way) for layer in (0, 1) for way in (0, 1)}


def test_the_masks_of_each_site_have_the_shape_of_what_they_fall_on():
    """One layer of width 4 on input of width 3, projected to 2: B is 5, T is 7."""
    step = dict.fromkeys(("input", "output", "hidden", "state", "cell", "candidate"), dp.drop(0.5))
    updates = dict.fromkeys(("hidden_update", "cell_update"), dp.Rule(0.5, kind="zoneout"))
    weights = dict.fromkeys(("recurrent_weight", "input_weight"), dp.drop(0.5, per="call"))
    policy = dp.Policy(**step, **updates, **weights)
    found = plan_masks(Placement(policy), Geometry(3, 4, batch=5, steps=7, proj_size=2))
    assert {slot.site.value: mask.shape for slot, mask in found.items()} == {
        "input": (7, 5, 3),
        "output": (7, 5, 2),
        "hidden": (7, 5, 2),
        "state": (7, 5, 2),
        "cell": (7, 5, 4),
        "candidate": (7, 5, 4),
        "hidden_update": (7, 5, 2),
        "cell_update": (7, 5, 4),
        "recurrent_weight": (1, 16, 2),
        "input_weight": (1, 16, 3),
    }
    shared = {slot.site.value for slot, mask in found.items() if not mask.by_sample}
    assert shared == {"recurrent_weight", "input_weight"}


@pytest.mark.parametrize(
    ("cell", "gates"), [(cell_types.LSTM, 4), (cell_types.GRU, 3), (cell_types.RNN, 1)]
)
def test_untied_gates_have_a_mask_each(cell, gates):
    found = plan_masks(
        Placement(dp.variational(gates="untied")), Geometry(3, 4, 2, batch=5, steps=7, cell=cell)
    )
    assert {slot[:2]: mask.shape for slot, mask in found.items()} == {
        (Site.INPUT, 0): (1, 5, gates * 3),
        (Site.BETWEEN, 1): (1, 5, gates * 4),
        (Site.OUTPUT, 1): (1, 5, 4),
        (Site.HIDDEN, 0): (1, 5, gates * 4),
        (Site.HIDDEN, 1): (1, 5, gates * 4),
    }


def test_rates_by_layer_reach_their_layer_wherever_the_stack_is_cut():
    policy = dp.Policy(input=dp.drop([0.1, 0.2, 0.3]), between=dp.drop([0.1, 0.2, 0.3]))
    whole = plan_masks(Placement(policy), Geometry(4, 4, layers=3))
    assert [mask.rate for mask in whole.values()] == [0.1, 0.2, 0.3]
    later = Placement(policy, layer=9, first=False, depth=1)
    assert [mask.rate for mask in plan_masks(later, Geometry(4, 4, layers=2)).values()] == [
        0.2,
        0.3,
    ]
    whole = Placement(dp.Policy(between=dp.drop([0.5, 0.0, 0.5])), layer=9, first=False, depth=1)
    assert list(plan_masks(whole, Geometry(4, 4, layers=2))) == [Slot(Site.BETWEEN, 10, 0)]
    later.check_rates(2, "top")
    for layers in (1, 3):
        with pytest.raises(dp.PolicyError, match="top: policy 'custom' has rates for 3 layers"):
            later.check_rates(layers, "top")
    with pytest.raises(dp.PolicyError, match="a layer number 4"):
        plan_masks(later, Geometry(4, 4, layers=3))


@pytest.mark.parametrize(("per", "shape"), [("sequence", (1, 5, 9)), ("call", (1, 1, 9))])
def test_an_embedding_has_a_bit_for_each_word_type(per, shape):
    policy = dp.Policy(embedding=dp.drop(0.5, per=per))
    ((slot, mask),) = plan_embedding(policy, 2, 9, 5).items()
    assert (slot, mask.shape) == (Slot(Site.EMBEDDING, 2, 0), shape)
    assert mask.by_sample == (per == "sequence")
    assert plan_embedding(dp.zaremba(), 2, 9, 5) == {}
    assert plan_masks(Placement(policy), GEOMETRY) == {}


@pytest.mark.parametrize(
    "made", [GEOMETRY, Placement(dp.zaremba()), PlannedMask(dp.drop(0.5), 0.5, (1, 1, 1))]
)
def test_what_is_planned_never_changes(made):
    field = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, 3)
    assert not hasattr(made, "__dict__"), "there are as many as there are masks"


def test_a_mask_has_a_row_for_each_sample_unless_it_is_said():
    assert PlannedMask(dp.drop(0.5), 0.5, (1, 1, 1)).by_sample


def test_what_has_a_part_in_evaluation():
    policy = dp.zaremba() | dp.zoneout() | dp.rnndrop()
    kept = {slot.site for slot in plan_in_evaluation(plan_masks(Placement(policy), GEOMETRY))}
    assert kept == {Site.HIDDEN_UPDATE, Site.CELL_UPDATE, Site.CELL}


def test_a_rule_per_sequence_plans_one_step():
    policy = dp.Policy(input=dp.drop(0.5, per="sequence"), output=dp.drop(0.5))
    shapes = {
        slot.site: mask.shape for slot, mask in plan_masks(Placement(policy), GEOMETRY).items()
    }
    assert shapes == {Site.INPUT: (1, 5, 3), Site.OUTPUT: (7, 5, 4)}


def test_every_mask_has_the_rule_of_its_own_site():
    policy = dp.Policy(
        input=dp.drop(0.1), between=dp.drop(0.2), output=dp.drop(0.3), hidden=dp.drop(0.4)
    )
    for slot, mask in plan_masks(Placement(policy), GEOMETRY).items():
        assert mask.rule is policy[slot.site]


def test_rate_zero_needs_no_mask():
    assert plan_masks(Placement(dp.zaremba(0.0)), GEOMETRY) == {}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_stack_of_objects_has_l_plus_one_masks_whatever_its_split(parts):
    total, number, slots = sum(parts), 0, []
    for index, layers in enumerate(parts):
        placement = Placement(dp.zaremba(), number, index == 0, index == len(parts) - 1)
        slots += plan_masks(placement, Geometry(4, 4, layers=layers))
        assert masked_connections(placement, layers) == len(
            plan_masks(placement, Geometry(4, 4, layers))
        )
        number += layers
    assert slots == list(plan_masks(Placement(dp.zaremba()), Geometry(4, 4, layers=total)))
    assert len(slots) == total + 1


def test_a_site_that_a_layer_cannot_have_is_refused():
    with pytest.raises(dp.PolicyError, match=r"GRU has no site 'cell'.*It has: input.*'cell': 0"):
        check_sites(dp.rnndrop() | dp.locked(), "GRU", cell_types.GRU.sites)
    check_sites(dp.rnndrop(0.0), "GRU", cell_types.GRU.sites)
    check_sites(dp.variational(), "GRU", cell_types.GRU.sites)  # embeddings are layers of their own
    with pytest.raises(dp.PolicyError, match=r"cannot be masked inside.*untied"):
        check_sites(
            dp.variational(gates="untied"), "Own", cell_types.CUSTOM.sites, untied_allowed=False
        )


def test_one_layer_of_one_sample_and_step_is_what_a_geometry_and_a_placement_are_at_first():
    found = plan_masks(Placement(dp.naive(0.5)), Geometry(3, 4))
    assert {slot: (mask.shape, mask.rate, mask.by_sample) for slot, mask in found.items()} == {
        Slot(Site.INPUT, 0, 0): ((1, 1, 3), 0.5, True),
        Slot(Site.OUTPUT, 0, 0): ((1, 1, 4), 0.5, True),
        Slot(Site.HIDDEN, 0, 0): ((1, 1, 4), 0.5, True),
    }
    assert Geometry(3, 4).cell is cell_types.LSTM


@pytest.mark.parametrize(
    ("first", "last", "into", "out"),
    [
        (True, True, "input", "output"),
        (True, False, "input", None),
        (False, True, "between", "output"),
        (False, False, "between", None),
    ],
)
def test_what_comes_in_is_masked_at_the_door_and_what_leaves_where_the_stack_ends(
    first, last, into, out
):
    for site in ("input", "between", "output"):
        placement = Placement(dp.Policy(**{site: dp.drop(0.5)}), first=first, last=last)
        for layers in (1, 2):
            assert placement.masks_input(layers) == (site == into)
            assert placement.masks_output(layers) == (site == out)


def test_what_leaves_is_masked_at_the_rate_of_the_last_layer():
    policy = dp.Policy(output=dp.drop([0.5, 0.0]), input=dp.drop([0.0, 0.5]))
    assert not Placement(policy).masks_output(2)
    assert not Placement(policy).masks_input(2)
    other = dp.Policy(output=dp.drop([0.0, 0.5]), input=dp.drop([0.5, 0.0]))
    assert Placement(other).masks_output(2)
    assert Placement(other).masks_input(2)


def test_rates_by_layer_are_as_many_as_the_stack_has_layers():
    policy = dp.zaremba([0.1, 0.2, 0.3])
    for placement, layers in (
        (Placement(policy), 3),
        (Placement(policy, last=False), 1),
        (Placement(policy, last=False), 3),
        (Placement(policy, first=False, depth=2), 1),
        (Placement(dp.zaremba()), 9),
    ):
        placement.check_rates(layers, "rnn")
    for placement, layers, has in (
        (Placement(policy), 2, "2"),
        (Placement(policy), 4, "4"),
        (Placement(policy, last=False), 4, "at least 4"),
        (Placement(policy, first=False, last=False, depth=2), 2, "at least 4"),
    ):
        with pytest.raises(dp.PolicyError, match=f"at site 'input', and the stack has {has}. Rec"):
            placement.check_rates(layers, "rnn")


def test_a_schedule_is_a_number_at_a_call():
    policy = dp.Policy(input=dp.drop(dp.schedule({0: 0.1, 3: 0.5})), output=dp.drop(0.25))
    wanted = plan_masks(Placement(policy), GEOMETRY)
    for call, rate in ((0, 0.1), (2, 0.1), (3, 0.5)):
        found = plan_at_call(wanted, call)
        assert {slot: mask.rate for slot, mask in found.items()} == {
            slot: rate if slot.site is Site.INPUT else 0.25 for slot in wanted
        }
        assert {s: m.shape for s, m in found.items()} == {s: m.shape for s, m in wanted.items()}


def test_a_cell_of_ones_own_has_no_masks_on_weights():
    policy = dp.Policy(
        hidden=dp.drop(0.5), cell=dp.drop(0.5), recurrent_weight=dp.drop(0.5, per="call")
    )
    found = plan_masks(Placement(policy), Geometry(3, 4, cell=cell_types.CUSTOM))
    assert list(found) == [Slot(Site.HIDDEN, 0, 0)]


def test_every_site_that_a_layer_lacks_is_named_with_the_ways_out():
    policy = dp.rnndrop() | dp.zoneout()
    with pytest.raises(
        dp.PolicyError,
        match=r"^rnn \(GRU\) has no site 'cell', 'cell_update' for policy 'rnndrop\|zoneout'\. "
        r"It has: input, between, .*Leave the others out.*rate=\{'cell': 0, 'cell_update': 0\}\.$",
    ):
        check_sites(policy, "rnn (GRU)", cell_types.GRU.sites)
    with pytest.raises(dp.PolicyError, match=r"input_weight\. Do this\.$"):
        check_sites(policy, "rnn", cell_types.GRU.sites, "Do this.")
    check_sites(
        dp.variational(0.0, 0.0, gates="untied"),
        "own",
        cell_types.CUSTOM.sites,
        untied_allowed=False,
    )
    check_sites(dp.variational(gates="untied"), "LSTM", cell_types.LSTM.sites)


def test_the_kinds_of_layers_are_what_the_documentation_says():
    """Gates, states, and the sites of each beside those that all have."""
    every = {"input", "between", "output", "hidden", "state", "hidden_update"}
    weights = {"recurrent_weight", "input_weight"}
    kinds = {
        cell_types.LSTM: ("LSTM", 4, 2, every | weights | {"cell", "candidate", "cell_update"}),
        cell_types.GRU: ("GRU", 3, 1, every | weights | {"candidate"}),
        cell_types.RNN: ("RNN", 1, 1, every | weights),
        cell_types.CUSTOM: ("own cell", 0, 1, every),
    }
    for kind, (name, gates, states, sites) in kinds.items():
        assert (kind.name, kind.gates, kind.states) == (name, gates, states)
        assert {site.value for site in kind.sites} == sites
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind.gates = 5
        assert not hasattr(kind, "__dict__")
