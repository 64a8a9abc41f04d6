"""The promises, held by the Keras adapter in training mode; and broken by mutants of it."""

import numpy as np
import pytest
from dropout_policies_keras import masks
from hypothesis import given, settings

import dropout_policies as dp
from tests.support import keras_subject, properties
from tests.support.cases import cases
from tests.support.keras_mutants import LAYER_MUTANTS
from tests.support.mutants import MASK_MUTANTS, mutated_masks

CLOSE = 1e-5


@settings(max_examples=12)
@given(cases(projections=False))
def test_a_layer_equals_the_oracle_in_training(case):
    properties.equals_oracle(keras_subject.run, case, CLOSE)


@settings(max_examples=6)
@given(cases(projections=False))
def test_a_layer_masks_nothing_in_evaluation(case):
    properties.evaluation_is_identity(keras_subject.run, case, CLOSE)


@pytest.mark.parametrize(("layers", "steps", "source"), [(1, 6, 1), (2, 12, 0), (3, 3, 0)])
def test_zaremba_corrupts_information_once_a_layer_and_once_more(layers, steps, source):
    properties.corrupted_once_a_layer(keras_subject.run, layers, steps, source)


def test_naive_corrupts_information_once_more_at_every_step():
    counts, _ = properties.corruptions(keras_subject.run, dp.naive(0.3), 2, 5, 0)
    np.testing.assert_allclose(counts, 3 + np.arange(5), atol=1e-2)


def test_naive_fails_zarembas_property(monkeypatch):
    monkeypatch.setattr(dp, "zaremba", dp.naive)
    with pytest.raises(AssertionError):
        properties.corrupted_once_a_layer(keras_subject.run, 2, 5, 0)


def test_the_unchanged_adapter_keeps_every_promise():
    properties.keeps_every_promise(keras_subject.run, CLOSE)


@pytest.mark.parametrize("name", MASK_MUTANTS)
def test_a_mutant_that_draws_wrong_masks_is_caught(name, monkeypatch):
    monkeypatch.setattr(masks, "draw", mutated_masks(masks.draw, MASK_MUTANTS[name]))
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(keras_subject.run, CLOSE)


@pytest.mark.parametrize("name", LAYER_MUTANTS)
def test_a_mutant_that_runs_wrongly_is_caught(name, monkeypatch):
    LAYER_MUTANTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        properties.keeps_every_promise(keras_subject.run, CLOSE)
