"""An embedding that also decodes: its word types are dropped on the way in alone."""

import threading
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from dropout_policies_keras import ReversibleEmbedding, embedding
from keras import layers, ops

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import plan_embedding

V, F, B, T = 11, 4, 4, 6
TOKENS = np.random.default_rng(0).integers(0, V, (B, T))
POLICIES = {per: dp.Policy(embedding=dp.drop(0.5, per=per)) for per in ("call", "sequence")}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def rows():
    return np.random.default_rng(1).standard_normal((B, T, F)).astype("float32")


def expected(layer, per, call=0, seed=5, tokens=TOKENS):
    """The oracle's rows."""
    (mask,) = keyed.masks(plan_embedding(POLICIES[per], 0, V, B), seed, call).values()
    return reference.embedding(tokens.T, numpy(layer.embeddings), mask).swapaxes(0, 1)


@keras.saving.register_keras_serializable(package="tests")
class Tied(keras.Model):
    """A language model that looks words up and decodes them by one layer."""

    def __init__(self, words=None, **more):
        super().__init__(**more)
        self.words = layers.ReversibleEmbedding(V, F) if words is None else words
        self.rnn = layers.LSTM(F, return_sequences=True)

    def call(self, tokens, training=False):
        y = self.rnn(self.words(tokens), training=training)
        return y, self.words(y, reverse=True)

    def get_config(self):
        return {"words": keras.saving.serialize_keras_object(self.words), "name": self.name}

    @classmethod
    def from_config(cls, config):
        words = keras.saving.deserialize_keras_object(config.pop("words"))
        return cls(words, **config)


def functional(**arguments):
    start = keras.Input((T,), dtype="int32")
    words = layers.ReversibleEmbedding(V, F, name="words", **arguments)
    y = layers.LSTM(F, return_sequences=True, name="rnn")(words(start))
    return keras.Model(start, [y, words(y, reverse=True)])


@pytest.mark.parametrize("per", POLICIES)
@pytest.mark.parametrize("tie_weights", [True, False])
def test_rows_are_masked_and_logits_are_not(per, tie_weights):
    layer = ReversibleEmbedding(V, F, tie_weights=tie_weights, policy=POLICIES[per], seed=5)
    stock = layers.ReversibleEmbedding(V, F, tie_weights=tie_weights)
    stock.build()
    layer.build()
    stock.set_weights(layer.get_weights())
    for call in range(2):
        got = numpy(layer(TOKENS, training=True))
        np.testing.assert_allclose(got, expected(layer, per, call), rtol=1e-6)
        logits = numpy(layer(rows(), reverse=True, training=True))
        np.testing.assert_array_equal(logits, numpy(stock(rows(), reverse=True)))
    assert layer.calls == 2  # the way back is no call that draws
    np.testing.assert_array_equal(numpy(layer(TOKENS)), numpy(stock(TOKENS)))
    assert [v.path.split("/")[-1] for v in layer.weights] == [
        v.path.split("/")[-1] for v in stock.weights
    ]


@pytest.mark.parametrize("make", [Tied, functional])
def test_apply_masks_the_lookup_and_remove_ends_it(make):
    model = make()
    before = [numpy(part) for part in model(TOKENS)]
    words = model.words if make is Tied else model.get_layer("words")
    rate = {"embedding": 0.5, "input": 0, "output": 0, "recurrent_weight": 0}
    applied = dp.apply(model, "awd", rate=rate, seed=5, example=TOKENS)
    assert "words" in str(applied) or "reversible_embedding" in str(applied)
    assert [(e.kind, e.name) for e in applied.embeddings] == [
        ("keras.layers.ReversibleEmbedding", words.name)
    ]
    assert not applied.skipped
    for got, wanted in zip(model(TOKENS), before, strict=True):
        np.testing.assert_array_equal(numpy(got), wanted)
    seen = []
    for _ in range(3):
        y, logits = (numpy(part) for part in model(TOKENS, training=True))
        np.testing.assert_allclose(logits, y @ numpy(words.embeddings).T, rtol=1e-5, atol=1e-6)
        seen.append(y)
    assert not np.array_equal(seen[0], seen[1])
    assert words.calls == 3
    applied.remove()
    assert type(words) is layers.ReversibleEmbedding
    for got, wanted in zip(model(TOKENS, training=True), before, strict=True):
        np.testing.assert_array_equal(numpy(got), wanted)


def test_the_rows_in_a_model_are_the_oracles():
    model = functional()
    dp.apply(model, POLICIES["sequence"] | dp.Policy(input=dp.drop(0.1)), seed=5)
    words = model.get_layer("words")
    got = numpy(words(TOKENS, training=True))
    np.testing.assert_allclose(got, expected(words, "sequence"), rtol=1e-6)


def test_a_compiled_model_trains():
    start = keras.Input((T,), dtype="int32")
    words = layers.ReversibleEmbedding(V, F, name="words", mask_zero=True)
    y = layers.LSTM(F, return_sequences=True)(words(start))
    model = keras.Model(start, words(y, reverse=True))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros((B, T, V), "float32")
    plain = float(model.train_on_batch(TOKENS, targets))
    with dp.apply(model, "variational", rate={"embedding": 0.5}, seed=5):
        assert len({float(model.train_on_batch(TOKENS, targets)) for _ in range(4)}) == 4
        assert words.calls == 4
        assert float(model.test_on_batch(TOKENS, targets)) == pytest.approx(plain, rel=1e-6)
    assert float(model.train_on_batch(TOKENS, targets)) == pytest.approx(plain, rel=1e-6)


