"""Saving and loading: the policy goes with the model, the weights with everyone's."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, SimpleRNN
from keras import ops

import dropout_policies as dp

B, T, H = 3, 4, 5


def x():
    return np.random.default_rng(0).standard_normal((B, T, 2)).astype("float32")


def model(kind=LSTM, **policy):
    # dp.apply and the drop-in layer must save alike.
    return keras.Sequential(
        [
            keras.Input((T, 2)),
            kind(H, return_sequences=True, name="low", **policy),
            kind(H, name="high", **policy),
            keras.layers.Dense(2, name="head"),
        ]
    )


def trained(some):
    return ops.convert_to_numpy(some(x(), training=True))


@pytest.mark.parametrize("seed", [None, 0, 2**32 - 1])
@pytest.mark.parametrize("applied", [False, True])
def test_a_saved_model_comes_back_with_its_policy(tmp_path, seed, applied):
    if applied:
        saved = model(keras.layers.LSTM)
        dp.apply(saved, "naive", rate=0.4, seed=seed)
    else:
        saved = model(policy="naive", rate=0.4, seed=seed)
    path = tmp_path / "model.keras"
    saved.save(path)
    loaded = keras.saving.load_model(path)
    for name in ("low", "high"):
        before, after = saved.get_layer(name), loaded.get_layer(name)
        assert isinstance(after, LSTM)
        assert after.placement == before.placement
        assert after.seed == before.seed == seed
    assert [loaded.get_layer(n).placement.layer for n in ("low", "high")] == [0, 1]
    np.testing.assert_array_equal(saved.predict(x(), verbose=0), loaded.predict(x(), verbose=0))
    if seed is not None:
        np.testing.assert_array_equal(trained(saved), trained(loaded))


def test_bidirectional_comes_back_with_its_policy(tmp_path):
    inner = LSTM(H, policy="zaremba", seed=2, stack=(1, 2))
    saved = keras.Sequential([keras.Input((T, 2)), keras.layers.Bidirectional(inner)])
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(trained(saved), trained(loaded))
    assert loaded.layers[0].backward_layer.placement == inner.placement


def test_weights_files_load_both_ways(tmp_path):
    stock, ours = model(keras.layers.LSTM), model(policy="zaremba")
    path = tmp_path / "m.weights.h5"
    stock.save_weights(path)
    ours.load_weights(path)
    np.testing.assert_array_equal(stock.predict(x(), verbose=0), ours.predict(x(), verbose=0))
    ours.layers[-1].kernel.assign(0 * ours.layers[-1].kernel + 1)
    ours.save_weights(path)
    stock.load_weights(path)
    np.testing.assert_array_equal(stock.predict(x(), verbose=0), ours.predict(x(), verbose=0))


def test_variables_are_named_as_the_stock_layers():
    paths = [[v.path for v in model(kind).variables] for kind in (keras.layers.LSTM, LSTM)]
    names = [[path.split("/", 1)[1] for path in some if "seed" not in path] for some in paths]
    assert names[0] == names[1]


def test_a_clone_has_the_policy_and_masks_of_its_own_count():
    first = model(policy="zaremba", seed=3)
    expected = trained(first)
    clone = keras.models.clone_model(first)
    clone.set_weights(first.get_weights())
    assert clone.get_layer("low").calls == 0
    np.testing.assert_array_equal(trained(clone), expected)


def test_a_layer_without_a_policy_saves_as_a_stock_one_would(tmp_path):
    saved = model(dropout=0.2, seed=4)
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("low").placement is None
    assert loaded.get_layer("low").dropout == 0.2
    assert loaded.get_layer("low").cell.seed == 4


UNUSUAL = {
    "untied": dp.variational(gates="untied"),
    "schedule": dp.naive(dp.schedule({0: 0.1, 3: 0.5})),
    "by layer": dp.variational([0.2, 0.3], (0.1, dp.ramp(0.0, 0.4, 10))),
    "weights": dp.weight_drop(0.3) | dp.Policy(hidden_update=dp.Rule(0.2, kind="zoneout")),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("kind", [LSTM, GRU, SimpleRNN])
def test_unusual_policies_are_saved_and_cloned(tmp_path, name, kind):
    saved = model(kind, policy=UNUSUAL[name], seed=3)
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(saved)
    clone.set_weights(saved.get_weights())
    expected = trained(saved)
    for other in (loaded, clone):
        for layer in ("low", "high"):
            assert type(other.get_layer(layer)) is kind
            assert other.get_layer(layer).placement == saved.get_layer(layer).placement
        np.testing.assert_array_equal(trained(other), expected)
    assert [loaded.get_layer(n).placement.depth for n in ("low", "high")] == [0, 1]
