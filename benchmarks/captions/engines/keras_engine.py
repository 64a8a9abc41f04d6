"""The captioning model in Keras, on whichever backend the process has."""

from __future__ import annotations

import keras
from dropout_policies_keras import LSTM, Embedding

from ...config import RunConfig
from ...keras_training import Kept, dense_weights, lstm_weights
from ...sentences import keras_engine
from ...task import Arrays


class KerasEngine(keras_engine.KerasEngine):
    """`benchmarks.sentences.engine.Engine` for captions on Keras."""

    def __init__(self, config: RunConfig, start: Arrays) -> None:
        recipe, vocabulary = config.recipe, len(start["embedding"])
        features = start["image.weight"].shape[1]
        image = keras.layers.Dense(recipe.units, name="image")
        embedding = Embedding(vocabulary, recipe.units, name="embedding", **config.word_types)
        lstms = [
            LSTM(
                recipe.units,
                return_sequences=True,
                return_state=True,
                policy=config.placement,
                seed=config.start_seed,
                stack=(layer, recipe.layers),
                name=f"lstm_{layer}",
            )
            for layer in range(recipe.layers)
        ]
        output = keras.layers.Dense(vocabulary, name="output")

        def decode(x, states=None):
            carried = []
            for layer, lstm in enumerate(lstms):
                given = None if states is None else states[2 * layer : 2 * layer + 2]
                x, *state = lstm(x, initial_state=given)
                carried += state
            return x, carried

        seen = keras.Input(batch_shape=(recipe.batch, features))
        before = keras.Input(batch_shape=(recipe.batch, None), dtype="int32")
        # One call, so that masks that stay for a sequence are the same for image and words.
        row = keras.layers.Reshape((1, recipe.units))
        both = keras.layers.Concatenate(axis=1)([row(image(seen)), embedding(before)])
        model = keras.Model([seen, before], output(decode(both)[0][:, 1:]))

        alone = keras.Input((features,))
        first = keras.Model(alone, decode(row(image(alone)))[1])

        word = keras.Input((1,), dtype="int32")
        states = [keras.Input((recipe.units,)) for _ in range(2 * recipe.layers)]
        y, carried = decode(embedding(word), states)
        further = keras.Model([word, *states], [output(y), *carried])

        named = {**dict(dense_weights("image", image)), "embedding": Kept(embedding.embeddings)}
        for layer, lstm in enumerate(lstms):
            named |= lstm_weights("lstm", layer, lstm)
        named |= dense_weights("output", output)
        words = [embedding] if config.word_types else []
        super().__init__(model, first, further, named, [*lstms, *words], start, recipe)
