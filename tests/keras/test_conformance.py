"""Each Keras layer under each policy equals the oracle, in training and in evaluation."""

import keras
import pytest

from tests.support import conformance, keras_subject
from tests.support.conformance import Layer

BACKEND = f"keras-{keras.backend.backend()}"
JAX, TENSORFLOW = (keras.backend.backend() == name for name in ("jax", "tensorflow"))

layers, cells, stacked, steps = map(keras_subject.subject, ("layers", "cells", "stacked", "steps"))
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
    Layer("keras.layers.RNN(custom cell)", "own_lstm", cells, ONE_WAY),
    Layer("keras.layers.LSTMCell", "lstm", steps, ((0,),), by_step=True),
    Layer("keras.layers.GRUCell", "gru", steps, ((0,),), by_step=True),
    Layer(
        "keras.layers.GRUCell(reset_after=False)",
        "gru_reset_before",
        steps,
        ((0,),),
        by_step=True,
    ),
    Layer("keras.layers.SimpleRNNCell", "rnn_tanh", steps, ((0,),), by_step=True),
    *(
        Layer(
            f"keras.layers.ConvLSTM{axes}D",
            "conv_lstm",
            layers,
            ONE_WAY,
            takes_padding=not JAX,  # Keras's own loop on JAX refuses a mask for images
            spatial_axes=(axes,),
            channels_last=(True,) if TENSORFLOW else (True, False),  # which compiles the other
        )
        for axes in (1, 2, 3)
    ),
]

# Keras computes in float32, and the slope is a sum of all gradients through up to three layers and
# eight steps, under masks of up to 20; outputs and states alone are equal to 1e-5 in most cases.
TOLERANCE = 2e-4

EXAMPLES = 2 if JAX else 5
"""JAX compiles every case anew."""

QUICK = ("naive", "zoneout", "mixed")
"""Of the policies of layers that JAX compiles the longest, those that every run of tests has."""


def is_slow(layer, policy):
    return JAX and (layer.by_step or layer.spatial_axes != (0,)) and policy not in QUICK


PAIRS = [
    pytest.param(*pair.values, id=pair.id, marks=[pytest.mark.slow] * is_slow(*pair.values))
    for pair in conformance.pairs(LAYERS)
]


@pytest.mark.parametrize(("layer", "policy"), PAIRS)
def test_layer_equals_the_oracle(layer, policy):
    conformance.check(BACKEND, layer, policy, TOLERANCE, EXAMPLES)
