"""The captioning model in Keras, on whichever backend the process has."""

from __future__ import annotations

from typing import Any

import keras
from dropout_policies_keras import LSTM, Embedding
from keras import layers

from ...config import RunConfig
from ...keras_training import NamedVariable, dense_weights, lstm_weights
from ...sentences import keras_engine
from ...task import Arrays


class CaptionModel:
    """LSTMs under a policy that read the image as their first input, and then the caption."""

    def __init__(self, vocabulary: int, config: RunConfig) -> None:
        units, depth = config.recipe.units, config.recipe.layers
        self.image = layers.Dense(units, name="image")
        self.row = layers.Reshape((1, units))
        self.embedding = Embedding(vocabulary, units, name="embedding", **config.word_types)
        self.lstms = [
            LSTM(
                units,
                return_sequences=True,
                return_state=True,
                policy=config.placement,
                seed=config.start_seed,
                stack=(layer, depth),
                name=f"lstm_{layer}",
            )
            for layer in range(depth)
        ]
        self.output = layers.Dense(vocabulary, name="output")

    def whole(self, image: Any, before: Any) -> Any:
        """Images `[B, D]` and the words before each `[B, T]` to logits `[B, T, V]`."""
        # One call, so that masks that stay for a sequence are the same for image and words.
        x = layers.Concatenate(axis=1)([self.row(self.image(image)), self.embedding(before)])
        return self.output(keras_engine.through(self.lstms, x)[0][:, 1:])

    def begin(self, image: Any) -> list[Any]:
        """Images `[R, D]` to the state before the first word, h and c `[R, H]` of each layer."""
        return keras_engine.through(self.lstms, self.row(self.image(image)))[1]

    def go_on(self, before: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """Words before each `[R, T]` and a state to logits `[R, T, V]` and the next state."""
        x, carried = keras_engine.through(self.lstms, self.embedding(before), state)
        return self.output(x), carried

    def named(self) -> dict[str, NamedVariable]:
        """The variables by their common names."""
        found = {**dict(dense_weights("image", self.image))}
        found["embedding"] = NamedVariable(self.embedding.embeddings)
        for layer, lstm in enumerate(self.lstms):
            found |= lstm_weights("lstm", layer, lstm)
        return found | dict(dense_weights("output", self.output))


class KerasEngine(keras_engine.KerasEngine):
    """`benchmarks.sentences.engine.Engine` for captions on Keras."""

    def __init__(self, config: RunConfig, start: Arrays) -> None:
        recipe = config.recipe
        features = start["image.weight"].shape[1]
        captions = CaptionModel(len(start["embedding"]), config)
        image = keras.Input(batch_shape=(recipe.batch, features))
        before = keras.Input(batch_shape=(recipe.batch, None), dtype="int32")
        model = keras.Model([image, before], captions.whole(image, before))

        alone = keras.Input((features,))
        first = keras.Model(alone, captions.begin(alone))
        word = keras.Input((1,), dtype="int32")
        carried = [keras.Input((recipe.units,)) for _ in range(2 * recipe.layers)]
        logits, state = captions.go_on(word, carried)
        further = keras.Model([word, *carried], [logits, *state])
        words = [captions.embedding] if config.word_types else []
        noisy = [*captions.lstms, *words]
        super().__init__(model, first, further, captions.named(), noisy, start, recipe)
