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
    """The losses of three epochs that change nothing."""
    target = np.zeros((B, model.output_shape[-1]), "float32")
    return model.fit(x(), target, epochs=3, shuffle=False, verbose=0).history["loss"]


def is_noisy(model):
    return len(set(np.round(fit(model), 6))) == 3


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


OTHERS = [part_of, around, in_a_row, in_code]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("on", ["model", "other", "layer"])
def test_a_policy_reaches_every_model_that_runs_its_layers(other, on):
    model = trained()
    second = other(model)
    stranger = trained()
    traced = stranger.train_function
    chosen = {"model": model, "other": second, "layer": model.get_layer("low")}[on]
    applied = dp.apply(chosen, "zaremba", 0.5)
    third = part_of(model)
    assert is_noisy(model)
    assert is_noisy(second)
    assert is_noisy(third)
    applied.remove()
    assert not is_noisy(model)
    assert not is_noisy(second)
    assert not is_noisy(third)
    dp.apply(chosen, "zaremba", 0.5)
    assert is_noisy(second)
    dp.remove(chosen)
    assert not is_noisy(second)
    assert not is_noisy(model)
    assert stranger.train_function is traced, "another model is left alone"


@pytest.mark.parametrize("other", OTHERS)
def test_samples_end_in_every_model(other):
    model = trained()
    second = other(model)
    dp.apply(model, "zaremba", 0.5)

    def predict(each):
        return each.predict(x(), verbose=0)

    before = [predict(each) for each in (model, second)]
    for sampled in (model, second):
        with dp.monte_carlo(sampled, seed=1):
            for each in (model, second):
                assert not np.array_equal(predict(each), predict(each))
        for each, expected in zip((model, second), before, strict=True):
            np.testing.assert_array_equal(predict(each), expected)
