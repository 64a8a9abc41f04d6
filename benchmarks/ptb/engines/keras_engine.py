"""The language model in Keras, on whichever backend the process has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import keras
import numpy as np
from dropout_policies_keras import LSTM, Embedding
from keras import ops

from ...config import RunConfig
from ...keras_training import (
    ClippedSGD,
    Costs,
    NamedVariable,
    dense_weights,
    load,
    lstm_stack,
    lstm_weights,
    set_rate,
    weights,
)
from ..engine import MOST_WORDS, Array, Tokens, Weights


def language_model(config: RunConfig, vocabulary: int, batch: int, steps: int) -> keras.Model:
    """Embedding, stateful LSTMs under a policy, and a dense layer: `[B, T]` to `[B, T, V]`."""
    preset = config.recipe
    words = keras.Input(batch_shape=(batch, steps), dtype="int32")
    x = Embedding(vocabulary, preset.units, name="embedding", **config.word_types)(words)
    x = lstm_stack(x, config, stateful=True)
    return keras.Model(words, keras.layers.Dense(vocabulary, name="output")(x))


def window_loss(y: object, logits: object) -> object:
    """Cross-entropy in nats, summed over the window; Keras averages it over the batch."""
    losses = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return ops.sum(losses, axis=-1)


class KerasEngine:
    """`benchmarks.ptb.engine.Engine` on Keras."""

    def __init__(self, config: RunConfig, start: Weights) -> None:
        self.config, self.preset = config, config.recipe
        self.vocabulary = len(start["embedding"])
        preset = self.preset
        self.model = language_model(config, self.vocabulary, preset.batch, preset.window)
        optimizer = ClippedSGD(preset.learning_rate, preset.clip)
        self.model.compile(optimizer=optimizer, loss=window_loss)
        self.evaluator = cache(self._evaluator)
        self.named = {"embedding": NamedVariable(self.model.get_layer("embedding").embeddings)}
        for layer, lstm in enumerate(self._lstms(self.model)):
            self.named |= lstm_weights("lstm", layer, lstm)
        self.named |= dense_weights("output", self.model.get_layer("output"))
        load(self.named, start)

    def train_window(self, x: Tokens, y: Tokens, learning_rate: float) -> float:
        set_rate(self.model, learning_rate)
        return float(self.model.train_on_batch(x, y)) / x.shape[1]

    def nats(self, windows: Iterable[tuple[Tokens, Tokens]]) -> Iterator[Array]:
        model = None
        for x, y in windows:
            if model is None:
                model = self.evaluator(*x.shape)
                self._put_into(model)
            yield model.predict_on_batch([x, y])

    def next_word(self, words: Tokens) -> Array:
        model = self.evaluator(1, MOST_WORDS, whole=True)
        self._put_into(model)
        x = np.zeros((1, MOST_WORDS), np.int32)
        x[0, : len(words)] = words
        logits = np.asarray(model.predict_on_batch(x)[0, len(words) - 1], np.float64)
        return (logits - np.logaddexp.reduce(logits)).astype(np.float32)

    def reset(self) -> None:
        self._reset(self.model)

    def weights(self) -> Weights:
        return weights(self.named)

    def carried(self) -> Weights:
        states = [
            [ops.convert_to_numpy(s) for s in lstm.states] for lstm in self._lstms(self.model)
        ]
        return {"h": np.stack([h for h, _ in states]), "c": np.stack([c for _, c in states])}

    def calls(self) -> int:
        return int(self._lstms(self.model)[0].calls)

    def restore(self, weights: Weights, carried: Weights, calls: int) -> None:
        load(self.named, weights)
        for layer, lstm in enumerate(self._lstms(self.model)):
            lstm.states[0].assign(carried["h"][layer])
            lstm.states[1].assign(carried["c"][layer])
        for name in self._noisy():
            self.model.get_layer(name).calls = calls

    def _evaluator(self, batch: int, steps: int, whole: bool = False) -> keras.Model:
        """A model of that shape: to costs, or to the whole distribution of each next word."""
        model = language_model(self.config, self.vocabulary, batch, steps)
        if whole:
            return model
        words = keras.Input(batch_shape=(batch, steps), dtype="int32")
        return keras.Model([*model.inputs, words], Costs()((words, model.outputs[0])))

    def _put_into(self, model: keras.Model) -> None:
        """Give an evaluator the weights and rates of now, and a zero state."""
        model.set_weights(self.model.get_weights())
        for name in self._noisy():
            model.get_layer(name).calls = self.model.get_layer(name).calls
        self._reset(model)

    def _noisy(self) -> list[str]:
        """The layers under the policy."""
        words = ["embedding"] if self.config.word_types else []
        return [*words, *(lstm.name for lstm in self._lstms(self.model))]

    def _lstms(self, model: keras.Model) -> list[LSTM]:
        return [model.get_layer(f"lstm_{layer}") for layer in range(self.preset.layers)]

    def _reset(self, model: keras.Model) -> None:
        for lstm in self._lstms(model):
            lstm.reset_state()
