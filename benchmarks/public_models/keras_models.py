"""Architectures of Keras's and TensorFlow's examples, small, each with an example input.

They are written from their published definitions, with fewer units and words; the page of each is
its `package`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from .entries import Entries

MODELS = Entries()
"""Each example by name."""

Built = tuple[Any, Any]

WORDS = 20


def _tokens(*shape: int) -> Any:
    return np.random.default_rng(0).integers(1, WORDS, shape)


def _numbers(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def _many(model: Any, *inputs: Any) -> Callable[[], Any]:
    """Runs a model on several inputs."""
    return lambda: model(list(inputs))


@MODELS("Bidirectional LSTM on IMDB", "keras.io: nlp/bidirectional_lstm_imdb")
def imdb() -> Built:
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(WORDS, 16)(inputs)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(12))(x)
    outputs = layers.Dense(1, activation="sigmoid")(x)
    return keras.Model(inputs, outputs), _tokens(4, 9)


@MODELS("Character-level text generation", "keras.io: generative/lstm_character_level_...")
def characters() -> Built:
    made = keras.Sequential(
        [keras.Input((9, WORDS)), layers.LSTM(16), layers.Dense(WORDS, activation="softmax")]
    )
    return made, _numbers(4, 9, WORDS)


@MODELS("Character-level translation", "keras.io: nlp/lstm_seq2seq")
def seq2seq() -> Built:
    encoder_inputs = keras.Input((None, WORDS))
    _, *states = layers.LSTM(16, return_state=True, name="encoder")(encoder_inputs)
    decoder_inputs = keras.Input((None, WORDS))
    decoder = layers.LSTM(16, return_sequences=True, return_state=True, name="decoder")
    outputs, _, _ = decoder(decoder_inputs, initial_state=states)
    outputs = layers.Dense(WORDS, activation="softmax")(outputs)
    made = keras.Model([encoder_inputs, decoder_inputs], outputs)
    return made, _many(made, _numbers(4, 9, WORDS), _numbers(4, 7, WORDS))


@MODELS("Addition of numbers", "keras.io: nlp/addition_rnn")
def addition() -> Built:
    made = keras.Sequential(
        [
            keras.Input((7, 12)),
            layers.LSTM(16),
            layers.RepeatVector(4),
            layers.LSTM(16, return_sequences=True),
            layers.Dense(12, activation="softmax"),
        ]
    )
    return made, _numbers(4, 7, 12)


@MODELS("Weather forecasting", "keras.io: timeseries/timeseries_weather_forecasting")
def weather() -> Built:
    inputs = keras.Input((12, 7))
    made = keras.Model(inputs, layers.Dense(1)(layers.LSTM(16)(inputs)))
    return made, _numbers(4, 12, 7)


@MODELS("Video classification", "keras.io: vision/video_classification")
def video() -> Built:
    features = keras.Input((9, 12))
    mask = keras.Input((9,), dtype="bool")
    x = layers.GRU(16, return_sequences=True)(features, mask=mask)
    x = layers.Dropout(0.4)(layers.GRU(8)(x))
    outputs = layers.Dense(5, activation="softmax")(layers.Dense(8, activation="relu")(x))
    made = keras.Model([features, mask], outputs)
    return made, _many(made, _numbers(4, 9, 12), np.ones((4, 9), bool))


@MODELS("Captcha OCR", "keras.io: vision/captcha_ocr")
def captcha() -> Built:
    inputs = keras.Input((32, 16, 1))
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(16, activation="relu")(layers.Reshape((8, 32))(x))
    x = layers.Dropout(0.2)(x)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True, dropout=0.25))(x)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True, dropout=0.25))(x)
    outputs = layers.Dense(WORDS, activation="softmax")(x)
    return keras.Model(inputs, outputs), _numbers(4, 32, 16, 1)


@MODELS("Speech recognition, DeepSpeech 2", "keras.io: audio/ctc_asr")
def deepspeech2() -> Built:
    inputs = keras.Input((None, 16))
    x = layers.Reshape((-1, 16, 1))(inputs)
    x = layers.Conv2D(4, (3, 5), strides=(2, 2), padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Reshape((-1, 32))(x)
    for number in range(1, 4):
        gru = layers.GRU(12, return_sequences=True, reset_after=True, name=f"gru_{number}")
        x = layers.Bidirectional(gru, name=f"bidirectional_{number}", merge_mode="concat")(x)
        if number < 3:
            x = layers.Dropout(0.5)(x)
    x = layers.Dropout(0.5)(layers.ReLU()(layers.Dense(24)(x)))
    outputs = layers.Dense(WORDS, activation="softmax")(x)
    return keras.Model(inputs, outputs), _numbers(4, 20, 16)


@MODELS("Anomaly detection by an LSTM autoencoder", "as in tutorials on anomalies in time series")
def autoencoder() -> Built:
    made = keras.Sequential(
        [
            keras.Input((9, 4)),
            layers.LSTM(16),
            layers.Dropout(0.2),
            layers.RepeatVector(9),
            layers.LSTM(16, return_sequences=True),
            layers.Dropout(0.2),
            layers.TimeDistributed(layers.Dense(4)),
        ]
    )
    return made, _numbers(4, 9, 4)


@MODELS("Stock prices, Dropout after each LSTM", "as in tutorials on stock prices")
def stocks() -> Built:
    made = keras.Sequential([keras.Input((12, 1))])
    for number in range(4):
        made.add(layers.LSTM(16, return_sequences=number < 3))
        made.add(layers.Dropout(0.2))
    made.add(layers.Dense(1))
    return made, _numbers(4, 12, 1)


@MODELS("Text classification", "tensorflow.org: text/tutorials/text_classification_rnn")
def text_classification() -> Built:
    made = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(WORDS, 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(12, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(8)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )
    return made, _tokens(4, 9)


class Generator(keras.Model):  # type: ignore[misc]
    """A character model with a `call` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Embedding(WORDS, 16)
        self.gru = layers.GRU(16, return_sequences=True, return_state=True)
        self.dense = layers.Dense(WORDS)

    def call(self, inputs: Any, states: Any = None, training: bool = False) -> Any:
        x = self.embedding(inputs, training=training)
        x, states = self.gru(x, initial_state=states, training=training)
        return self.dense(x, training=training)


