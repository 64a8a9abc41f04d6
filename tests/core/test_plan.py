"""The plan: which masks a call needs, and their shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies import cells
from dropout_policies.plan import (
    Geometry,
    Placement,
    Slot,
    check_sites,
    in_evaluation,
    masked_connections,
    plan,
    plan_embedding,
)
from dropout_policies.sites import Site

GEOMETRY = Geometry(3, 4, layers=2, directions=(0, 1), batch=5, steps=7)


def test_zaremba_masks_every_vertical_connection_of_both_directions():
    wanted = {slot: mask.shape for slot, mask in plan(Placement(dp.zaremba()), GEOMETRY).items()}
    assert wanted == {
        Slot(Site.INPUT, 0, 0): (7, 5, 3),
        Slot(Site.INPUT, 0, 1): (7, 5, 3),
        Slot(Site.BETWEEN, 1, 0): (7, 5, 8),
        Slot(Site.BETWEEN, 1, 1): (7, 5, 8),
        Slot(Site.OUTPUT, 1, 0): (7, 5, 4),
        Slot(Site.OUTPUT, 1, 1): (7, 5, 4),
    }


def test_naive_adds_the_hidden_site_of_every_layer():
    extra = set(plan(Placement(dp.naive()), GEOMETRY)) - set(
        plan(Placement(dp.zaremba()), GEOMETRY)
    )
    assert extra == {Slot(Site.HIDDEN, layer, way) for layer in (0, 1) for way in (0, 1)}


def test_the_masks_of_each_site_have_the_shape_of_what_they_fall_on():
    """One layer of width 4 on input of width 3, projected to 2: B is 5, T is 7."""
    step = dict.fromkeys(("input", "output", "hidden", "state", "cell", "candidate"), dp.drop(0.5))
    updates = dict.fromkeys(("hidden_update", "cell_update"), dp.Rule(0.5, kind="zoneout"))
    weights = dict.fromkeys(("recurrent_weight", "input_weight"), dp.drop(0.5, per="call"))
    policy = dp.Policy(**step, **updates, **weights)
    found = plan(Placement(policy), Geometry(3, 4, batch=5, steps=7, proj_size=2))
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


@pytest.mark.parametrize(("cell", "gates"), [(cells.LSTM, 4), (cells.GRU, 3), (cells.RNN, 1)])
def test_untied_gates_have_a_mask_each(cell, gates):
    found = plan(
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
    whole = plan(Placement(policy), Geometry(4, 4, layers=3))
    assert [mask.rate for mask in whole.values()] == [0.1, 0.2, 0.3]
    later = Placement(policy, layer=9, first=False, depth=1)
    assert [mask.rate for mask in plan(later, Geometry(4, 4, layers=2)).values()] == [0.2, 0.3]
    later.check_rates(2, "top")
    for layers in (1, 3):
        with pytest.raises(dp.PolicyError, match="top: policy 'custom' has rates for 3 layers"):
            later.check_rates(layers, "top")
    with pytest.raises(dp.PolicyError, match="a layer number 4"):
        plan(later, Geometry(4, 4, layers=3))


@pytest.mark.parametrize(("per", "shape"), [("sequence", (1, 5, 9)), ("call", (1, 1, 9))])
def test_an_embedding_has_a_bit_for_each_word_type(per, shape):
    policy = dp.Policy(embedding=dp.drop(0.5, per=per))
    ((slot, mask),) = plan_embedding(policy, 2, 9, 5).items()
    assert (slot, mask.shape) == (Slot(Site.EMBEDDING, 2, 0), shape)
    assert mask.by_sample == (per == "sequence")
    assert plan_embedding(dp.zaremba(), 2, 9, 5) == {}
    assert plan(Placement(policy), GEOMETRY) == {}


def test_what_has_a_part_in_evaluation():
    policy = dp.zaremba() | dp.zoneout() | dp.rnndrop()
    kept = {slot.site for slot in in_evaluation(plan(Placement(policy), GEOMETRY))}
    assert kept == {Site.HIDDEN_UPDATE, Site.CELL_UPDATE, Site.CELL}


def test_a_rule_per_sequence_plans_one_step():
    policy = dp.Policy(input=dp.drop(0.5, per="sequence"), output=dp.drop(0.5))
    shapes = {slot.site: mask.shape for slot, mask in plan(Placement(policy), GEOMETRY).items()}
    assert shapes == {Site.INPUT: (1, 5, 3), Site.OUTPUT: (7, 5, 4)}


def test_every_mask_has_the_rule_of_its_own_site():
    policy = dp.Policy(
        input=dp.drop(0.1), between=dp.drop(0.2), output=dp.drop(0.3), hidden=dp.drop(0.4)
    )
    for slot, mask in plan(Placement(policy), GEOMETRY).items():
        assert mask.rule is policy[slot.site]


def test_rate_zero_needs_no_mask():
    assert plan(Placement(dp.zaremba(0.0)), GEOMETRY) == {}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_stack_of_objects_has_l_plus_one_masks_whatever_its_split(parts):
    total, number, slots = sum(parts), 0, []
    for index, layers in enumerate(parts):
        placement = Placement(dp.zaremba(), number, index == 0, index == len(parts) - 1)
        slots += plan(placement, Geometry(4, 4, layers=layers))
        assert masked_connections(placement, layers) == len(plan(placement, Geometry(4, 4, layers)))
        number += layers
    assert slots == list(plan(Placement(dp.zaremba()), Geometry(4, 4, layers=total)))
    assert len(slots) == total + 1


def test_a_site_that_a_layer_cannot_have_is_refused():
    with pytest.raises(dp.PolicyError, match=r"GRU has no site 'cell'.*It has: input.*'cell': 0"):
        check_sites(dp.rnndrop() | dp.locked(), "GRU", cells.GRU.sites)
    check_sites(dp.rnndrop(0.0), "GRU", cells.GRU.sites)
    check_sites(dp.variational(), "GRU", cells.GRU.sites)  # embeddings are layers of their own
    with pytest.raises(dp.PolicyError, match=r"not seen into.*untied"):
        check_sites(dp.variational(gates="untied"), "Own", cells.OWN.sites, gates=False)
