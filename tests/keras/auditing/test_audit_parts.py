"""The audit of a whole Keras model by its recurrent layers, each where it stands."""

import keras
import numpy as np
import pytest
from keras import layers

import dropout_policies as dp

pytestmark = pytest.mark.any_backend

X = np.random.default_rng(0).standard_normal((3, 7, 12)).astype("float32")


def masked(audit):
    """By layer, where masks were found: the site and layer, and the rate."""
    return {
        name: [
            (f"{f.site.value} {f.layer + 1}", round(f.rate, 1))
            for f in part.findings
            if f.verdict == "masked"
        ]
        for name, part in audit.parts.items()
    }


def functional():
    """A front end, two recurrent layers, the last without sequences, and dropout around them."""
    start = keras.Input((7, 12))
    x = layers.Conv1D(16, 3, padding="same")(start)
    x = layers.Dropout(0.3, name="front")(x)
    x = layers.LSTM(20, return_sequences=True, name="low")(x)
    x = layers.TimeDistributed(layers.Dropout(0.2), name="between")(x)
    x = layers.GRU(16, name="high")(x)
    x = layers.Dropout(0.4, name="top")(x)
    return keras.Model(start, layers.Dense(2)(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.drop = layers.Dense(16), layers.Dropout(0.4)
        self.rnn = layers.Bidirectional(layers.LSTM(12, return_sequences=True), name="rnn")
        self.head = layers.Dense(2)

    def call(self, x, training=False):
        x = self.drop(self.dense(x), training=training)
        return self.head(self.rnn(x, training=training))


def test_every_layer_is_audited_with_the_dropout_around_it():
    keras.utils.set_random_seed(0)
    audit = dp.audit(functional(), example=X)
    assert masked(audit) == {
        "low": [("input 1", 0.3)],
        "high": [("input 1", 0.2), ("output 1", 0.4)],
    }
    assert audit.parts["high"].policy == "zaremba"
    assert audit.links == (("low", "high"),)
    assert audit.doubled == ()


def test_a_model_with_a_call_of_its_own_is_run_on_the_example():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(X)
    weights = [np.array(w) for w in model.get_weights()]
    audit = dp.audit(model, example=X)
    part = audit.parts["rnn"]
    assert (part.directions, part.nearest) == (2, "zaremba")
    assert part.at("input").rate == pytest.approx(0.4, abs=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))


def test_a_policy_on_a_model_is_seen_once_on_every_connection():
    keras.utils.set_random_seed(0)
    model = functional()
    dp.apply(model, "zaremba", 0.5)
    audit = dp.audit(model, example=X)
    assert audit.doubled == ()
    found = masked(audit)
    assert [site for sites in found.values() for site, _ in sites] == [
        "input 1",
        "input 1",
        "output 1",
    ]
    assert {rate for sites in found.values() for _, rate in sites} <= {0.4, 0.5, 0.6}
