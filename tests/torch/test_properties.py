"""The promises, held by the PyTorch adapter in training mode; and broken by mutants of it."""

import numpy as np
import pytest
import torch
from hypothesis import given

import dropout_policies as dp
from tests.support import properties, torch_subject
from tests.support.cases import cases, numbers
from tests.support.mutants import MASK_MUTANTS, mutated_masks
from tests.support.torch_mutants import LAYER_MUTANTS

EXACT = 1e-10


@given(cases())
def test_a_layer_equals_the_oracle_in_training(case):
    properties.equals_oracle(torch_subject.run, case, EXACT)


@given(cases())
def test_a_layer_masks_nothing_in_evaluation(case):
    properties.evaluation_is_identity(torch_subject.run, case, EXACT)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("steps", "source"), [(2, 0), (6, 1), (25, 0)])
def test_zaremba_corrupts_information_once_a_layer_and_once_more(layers, steps, source):
    properties.corrupted_once_a_layer(torch_subject.run, layers, steps, source)


@pytest.mark.parametrize("layers", [1, 2])
def test_naive_corrupts_information_once_more_at_every_step(layers):
    counts, _ = properties.corruptions(torch_subject.run, dp.naive(0.3), layers, 5, 0)
    np.testing.assert_allclose(counts, layers + 1 + np.arange(5), atol=1e-2)


def test_naive_fails_zarembas_property(monkeypatch):
    monkeypatch.setattr(dp, "zaremba", dp.naive)
    with pytest.raises(AssertionError):
        properties.corrupted_once_a_layer(torch_subject.run, 2, 5, 0)


@given(cases())
def test_gradients_are_those_of_the_layers_own_function(case):
    """gradcheck in float64, on input, state and weights, with the call's masks held."""
    given_numbers = numbers(case)
    layer = torch_subject.build(case, given_numbers)
    x = torch.from_numpy(given_numbers.x).requires_grad_()
    parameters = list(layer.parameters())

    def function(x, *_):
        layer.calls = case.call
        y, (h, c) = layer(torch_subject.pack(x, case))
        return torch_subject.unpack(y), h, c

    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


def test_the_unchanged_adapter_keeps_every_promise():
    properties.keeps_every_promise(torch_subject.run, EXACT)


@pytest.mark.parametrize("name", MASK_MUTANTS)
def test_a_mutant_that_draws_wrong_masks_is_caught(name, monkeypatch):
    from dropout_policies_torch import masks

    monkeypatch.setattr(masks, "draw", mutated_masks(masks.draw, MASK_MUTANTS[name]))
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(torch_subject.run, EXACT)


@pytest.mark.parametrize("name", LAYER_MUTANTS)
def test_a_mutant_that_runs_wrongly_is_caught(name, monkeypatch):
    LAYER_MUTANTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(torch_subject.run, EXACT)