def test_padding_stays_padding():
    start = keras.Input((T,), dtype="int32")
    words = ReversibleEmbedding(V, F, mask_zero=True, policy=POLICIES["sequence"], seed=5)
    model = keras.Model(start, layers.LSTM(F, return_sequences=True)(words(start)))
    tokens = np.array([[1, 2, 0, 0, 0, 0]])
    y = numpy(model(tokens, training=True))
    np.testing.assert_array_equal(y[:, 2:], np.repeat(y[:, 1:2], 4, axis=1))


@pytest.mark.parametrize("make", [Tied, functional])
@pytest.mark.parametrize("seed", [None, 5])
def test_it_is_saved_with_its_policy_and_removed_from_what_is_loaded(tmp_path, make, seed):
    model = make()
    before = [numpy(part) for part in model(TOKENS)]
    policy = POLICIES["sequence"] | dp.Policy(input=dp.drop(0.1))
    dp.apply(model, policy, seed=seed, example=TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dp.PolicyWarning)  # of the LSTM that Tied does not save
        model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    words, own = (m.words if make is Tied else m.get_layer("words") for m in (loaded, model))
    assert type(words) is ReversibleEmbedding
    assert words.placement == own.placement
    assert words.mask_seed == seed
    if seed is not None:
        np.testing.assert_allclose(
            numpy(words(TOKENS, training=True)), expected(words, "sequence"), rtol=1e-6
        )
    dp.remove(loaded)
    assert type(words) is layers.ReversibleEmbedding
    for got, wanted in zip(loaded(TOKENS, training=True), before, strict=True):
        np.testing.assert_allclose(numpy(got), wanted, atol=1e-6)
    dp.apply(loaded, policy, seed=seed, example=TOKENS)
    assert type(words) is ReversibleEmbedding


def test_a_config_goes_round_with_all_that_keras_takes():
    arguments = {
        "tie_weights": False,
        "embeddings_initializer": "ones",
        "mask_zero": True,
        "reverse_dtype": "float32",
        "logit_soft_cap": 3.0,
        "trainable": False,
        "name": "words",
    }
    layer = ReversibleEmbedding(V, F, policy=POLICIES["call"], seed=5, **arguments)
    config = layer.get_config()
    again = ReversibleEmbedding.from_config(config)
    assert again.get_config() == config
    assert again.placement == layer.placement
    stock = layers.ReversibleEmbedding(V, F, **arguments).get_config()
    assert {name: config[name] for name in stock} == stock
    clone = keras.models.clone_model(keras.Sequential([keras.Input((T,), dtype="int32"), layer]))
    assert clone.layers[0].placement == layer.placement


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(dp.PolicyError, match="ReversibleEmbedding: policy 'zaremba' has no rule"):
        ReversibleEmbedding(V, F, policy="zaremba")
    with pytest.raises(dp.PolicyError, match="ReversibleEmbedding: seed goes with a policy"):
        ReversibleEmbedding(V, F, seed=1)


class TakesNoTraining(layers.ReversibleEmbedding):
    def call(self, inputs, reverse=False):
        return super().call(inputs, reverse=reverse)


class Trains(ReversibleEmbedding):
    def call(self, inputs, reverse=False, training=False):
        return super().call(inputs, reverse=reverse, training=training)


def test_a_class_derived_from_it():
    model = Tied(TakesNoTraining(V, F, name="words"))
    model(TOKENS)
    text = str(dp.apply(model, "awd", example=TOKENS))
    assert "derive it from dropout_policies_keras.ReversibleEmbedding" in text
    model = Tied(Trains(V, F, name="words"))
    model(TOKENS)
    with dp.apply(model, "awd", rate={"embedding": 0.5}, example=TOKENS) as applied:
        assert [e.name for e in applied.embeddings] == ["words"]
        dropped = numpy(model.words(TOKENS, training=True))
        assert (dropped == 0).all(-1).any()
    assert type(model.words) is Trains


def test_threads_each_have_a_mode_of_their_own():
    layer = ReversibleEmbedding(V, F, policy=POLICIES["call"], seed=5)
    stock = numpy(layer(TOKENS))
    wrong = []

    def evaluate():
        wrong.extend(n for n in range(50) if not np.array_equal(numpy(layer(TOKENS)), stock))

    threads = [threading.Thread(target=evaluate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert not np.array_equal(numpy(layer(TOKENS, training=True)), stock)
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_the_mode_of_the_call_these_tests_fail(monkeypatch):
    """Keras's own call, which stands between, does not pass it on."""
    unheard = SimpleNamespace(set=lambda _: None, reset=lambda _: None, get=lambda: False)
    monkeypatch.setattr(embedding, "_training_below", unheard)
    layer = ReversibleEmbedding(V, F, policy=POLICIES["call"], seed=5)
    assert not (numpy(layer(TOKENS, training=True)) == 0).all(-1).any()