@MODELS("Text generation", "tensorflow.org: text/tutorials/text_generation")
def text_generation() -> Built:
    return Generator(), _tokens(4, 9)


class Translator(keras.Model):  # type: ignore[misc]
    """Encoder and decoder with attention that has no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_words = layers.Embedding(WORDS, 16)
        self.encoder = layers.Bidirectional(
            layers.GRU(16, return_sequences=True, return_state=True), merge_mode="sum"
        )
        self.decoder_words = layers.Embedding(WORDS, 16)
        self.decoder = layers.GRU(16, return_sequences=True, return_state=True)
        self.attention = layers.Attention()
        self.head = layers.Dense(WORDS)

    def call(self, inputs: Any) -> Any:
        source, target = inputs
        context, *_ = self.encoder(self.encoder_words(source))
        x, _ = self.decoder(self.decoder_words(target))
        x = x + self.attention([x, context])
        return self.head(x)


@MODELS("Translation with attention", "tensorflow.org: text/tutorials/nmt_with_attention")
def translation() -> Built:
    made = Translator()
    return made, _many(made, _tokens(4, 9), _tokens(4, 7))


class Feedback(keras.Model):  # type: ignore[misc]
    """A forecaster that feeds its prediction back, step by step, by a cell."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.cell = layers.LSTMCell(16)
        self.rnn = layers.RNN(self.cell, return_state=True)
        self.dense = layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x, *states = self.rnn(inputs, training=training)
        predictions = [self.dense(x)]
        for _ in range(1, self.steps):
            x, states = self.cell(predictions[-1], states=states, training=training)
            predictions.append(self.dense(x))
        return keras.ops.stack(predictions, axis=1)


@MODELS("Forecasting step by step", "tensorflow.org: structured_data/time_series")
def feedback() -> Built:
    return Feedback(), _numbers(4, 12, 3)


@MODELS("Image captions", "machinelearningmastery.com: caption generation")
def captions() -> Built:
    picture = keras.Input((24,))
    x = layers.Dense(16, activation="relu")(layers.Dropout(0.5)(picture))
    words = keras.Input((9,), dtype="int32")
    y = layers.Dropout(0.5)(layers.Embedding(WORDS, 16, mask_zero=True)(words))
    y = layers.LSTM(16)(y)
    z = layers.Dense(16, activation="relu")(layers.add([x, y]))
    made = keras.Model([picture, words], layers.Dense(WORDS, activation="softmax")(z))
    return made, _many(made, _numbers(4, 24), _tokens(4, 9))


@MODELS("Toxic comments", "as in notebooks on toxic comments")
def toxic() -> Built:
    words = keras.Input((9,), dtype="int32")
    x = layers.SpatialDropout1D(0.2)(layers.Embedding(WORDS, 16)(words))
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
    pooled = [layers.GlobalMaxPooling1D()(x), layers.GlobalAveragePooling1D()(x)]
    hidden = layers.concatenate(pooled)
    hidden = layers.add([hidden, layers.Dense(48, activation="relu")(hidden)])
    made = keras.Model(words, layers.Dense(1, activation="sigmoid")(hidden))
    return made, _tokens(4, 9)


@MODELS("Named entities, BiLSTM", "as in Huang et al. 2015, arXiv:1508.01991")
def entities() -> Built:
    words = keras.Input((9,), dtype="int32")
    x = layers.Dropout(0.1)(layers.Embedding(WORDS, 16)(words))
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True, recurrent_dropout=0.1))(x)
    made = keras.Model(words, layers.TimeDistributed(layers.Dense(5, activation="softmax"))(x))
    return made, _tokens(4, 9)


@MODELS("Frames by a CNN, then an LSTM", "keras.io: layers/recurrent_layers/time_distributed")
def cnn_lstm() -> Built:
    frames = keras.Input((6, 8, 8, 1))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"))(frames)
    x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.TimeDistributed(layers.Dropout(0.3))(x)
    x = layers.Dropout(0.3)(layers.LSTM(16)(x))
    return keras.Model(frames, layers.Dense(3)(x)), _numbers(4, 6, 8, 8, 1)
