"""Policies on layers that people derive from Keras's or ours, and what is saved of them."""

import copy
import warnings

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

B, T, D = 8, 6, 16


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def doubled(base):
    """A class that changes what comes in and what leaves."""

    class Doubled(base):
        def __init__(self, *arguments, factor=2.0, **more):
            super().__init__(*arguments, **more)
            self.factor = factor

        def call(self, sequences, initial_state=None, mask=None, training=False):
            y = super().call(self.factor * sequences, initial_state, mask, training)
            return keras.tree.map_structure(lambda each: each + 1.0, y)

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    return Doubled


class OwnLoop(layers.GRU):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(2.0 * sequences, initial_state, mask, training=training)


class ByName(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return layers.LSTM.call(self, sequences, initial_state, mask, training)


class Plain(layers.SimpleRNN):
    """Nothing of its own."""


class OwnCell(layers.RNN):
    def __init__(self, units, **more):
        super().__init__(layers.LSTMCell(units), **more)


CLASSES = {
    "lstm": doubled(layers.LSTM),
    "gru": doubled(layers.GRU),
    "simple": doubled(layers.SimpleRNN),
    "twice derived": type("Twice", (doubled(layers.LSTM),), {}),
    "ours": doubled(dpk.LSTM),
    "own loop": OwnLoop,
    "by name": ByName,
    "plain": Plain,
    "own cell": OwnCell,
}


# Bidirectional copies a layer by its config, which OwnCell cannot be made from.
IN_BOTH = [(name, both) for name in CLASSES for both in (False, name != "own cell")]


@pytest.mark.parametrize(("name", "both"), dict.fromkeys(IN_BOTH))
def test_a_derived_layer_gets_the_policy_and_comes_back(name, both):
    kind = CLASSES[name]
    layer = kind(D, return_sequences=True)
    with keras.saving.custom_object_scope({kind.__name__: kind}):
        outer = layers.Bidirectional(layer) if both else layer
    model = keras.Sequential([keras.Input((T, D)), outer])
    layer = outer.forward_layer if both else outer
    before = model.predict(x(), verbose=0)
    paths = [v.path for v in model.variables]
    applied = dp.apply(model, "zaremba", 0.5, seed=3)
    assert isinstance(layer, kind)
    assert type(layer).__name__ == kind.__name__
    assert [v.path for v in model.variables] == paths
    np.testing.assert_array_equal(model.predict(x(), verbose=0), before)
    rest = 1.0 if "Doubled" in str(kind.__mro__) else 0.0
    out = numpy(layer(x(), training=True))
    assert 0.4 < (out == rest).mean() < 0.6, "half of the output is dropped"
    model.compile("sgd", "mse")
    model.fit(x(), np.zeros(before.shape), verbose=0)
    applied.remove()
    assert type(layer) is kind
    once, twice = (numpy(model(x(), training=True)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    dp.apply(model, "locked", 0.5)
    dp.remove(model)
    assert type(layer) is kind


class Forgets(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):  # noqa: ARG002
        return ops.mean(sequences, axis=1)


class ForgetsTheLoop(layers.LSTM):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return layers.RNN.inner_loop(self, sequences, initial_state, mask, training=training)


class TakesNoTraining(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None):
        return super().call(sequences, initial_state, mask)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Forgets, r"its call does not call super\(\).call\(\)"),
        (ForgetsTheLoop, r"its inner_loop does not call super\(\).inner_loop\(\)"),
        (TakesNoTraining, "its call takes no training"),
    ],
)
def test_a_class_on_which_a_policy_would_not_run_is_refused_with_the_reason(kind, why):
    model = keras.Sequential([keras.Input((T, D)), kind(D, name="own")])
    with pytest.raises(dp.PolicyError, match=rf"own \(.*{kind.__name__}\): {why}"):
        dp.apply(model, "zaremba")
    assert type(model.layers[0]) is kind


