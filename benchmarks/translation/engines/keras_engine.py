"""The translation model in Keras, on whichever backend the process has."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

import dropout_policies as dp

from ...config import RunConfig
from ...keras_training import NamedVariable, dense_weights, lstm_weights
from ...sentences import keras_engine
from ...task import Arrays


class Attention(layers.Layer):
    """Of the decoder's outputs `[B, T, H]`, the encoder's `[B, S, H]` and where there are source
    words `[B, S]`, to the mean of the encoder's outputs, those like the decoder's counting more."""

    def call(self, inputs: tuple[Any, Any, Any]) -> Any:
        x, y, there = inputs
        likeness = ops.matmul(x, ops.transpose(y, (0, 2, 1)))
        likeness = ops.where(there[:, None] > 0, likeness, -1e9)
        return ops.matmul(ops.softmax(likeness, axis=-1), y)


class WordMask(layers.Layer):
    """Words to 1 where there is one, and 0 elsewhere."""

    def call(self, words: Any) -> Any:
        return ops.cast(words > 0, "float32")


class Translator:
    """Keras's own LSTMs: one stack reads the source, the other goes on from its state."""

    def __init__(self, english: int, french: int, config: RunConfig) -> None:
        recipe = config.recipe
        self.units, self.depth = recipe.units, recipe.layers
        # Word 0 stands where there is none.
        self.source = layers.Embedding(english, self.units, mask_zero=True, name="source")
        self.target = layers.Embedding(french, self.units, name="target")
        self.encoder, self.decoder = (
            [
                layers.LSTM(
                    self.units, return_sequences=True, return_state=True, name=f"{name}_{layer}"
                )
                for layer in range(self.depth)
            ]
            for name in ("encoder", "decoder")
        )
        self.attended = (
            layers.Dense(self.units, activation="tanh", name="attended")
            if recipe.attention
            else None
        )
        self.output = layers.Dense(french, name="output")

    def begin(self, source: Any) -> list[Any]:
        """The state before the first word: h and c `[R, H]` of each layer; with attention, what the
        encoder gave `[R, S, H]` and where there are words `[R, S]`."""
        y, state = keras_engine.through(self.encoder, self.source(source))
        return state if self.attended is None else [*state, y, WordMask()(source)]

    def go_on(self, before: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """Words before each `[R, T]` and a state to logits `[R, T, V]` and the next state."""
        carried, seen = state[: 2 * self.depth], state[2 * self.depth :]
        x, carried = keras_engine.through(self.decoder, self.target(before), carried)
        if self.attended is not None:
            context = Attention()([x, *seen])
            x = self.attended(layers.Concatenate()([context, x]))
        return self.output(x), [*carried, *seen]

    def carried(self, words: int) -> list[Any]:
        """Inputs for a state."""
        state = [keras.Input((self.units,)) for _ in range(2 * self.depth)]
        seen = [keras.Input((words, self.units)), keras.Input((words,))]
        return state if self.attended is None else [*state, *seen]

    def named(self) -> dict[str, NamedVariable]:
        """The variables by their common names."""
        found = {
            "source": NamedVariable(self.source.embeddings),
            "target": NamedVariable(self.target.embeddings),
        }
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for layer, lstm in enumerate(stack):
                found |= lstm_weights(name, layer, lstm)
        found |= dense_weights("output", self.output)
        return (
            found
            if self.attended is None
            else found | dict(dense_weights("attended", self.attended))
        )


class KerasEngine(keras_engine.KerasEngine):
    """`benchmarks.sentences.engine.Engine` for translation on Keras."""

    def __init__(self, config: RunConfig, start: Arrays) -> None:
        recipe = config.recipe
        translator = Translator(len(start["source"]), len(start["target"]), config)
        source = keras.Input(batch_shape=(recipe.batch, recipe.words), dtype="int32")
        before = keras.Input(batch_shape=(recipe.batch, None), dtype="int32")
        logits, _ = translator.go_on(before, translator.begin(source))
        model = keras.Model([source, before], logits)
        noisy = [*translator.encoder, *translator.decoder]
        stacks = [
            [lstm.name for lstm in stack] for stack in (translator.encoder, translator.decoder)
        ]
        dp.apply(model, policy=config.placement, seed=config.start_seed, stacks=stacks)

        alone = keras.Input((recipe.words,), dtype="int32")
        first = keras.Model(alone, translator.begin(alone))
        word = keras.Input((1,), dtype="int32")
        carried = translator.carried(recipe.words)
        logits, state = translator.go_on(word, carried)
        further = keras.Model([word, *carried], [logits, *state])
        super().__init__(model, first, further, translator.named(), noisy, start, recipe)
