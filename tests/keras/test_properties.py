"""The promises, held by the Keras adapter in training mode; and broken by mutants of it."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import masks
from hypothesis import given, settings

import dropout_policies as dp
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from tests.support import keras_subject, properties
from tests.support.cases import cases
from tests.support.keras_mutants import CONV_MUTANTS, LAYER_MUTANTS
from tests.support.mutants import DRAW_MUTANTS, MASK_MUTANTS, mutated_masks

CLOSE = 1e-4
"""In float32, under masks that scale by up to 20."""

WANTED = plan_masks(Placement(dp.naive(0.4)), Geometry(50, 50, 3, (0, 1), 40, 30))


@pytest.mark.parametrize(("layers", "steps", "source"), [(1, 6, 1), (2, 12, 0), (3, 3, 0)])
def test_zaremba_corrupts_information_once_a_layer_and_once_more(layers, steps, source):
    properties.corrupted_once_a_layer(keras_subject.run, layers, steps, source)


@settings(max_examples=6)
@given(cases(("mixed", "zaremba"), ("lstm", "gru", "rnn_tanh"), projections=False))
def test_unseeded_masks_are_the_plans_and_fall_where_the_oracle_has_them(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_subject, "SEEDED", False)
        patched = lambda draw: patch.setattr(masks, "draw", draw(masks.draw))  # noqa: E731
        properties.equals_oracle_under_its_own_masks(
            patched, lambda given: keras_subject.run(case, given), case, CLOSE
        )


def unseeded():
    generator = keras.random.SeedGenerator(3)
    drawn = masks.draw(WANTED, generator, masks.BitSource(None), "float32")
    return {slot: keras.ops.convert_to_numpy(mask) for slot, mask in drawn.items()}


def test_unseeded_masks_are_drawn_anew_for_everything():
    properties.are_independent(unseeded(), WANTED)


@pytest.mark.parametrize("name", DRAW_MUTANTS)
def test_a_wrong_unseeded_draw_is_caught(name):
    with pytest.raises(AssertionError):
        properties.are_independent(DRAW_MUTANTS[name](unseeded(), WANTED), WANTED)


def test_naive_corrupts_information_once_more_at_every_step():
    counts, _ = properties.corruptions(keras_subject.run, dp.naive(0.3), 2, 5, 0)
    np.testing.assert_allclose(counts, 3 + np.arange(5), atol=1e-2)


@pytest.mark.parametrize("name", properties.COUNTED)
def test_diagrams_count_the_masks_that_a_signal_passes(name):
    properties.diagrams_count_what_is_passed(keras_subject.run, properties.COUNTED[name], 2)


def test_locked_corrupts_information_once_a_layer_and_once_more():
    properties.corrupted_once_a_layer(keras_subject.run, 2, 6, 1, policy=dp.locked)


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


def test_the_unchanged_convolutional_layers_keep_every_promise():
    properties.convolutions_keep_every_promise(keras_subject.run, CLOSE)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", CONV_MUTANTS)
def test_a_mutant_of_the_convolutional_cells_is_caught(name, monkeypatch):
    CONV_MUTANTS[name](monkeypatch)
    with pytest.raises(AssertionError):
        properties.convolutions_keep_every_promise(keras_subject.run, CLOSE)