class Words(layers.Embedding):
    """Nothing of its own."""


class NoTraining(layers.Embedding):
    """It could not pass `training` on."""

    def call(self, inputs):
        return 3.0 * super().call(inputs)


def words():
    return np.random.default_rng(0).integers(0, 9, (B, T))


def tagger(embedding):
    start = keras.Input((T,), dtype="int32")
    return keras.Model(start, layers.LSTM(D)(embedding(start)))


class OnOurs(dpk.Embedding):
    def call(self, inputs, training=False):
        return 3.0 * super().call(inputs, training=training)


@pytest.mark.parametrize("kind", [Words, OnOurs])
def test_a_derived_embedding_drops_word_types(kind):
    embedding = kind(9, D, embeddings_initializer="ones", name="words")
    model = tagger(embedding)
    before = numpy(model(words()))
    applied = dp.apply(model, dp.Policy(embedding=dp.drop(0.5, per="call"), input=dp.drop(0.1)))
    assert "words" in [each.name for each in applied.embeddings]
    np.testing.assert_array_equal(numpy(model(words())), before)
    rows = numpy(embedding(words(), training=True))
    by_type = {int(w): row for w, row in zip(words().ravel(), rows.reshape(-1, D), strict=True)}
    assert 0 < sum((row == 0).all() for row in by_type.values()) < 9
    applied.remove()
    assert type(embedding) is kind
    np.testing.assert_array_equal(numpy(model(words(), training=True)), before)


