"""Each Keras layer under each policy equals the oracle, in training and in evaluation."""

import keras
import pytest

from tests.support import conformance, keras_subject
from tests.support.conformance import Layer

BACKEND = f"keras-{keras.backend.backend()}"

layers, cells, stacked = (keras_subject.subject(form) for form in ("layers", "cells", "stacked"))
ONE_WAY = ((0,), (1,))
"""Forward, or `go_backwards`."""

LAYERS = [
    Layer("keras.layers.LSTM", "lstm", layers, ONE_WAY),
    Layer("keras.layers.GRU", "gru", layers, ONE_WAY),
    Layer("keras.layers.GRU(reset_after=False)", "gru_reset_before", layers, ONE_WAY),
    Layer("keras.layers.SimpleRNN", "rnn_tanh", layers, ONE_WAY),
    Layer("keras.layers.Bidirectional(LSTM)", "lstm", layers, ((0, 1),)),
    Layer("keras.layers.Bidirectional(GRU)", "gru", layers, ((0, 1),)),
    Layer("keras.layers.RNN(StackedRNNCells)", "lstm", stacked, ((0,),)),
    Layer("keras.layers.RNN(own cell)", "own_lstm", cells, ONE_WAY),
]

# Keras computes in float32, and the slope is a sum of all gradients through up to three layers and
# eight steps, under masks of up to 20; outputs and states alone are equal to 1e-5 in most cases.
TOLERANCE = 2e-4

EXAMPLES = 2 if keras.backend.backend() == "jax" else 5
"""JAX compiles every case anew."""


@pytest.mark.parametrize(("layer", "policy"), conformance.pairs(LAYERS))
def test_layer_equals_the_oracle(layer, policy):
    conformance.check(BACKEND, layer, policy, TOLERANCE, EXAMPLES)
