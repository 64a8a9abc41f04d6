"""A small stack of stock Keras layers, and an input for it."""

import keras
import numpy as np
from keras import layers

STEPS, FEATURES = 5, 6


def build(batch=None, unroll=False, kind=layers.LSTM):
    """Two recurrent layers and a head, with the same weights at every call."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((STEPS, FEATURES), batch_size=batch),
            kind(16, return_sequences=True, unroll=unroll, name="low"),
            kind(16, return_sequences=True, unroll=unroll, name="high"),
            layers.Dense(2),
        ]
    )


def inputs(batch):
    return np.random.default_rng(0).standard_normal((batch, STEPS, FEATURES)).astype("float32")