OTHERS = {
    "no training": lambda: NoTraining(9, D, name="words"),
    "in TimeDistributed": lambda: keras.Sequential(
        [
            layers.Reshape((T, 1)),
            layers.TimeDistributed(keras.Sequential([layers.Embedding(9, D, name="words")])),
            layers.Reshape((T, D)),
        ]
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_embedding_that_gets_no_policy_is_told(name):
    applied = dp.apply(tagger(OTHERS[name]()), "variational", 0.3)
    assert "skipped words" in str(applied)
    assert "no embedding was found" in str(applied)
    applied.remove()


Registered = keras.saving.register_keras_serializable(package="tests")(
    type("Registered", (doubled(layers.LSTM),), {"__module__": __name__})
)


@pytest.mark.parametrize("kind", [Registered, Plain])
def test_a_derived_layer_is_saved_as_the_users_and_tells_that_the_policy_is_not(tmp_path, kind):
    model = keras.Sequential([keras.Input((T, D)), kind(D, return_sequences=True, name="own")])
    before = model.predict(x(), verbose=0)
    dp.apply(model, "zaremba", 0.5)
    path = tmp_path / "model.keras"
    with pytest.warns(dp.PolicyWarning, match=rf"own \({kind.__name__}\) is saved.*'zaremba'"):
        model.save(path)
    custom = {"Plain": Plain} if kind is Plain else None
    loaded = keras.saving.load_model(path, custom_objects=custom)
    assert type(loaded.get_layer("own")) is kind
    np.testing.assert_allclose(loaded.predict(x(), verbose=0), before, atol=1e-6)
    dp.apply(loaded, "zaremba", 0.5)
    model.save_weights(tmp_path / "m.weights.h5")
    loaded.load_weights(tmp_path / "m.weights.h5")
    with pytest.warns(dp.PolicyWarning, match="own"):
        clone = keras.models.clone_model(model)
    assert type(clone.get_layer("own")) is kind


@keras.saving.register_keras_serializable(package="tests")
class Model(keras.Model):
    def __init__(self, rnn=None, **more):
        super().__init__(**more)
        self.rnn = layers.LSTM(D) if rnn is None else rnn
        self.drop, self.head = layers.Dropout(0.3), layers.Dense(2)

    def build(self, shape):
        self.rnn.build(shape)
        self.head.build((shape[0], D))

    def call(self, inputs, training=False):
        return self.head(self.drop(self.rnn(inputs, training=training), training=training))

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="tests")
class Saves(Model):
    """One that saves the layer inside, and so the policy."""

    def get_config(self):
        return {**super().get_config(), "rnn": keras.saving.serialize_keras_object(self.rnn)}

    @classmethod
    def from_config(cls, config):
        rnn = keras.saving.deserialize_keras_object(config.pop("rnn"))
        return cls(rnn, **config)


@keras.saving.register_keras_serializable(package="tests")
class Part(layers.Layer):
    def __init__(self, **more):
        super().__init__(**more)
        self.rnn = layers.LSTM(D)

    def build(self, shape):
        self.rnn.build(shape)

    def call(self, inputs, training=False):
        return self.rnn(inputs, training=training)


@keras.saving.register_keras_serializable(package="tests")
class Functional(keras.Model):
    """A class of one's own around a functional model; Keras saves its arguments alone."""

    def __init__(self, units=D, **more):
        start = keras.Input((T, D))
        super().__init__(start, layers.Dense(2)(layers.LSTM(units)(start)), **more)
        self.units = units

    def get_config(self):
        return {"units": self.units}


class Row(keras.Sequential):
    """A class of one's own that Keras saves with its layers."""


def in_a_part():
    return keras.Sequential([keras.Input((T, D)), Part(name="part"), layers.Dense(2)])


@pytest.mark.parametrize("make", [Model, Functional, in_a_part])
@pytest.mark.parametrize("way", ["save", "config", "copy"])
def test_a_model_that_is_saved_without_its_policy_tells(tmp_path, make, way):
    model = make()
    before = model.predict(x(), verbose=0)
    applied = dp.apply(model, "zaremba", 0.5, example=x())

    def save():
        if way == "config":
            return keras.saving.serialize_keras_object(model)
        if way == "copy":
            return copy.deepcopy(model)
        model.save(tmp_path / "model.keras")
        return keras.saving.load_model(tmp_path / "model.keras")

    with pytest.warns(dp.PolicyWarning, match=r"is saved or cloned.*'zaremba'.*dp.apply"):
        after = save()
    if way != "config":
        np.testing.assert_allclose(after.predict(x(), verbose=0), before, atol=1e-6)
        dp.apply(after, "zaremba", 0.5, example=x())
    with warnings.catch_warnings():
        warnings.simplefilter("error", dp.PolicyWarning)
        model.save_weights(tmp_path / "m.weights.h5")  # which never hold a policy
        applied.remove()
        save()
    assert "get_config" not in vars(model)


@pytest.mark.parametrize("make", [Saves, lambda: Row([keras.Input((T, D)), layers.LSTM(D)])])
def test_a_model_that_saves_its_policy_tells_nothing(tmp_path, make):
    model = make()
    before = model.predict(x(), verbose=0)
    dp.apply(model, "zaremba", 0.5, example=x())
    with warnings.catch_warnings():
        warnings.simplefilter("error", dp.PolicyWarning)
        model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Row": Row})
    (rnn,) = (layer for layer in loaded.layers if isinstance(layer, layers.LSTM))
    assert rnn.placement.policy.name == "zaremba"
    np.testing.assert_allclose(loaded.predict(x(), verbose=0), before, atol=1e-6)


def test_cells_that_are_called_by_hand_get_a_policy_and_those_of_layers_none_of_their_own():
    class ByHand(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = layers.RNN(layers.GRUCell(D, name="inside"), name="rnn")
            self.cell = layers.LSTMCell(D, name="cell")

        def call(self, inputs, training=False):
            y = self.rnn(inputs, training=training)
            return self.cell(y, [y, y], training=training)[0]

    model = ByHand()
    model(x())
    text = str(dp.apply(model, "zaremba", example=x()))
    assert "rnn (keras.layers.RNN): input 0.5 per step" in text
    assert "cell (keras.layers.LSTMCell): between, output 0.5 per step" in text
    assert "inside" not in text
