"""The audit of Keras layers and models is right, and it changes nothing."""

import random

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM
from keras import layers, ops

import dropout_policies as dp
from tests.support.audited import find_errors
from tests.support.keras_audited import cases, model

EVERYWHERE = {
    "keras.layers.LSTM",
    "LSTM: zaremba",
    "GRU: zoneout",
    "keras.layers.SimpleRNN, dropout and recurrent_dropout",
    "model with Dropout layers",
}
"""What is audited on every backend: our layers and stock ones, masks and zoneout. The rest takes
minutes where each module is compiled, and the audit draws the same conclusions from the numbers."""

CASES = [
    pytest.param(
        case, id=case.name, marks=() if case.name in EVERYWHERE else pytest.mark.any_backend
    )
    for case in cases()
]


def test_the_layers_for_every_backend_are_there():
    assert {case.name for case in cases()} >= EVERYWHERE


@pytest.mark.parametrize("case", CASES)
def test_no_verdict_is_false(case):
    keras.utils.set_random_seed(3)
    audit = dp.audit(case.make())
    assert find_errors(case, audit) == [], str(audit)


@pytest.mark.parametrize("seed", [None, 4])
def test_nothing_is_left_changed(seed):
    keras.utils.set_random_seed(1)
    layer = LSTM(8, policy="zaremba", seed=seed, stateful=True)
    layer.build((2, None, 9))
    layer(np.ones((2, 4, 9), np.float32), training=True)
    before = [ops.convert_to_numpy(v.value).copy() for v in layer.variables]
    settings = layer.get_config()
    numbers, python = np.random.get_state()[1].copy(), random.getstate()
    dp.audit(layer)
    after = [ops.convert_to_numpy(v.value) for v in layer.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert layer.get_config() == settings
    assert np.array_equal(np.random.get_state()[1], numbers)
    assert random.getstate() == python


def test_a_compiled_model_trains_on_after_an_audit():
    """Its losses are bit for bit those of a model that was not audited."""
    losses = []
    for audited in (False, True):
        keras.utils.set_random_seed(2)
        model = keras.Sequential(
            [
                keras.Input((None, 9)),
                LSTM(8, return_sequences=True, policy="zaremba", rate=0.3, seed=5),
                layers.Dense(3),
            ]
        )
        model.compile("sgd", "mse")
        x, y = np.ones((2, 5, 9), np.float32), np.ones((2, 5, 3), np.float32)
        first = model.train_on_batch(x, y)
        if audited:
            dp.audit(model)
        losses.append((first, *(model.train_on_batch(x, y) for _ in range(2))))
    assert losses[0] == losses[1]


def test_a_softmax_activation_is_left_out_and_put_back():
    keras.utils.set_random_seed(3)
    probable = model(0.4, "softmax")
    tokens = np.arange(40).reshape(2, 20) % 30
    before = probable.predict(tokens, verbose=0)
    audit = dp.audit(probable)
    assert audit.policy == "zaremba"
    assert audit.undecided == ()
    assert probable.layers[-1].activation is keras.activations.softmax
    assert np.array_equal(probable.predict(tokens, verbose=0), before)


def test_the_decoder_may_be_the_embeddings_matrix():
    class Tied(layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding, self.dropout = layers.Embedding(30, 9), layers.Dropout(0.4)
            self.lstm = layers.LSTM(9, return_sequences=True)

        def build(self, shape):
            self.embedding.build(shape)
            self.lstm.build((*shape, 9))

        def call(self, tokens, training=False):
            y = self.lstm(self.embedding(tokens))
            y = self.dropout(y, training=training)
            return ops.matmul(y, ops.transpose(self.embedding.embeddings))

    keras.utils.set_random_seed(3)
    layer = Tied()
    layer.build((None, None))
    audit = dp.audit(layer)
    assert audit.differences == ("input is whole",)
    assert audit.undecided == ()


def test_a_layer_that_is_not_built_is_refused():
    with pytest.raises(dp.PolicyError, match="is not built"):
        dp.audit(layers.LSTM(8, dropout=0.5))
