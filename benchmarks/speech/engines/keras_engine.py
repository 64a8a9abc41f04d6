"""The acoustic model in Keras, on whichever backend the process has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ...config import RunConfig
from ...keras_training import (
    ClippedSGD,
    Costs,
    dense_weights,
    load,
    lstm_stack,
    lstm_weights,
    set_rate,
    weights,
)
from ...task import Arrays
from ..engine import Scores
from ..frames import Batch


def acoustic_model(config: RunConfig, features: int, states: int) -> keras.Model:
    """Stacked LSTMs under a policy, and a dense layer: `[B, T, D]` to `[B, T, V]`."""
    recipe = config.recipe
    frames = keras.Input(batch_shape=(recipe.batch, recipe.window, features))
    x = lstm_stack(frames, config)
    return keras.Model(frames, keras.layers.Dense(states, name="output")(x))


class Recognised(keras.layers.Layer):
    """Classes `[B, T]` and logits `[B, T, V]` to 1 where the likeliest class is the right one."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        classes, logits = inputs
        return ops.cast(ops.argmax(logits, axis=-1) == ops.cast(classes, "int32"), "float32")


def piece_loss(y: Any, logits: Any) -> Any:
    """Cross-entropy in nats, summed over a piece; y holds each frame's state and its weight."""
    costs = keras.losses.sparse_categorical_crossentropy(
        ops.cast(y[..., 0], "int32"), logits, from_logits=True
    )
    return ops.sum(costs * y[..., 1], axis=-1)


class KerasEngine:
    """`benchmarks.speech.engine.Engine` on Keras."""

    def __init__(self, config: RunConfig, features: int, start: Arrays) -> None:
        recipe = config.recipe
        self.model = acoustic_model(config, features, len(start["output.bias"]))
        self.model.compile(optimizer=ClippedSGD(recipe.learning_rate, recipe.clip), loss=piece_loss)
        # The same layers, and so the same weights.
        states = keras.Input(batch_shape=(recipe.batch, recipe.window), dtype="int32")
        scored = (states, self.model.outputs[0])
        self.scorer = keras.Model(
            [*self.model.inputs, states], [Costs()(scored), Recognised()(scored)]
        )
        self.lstms = [self.model.get_layer(f"lstm_{n}") for n in range(recipe.layers)]
        self.named = {}
        for layer, lstm in enumerate(self.lstms):
            self.named |= lstm_weights("lstm", layer, lstm)
        self.named |= dense_weights("output", self.model.get_layer("output"))
        load(self.named, start)

    def train(self, batch: Batch, learning_rate: float) -> float:
        set_rate(self.model, learning_rate)
        both = np.stack([batch.y.astype(np.float32), batch.weight], axis=-1)
        loss = float(self.model.train_on_batch(batch.x, both))
        return loss * len(batch.x) / float(batch.weight.sum())

    def score(self, batch: Batch) -> Scores:
        return Scores(*self.scorer.predict_on_batch([batch.x, batch.y]))

    def weights(self) -> Arrays:
        return weights(self.named)

    def restore(self, weights: Arrays, calls: int) -> None:
        load(self.named, weights)
        for lstm in self.lstms:
            lstm.calls = calls

    def calls(self) -> int:
        return int(self.lstms[0].calls)
