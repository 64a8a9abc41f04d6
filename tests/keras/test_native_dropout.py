"""A layer's own dropout, set while the layer is under a policy."""

import pickle

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, SimpleRNN
from dropout_policies_keras.layer_cells import cells_of
from keras import layers, ops

import dropout_policies as dp
from tests.support.keras_subject import directions_of

B, T, D = 3, 4, 5
NAMES = ("dropout", "recurrent_dropout")
STOCK = {
    "LSTM": lambda **rates: layers.LSTM(D, **rates),
    "GRU": lambda **rates: layers.GRU(D, **rates),
    "GRU before": lambda **rates: layers.GRU(D, reset_after=False, **rates),
    "SimpleRNN": lambda **rates: layers.SimpleRNN(D, **rates),
    "cell": lambda **rates: layers.RNN(layers.LSTMCell(D, **rates)),
    "cells": lambda **rates: layers.RNN([layers.GRUCell(D), layers.SimpleRNNCell(D, **rates)]),
    "both directions": lambda **rates: layers.Bidirectional(layers.LSTM(D, **rates)),
}
POLICIES = {
    "none": ("none", {}),
    "rate 0": ("zaremba", {"rate": 0.0}),
    "zaremba": ("zaremba", {"rate": 0.4}),
    "hidden": ("variational", {"rate": 0.4}),
}
OURS = {
    "LSTM": lambda **policy: LSTM(D, name="rnn", **policy),
    "GRU": lambda **policy: GRU(D, name="rnn", **policy),
    "SimpleRNN": lambda **policy: SimpleRNN(D, name="rnn", **policy),
    "cells": lambda **policy: RNN([layers.LSTMCell(D), layers.GRUCell(D)], name="rnn", **policy),
}


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def model(kind, **rates):
    some = keras.Sequential([keras.Input((T, D)), STOCK[kind](**rates)])
    return some, [cell for half in directions_of(some.layers[-1]) for cell in cells_of(half)]


def applied(kind, policy, **rates):
    name, how = POLICIES[policy]
    some, cells = model(kind, **rates)
    return some, cells, dp.apply(some, name, seed=3, **how)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", STOCK)
def test_setting_it_is_an_error_that_names_rate(kind, policy):
    some, cells, _ = applied(kind, policy)
    same, _, _ = applied(kind, policy)
    same.set_weights(some.get_weights())
    for cell in cells:
        for name in NAMES:
            message = rf"cell.{name} cannot be set .*Received: cell.{name}=0.3, .*rate=0.3"
            with pytest.raises(dp.PolicyError, match=message):
                setattr(cell, name, 0.3)
            setattr(cell, name, 0.0)
            assert getattr(cell, name) == 0.0
    for _ in range(2):
        np.testing.assert_array_equal(*(numpy(each(x(), training=True)) for each in (some, same)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_so_it_is_where_a_loop_sets_it_on_layers(kind):
    some, _, _ = applied(kind, "zaremba")
    (layer,) = some.layers
    for name in NAMES:
        message = rf"{layer.name}: {name} cannot be set .*policy='zaremba'.*rate=0.2"
        with pytest.raises(dp.PolicyError, match=message):
            setattr(layer, name, 0.2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", OURS)
def test_so_it_is_on_layers_that_are_made_with_a_policy(kind, policy):
    name, how = POLICIES[policy]
    layer = OURS[kind](policy=name, **how)
    for cell in cells_of(layer):
        for native in NAMES:
            with pytest.raises(dp.PolicyError, match=f"rnn: cell.{native} cannot be set"):
                setattr(cell, native, 0.3)
    if kind != "cells":
        with pytest.raises(dp.PolicyError, match="rnn: dropout cannot be set"):
            layer.dropout = 0.3


@pytest.mark.parametrize("policy", ["none", "rate 0"])
@pytest.mark.parametrize("kind", STOCK)
def test_past_every_check_it_does_nothing(kind, policy):
    some, cells, removable = applied(kind, policy)
    expected = numpy(some(x()))
    for cell in cells:
        vars(cell).update(dict.fromkeys(NAMES, 0.5))
    np.testing.assert_array_equal(numpy(some(x(), training=True)), expected)
    removable.remove()


@pytest.mark.parametrize("kind", STOCK)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_set_before_comes_back_and_can_be_set_again(kind, policy):
    some, cells, removable = applied(kind, policy, dropout=0.2, recurrent_dropout=0.1)
    _, its_cells = model(kind, dropout=0.2, recurrent_dropout=0.1)
    before = [(type(c), c.dropout, c.recurrent_dropout, set(vars(c))) for c in its_cells]
    removable.remove()
    assert [(type(c), c.dropout, c.recurrent_dropout, set(vars(c))) for c in cells] == before
    for cell in (*cells, *its_cells):
        cell.dropout, cell.recurrent_dropout = 0.4, 0.3
    assert all(cell.dropout == 0.4 for cell in cells)
    assert not np.array_equal(numpy(some(x(), training=True)), numpy(some(x())))


def test_a_cell_that_two_layers_share_is_put_back_with_the_last():
    cell = layers.LSTMCell(D, dropout=0.2)
    start = keras.Input((T, D))
    some = keras.Model(start, [layers.RNN(cell)(start), layers.RNN(cell)(start)])
    with dp.apply(some, "zaremba"), pytest.raises(dp.PolicyError, match="cannot be set"):
        cell.dropout = 0.3
    assert type(cell) is layers.LSTMCell
    assert cell.dropout == 0.2


@pytest.mark.parametrize("kind", STOCK)
def test_a_copy_is_under_the_policy_and_its_cells_are_keras_own_once_described(kind, tmp_path):
    some, cells, _ = applied(kind, "hidden")
    some.save(tmp_path / "model.keras")
    copies = [
        keras.models.clone_model(some),
        keras.saving.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(some)),
    ]
    expected = numpy(some(x(), training=True))
    for copy in copies:
        copy.set_weights(some.get_weights())
        np.testing.assert_array_equal(numpy(copy(x(), training=True)), expected)
        for half in directions_of(copy.layers[-1]):
            for cell in cells_of(half):
                with pytest.raises(dp.PolicyError, match="cannot be set"):
                    cell.recurrent_dropout = 0.3
    for cell in cells:
        described = keras.saving.serialize_keras_object(cell)
        for made in (
            keras.saving.deserialize_keras_object(described),
            type(cell).from_config(cell.get_config()),
        ):
            assert type(made).__module__.startswith("keras.")
            made.dropout = 0.3
            assert made.dropout == 0.3
