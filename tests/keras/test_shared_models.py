"""Models that share layers: each of them hears of a policy that comes, goes, or is sampled."""

import keras
import numpy as np
import pytest
from keras import layers

import dropout_policies as dp

B, T, D = 8, 6, 4


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


def compiled(model):
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fit(model)
    return model


def fit(model):
    """The losses of two epochs that change nothing."""
    target = np.zeros((B, model.output_shape[-1]), "float32")
    return model.fit(x(), target, epochs=2, shuffle=False, verbose=0).history["loss"]


def is_noisy(model):
    return len(set(np.round(fit(model), 6))) == 2


def trained():
    start = keras.Input((T, D))
    h = layers.LSTM(5, name="high")(layers.LSTM(5, return_sequences=True, name="low")(start))
    return compiled(keras.Model(start, layers.Dense(2, name="head")(h)))


def part_of(model):
    return compiled(keras.Model(model.input, model.get_layer("high").output))


def around(model):
    start = keras.Input((T, D))
    return compiled(keras.Model(start, layers.Dense(3)(model(start))))


def in_a_row(model):
    return compiled(keras.Sequential([keras.Input((T, D)), *model.layers[1:]]))


class Code(keras.Model):
    output_shape = (None, 2)

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def call(self, inputs, training=False):
        return self.inner(inputs, training=training)


def in_code(model):
    return compiled(Code(model))


@pytest.mark.parametrize(
    ("other", "on"),
    [(part_of, "model"), (around, "other"), (in_a_row, "layer"), (in_code, "model")],
)
def test_a_policy_reaches_every_model_that_runs_its_layers(other, on):
    model = trained()
    second = other(model)
    chosen = {"model": model, "other": second, "layer": model.get_layer("low")}[on]
    applied = dp.apply(chosen, "zaremba", 0.5)
    assert is_noisy(model)
    assert is_noisy(second)
    applied.remove()
    assert not is_noisy(model)
    assert not is_noisy(second)


def test_a_model_that_is_made_later_is_reached_too_and_a_stranger_is_left_alone():
    model, stranger = trained(), trained()
    traced = stranger.train_function
    dp.apply(model.get_layer("high"), "zaremba", 0.5)
    second = part_of(model)
    assert is_noisy(second)
    dp.remove(model)
    assert not is_noisy(second)
    assert stranger.train_function is traced


@pytest.mark.parametrize("other", [part_of, in_code])
def test_samples_end_in_every_model(other):
    model = trained()
    second = other(model)
    dp.apply(model, "zaremba", 0.5)

    def predict(each):
        return each.predict(x(), verbose=0)

    before = [predict(each) for each in (model, second)]
    with dp.monte_carlo(second, seed=1):
        for each in (model, second):
            assert not np.array_equal(predict(each), predict(each))
    for each, expected in zip((model, second), before, strict=True):
        np.testing.assert_array_equal(predict(each), expected)
