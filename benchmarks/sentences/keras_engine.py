"""A model that says sentences, in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..keras_training import ClippedSGD, Costs, NamedVariable, load, set_rate, weights
from ..task import Arrays
from .batches import Batch, Floats
from .engine import State
from .words import Tokens


class Logarithms(keras.layers.Layer):
    """Logits to the logarithms of probabilities."""

    def call(self, inputs: Any) -> Any:
        return ops.log_softmax(inputs, axis=-1)


class KerasEngine:
    """`benchmarks.sentences.engine.Engine` on Keras.

    Args:
        model: given and the words before `[B, T]` to logits `[B, T, V]`.
        first: given to the state before the first word, with the same layers.
        further: a word `[R, 1]` and the state to logits `[R, 1, V]` and the next state.
        named: the variables by their common names.
        noisy: the layers under the policy.
        start: the initial weights.
        recipe: the run's.
    """

    def __init__(
        self,
        model: keras.Model,
        first: keras.Model,
        further: keras.Model,
        named: dict[str, NamedVariable],
        noisy: list[Any],
        start: Arrays,
        recipe: Any,
    ) -> None:
        self.model, self.first, self.named, self.noisy = model, first, named, noisy
        model.compile(optimizer=ClippedSGD(recipe.learning_rate, recipe.clip), loss=sentence_loss)
        # The same layers, and so the same weights.
        words = keras.Input(batch_shape=model.inputs[1].shape, dtype="int32")
        self.scorer = keras.Model([*model.inputs, words], Costs()((words, model.outputs[0])))
        logits, *state = further.outputs
        self.further = keras.Model(further.inputs, [Logarithms()(logits), *state])
        load(named, start)

    def train(self, batch: Batch, learning_rate: float) -> float:
        set_rate(self.model, learning_rate)
        both = np.stack([batch.words.astype(np.float32), batch.weight], axis=-1)
        loss = float(self.model.train_on_batch([batch.given, batch.before], both))
        return loss * len(batch.words) / float(batch.weight.sum())

    def costs(self, batch: Batch) -> Floats:
        return np.asarray(self.scorer.predict_on_batch([batch.given, batch.before, batch.words]))

    def begin(self, given: Floats) -> State:
        return list(self.first.predict_on_batch(given))

    def step(self, before: Tokens, state: State) -> tuple[Floats, State]:
        log_p, *carried = self.further.predict_on_batch([before[:, None], *state])
        return log_p[:, 0], carried

    def weights(self) -> Arrays:
        return weights(self.named)

    def restore(self, weights: Arrays, calls: int) -> None:
        load(self.named, weights)
        for layer in self.noisy:
            layer.calls = calls

    def calls(self) -> int:
        return int(self.noisy[0].calls)


def through(
    stack: Sequence[Any], x: Any, state: Sequence[Any] | None = None
) -> tuple[Any, list[Any]]:
    """A sequence `[B, T, D]` through a stack of LSTMs that return their states: what comes out
    `[B, T, H]`, and h and c of each layer; `state` is what they begin with, zero if none."""
    after: list[Any] = []
    for layer, lstm in enumerate(stack):
        start = None if state is None else state[2 * layer : 2 * layer + 2]
        x, *new = lstm(x, initial_state=start)
        after += new
    return x, after


def sentence_loss(y: Any, logits: Any) -> Any:
    """Cross-entropy in nats, summed over a sentence; y holds each word and its weight."""
    costs = keras.losses.sparse_categorical_crossentropy(
        ops.cast(y[..., 0], "int32"), logits, from_logits=True
    )
    return ops.sum(costs * y[..., 1], axis=-1)
