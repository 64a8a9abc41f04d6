"""The promises, held by the PyTorch adapter in training mode; and broken by mutants of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dropout_policies_torch import masks
from hypothesis import given, settings

import dropout_policies as dp
from dropout_policies.pictures import grid
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from tests.support import properties, torch_subject
from tests.support.cases import cases, numbers, oracle
from tests.support.mutants import DRAW_MUTANTS, MASK_MUTANTS, mutated_masks
from tests.support.torch_mutants import LAYER_MUTANTS, in_values

EXACT = 1e-10
WANTED = plan_masks(Placement(dp.naive(0.4)), Geometry(50, 50, 3, (0, 1), 40, 30))


def unseeded(wanted):
    drawn = masks.draw(wanted, None, 0, 0, torch.device("cpu"), torch.float64)
    return {slot: np.asarray(mask) for slot, mask in drawn.items()}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("steps", "source"), [(2, 0), (6, 1), (25, 0)])
def test_zaremba_corrupts_information_once_a_layer_and_once_more(layers, steps, source):
    properties.corrupted_once_a_layer(torch_subject.run, layers, steps, source)


@pytest.mark.parametrize("layers", [1, 2])
def test_naive_corrupts_information_once_more_at_every_step(layers):
    counts, _ = properties.corruptions(torch_subject.run, dp.naive(0.3), layers, 5, 0)
    np.testing.assert_allclose(counts, layers + 1 + np.arange(5), atol=1e-2)


def test_locked_corrupts_information_once_a_layer_and_once_more():
    properties.corrupted_once_a_layer(torch_subject.run, 2, 6, 1, policy=dp.locked)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", properties.COUNTED)
def test_diagrams_count_the_masks_that_a_signal_passes(name, layers):
    policy = properties.COUNTED[name]
    properties.diagrams_count_what_is_passed(torch_subject.run, policy, layers)


def test_a_diagram_that_forgets_what_falls_in_cells_is_caught(monkeypatch):
    monkeypatch.setattr(grid, "COMPUTED", ())
    policy = properties.COUNTED["everywhere"]
    with pytest.raises(AssertionError):
        properties.diagrams_count_what_is_passed(torch_subject.run, policy, 2)


def test_naive_fails_zarembas_property(monkeypatch):
    monkeypatch.setattr(dp, "zaremba", dp.naive)
    with pytest.raises(AssertionError):
        properties.corrupted_once_a_layer(torch_subject.run, 2, 5, 0)


@settings(max_examples=30)
@given(cases(kinds=tuple(torch_subject.LAYERS)))
def test_gradients_are_those_of_the_layers_own_function(case):
    """gradcheck in float64, on input, state and weights, with the call's masks held.

    The suite compares one slope with the oracle's; this one every single derivative.
    """
    case = replace(case, cell="rnn_tanh") if case.cell == "rnn_relu" else case  # it has a kink
    given_numbers = numbers(case)
    layer = torch_subject.build(case, given_numbers)
    inputs = [given_numbers.x, *(given_numbers.state or ())]
    inputs = [torch.from_numpy(array).requires_grad_() for array in inputs]

    def function(*values):
        layer.calls = case.call
        x, *state = values[: len(inputs)]
        return tuple(torch_subject.call(layer, case, x, tuple(state) or None))

    assert torch.autograd.gradcheck(function, (*inputs, *layer.parameters()), fast_mode=True)


@settings(max_examples=10)
@given(cases(("mixed",), tuple(torch_subject.LAYERS)))
def test_masks_fall_without_gradients_too(case):
    """Training mode is what counts, as in inference with masks under no_grad."""
    given = numbers(case)
    state = given.state and tuple(map(torch.from_numpy, given.state))
    with torch.no_grad():
        y, *_ = torch_subject.call(
            torch_subject.build(case, given), case, torch.from_numpy(given.x), state
        )
    np.testing.assert_allclose(y.numpy(), oracle(case).y, atol=EXACT)


@settings(max_examples=30)
@given(cases(("mixed", "zaremba"), tuple(torch_subject.LAYERS)))
def test_unseeded_masks_are_the_plans_and_fall_where_the_oracle_has_them(case):
    layer = torch_subject.build(case, numbers(case))
    layer.seed = None
    with pytest.MonkeyPatch.context() as patch:
        properties.equals_oracle_under_its_own_masks(
            lambda draw: patch.setattr(masks, "draw", draw(masks.draw)),
            lambda given: torch_subject.outcome(layer, case, given),
            case,
            EXACT,
        )


def test_unseeded_masks_are_drawn_anew_for_everything():
    properties.are_independent(unseeded(WANTED), WANTED)


@pytest.mark.parametrize("name", DRAW_MUTANTS)
def test_a_wrong_unseeded_draw_is_caught(name):
    with pytest.raises(AssertionError):
        properties.are_independent(DRAW_MUTANTS[name](unseeded(WANTED), WANTED), WANTED)


def test_the_unchanged_adapter_keeps_every_promise():
    properties.keeps_every_promise(torch_subject.run, EXACT)


@pytest.mark.parametrize("name", MASK_MUTANTS)
def test_a_mutant_that_draws_wrong_masks_is_caught(name, monkeypatch):
    monkeypatch.setattr(masks, "draw", mutated_masks(in_values(masks.draw), MASK_MUTANTS[name]))
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(torch_subject.run, EXACT)


@pytest.mark.parametrize("name", LAYER_MUTANTS)
def test_a_mutant_that_runs_wrongly_is_caught(name, monkeypatch):
    LAYER_MUTANTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(torch_subject.run, EXACT)
