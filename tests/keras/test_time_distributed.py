"""`TimeDistributed` around an embedding has the masks of the embedding on the same tokens."""

import warnings

import keras
import numpy as np
import pytest
from dropout_policies_keras import Embedding, TimeDistributed, time_distributed
from keras import layers, ops

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import plan_embedding

V, F, B, S, W = 11, 3, 4, 3, 5
TOKENS = np.random.default_rng(0).integers(0, V, (B, S, W))
KINDS = [layers.Embedding]
KINDS += [layers.ReversibleEmbedding] if hasattr(layers, "ReversibleEmbedding") else []
POLICIES = {
    per: dp.Policy(embedding=dp.drop(0.5, per=per), input=dp.drop(0.0))
    for per in ("call", "sequence")
}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def wrapped(embedding):
    return layers.TimeDistributed(embedding, name="each")


def twice(embedding):
    return layers.TimeDistributed(wrapped(embedding), name="outer")


def bare(embedding):
    return embedding


def tagger(wrap=wrapped, kind=layers.Embedding, steps=S, **more):
    """Sentences of words, looked up, and then one step a sentence."""
    start = keras.Input((steps, W), dtype="int32")
    x = start
    if wrap is twice:
        x = layers.Reshape((S, 1, W))(x)
    x = wrap(kind(V, F, name="words", **more))(x)
    x = layers.Reshape((-1, W * F))(x)
    model = keras.Model(start, layers.LSTM(2, return_sequences=True, name="rnn")(x))
    model.set_weights([np.random.default_rng(1).normal(size=v.shape) for v in model.weights])
    return model


def words_of(model):
    (found,) = (x for x in model._flatten_layers() if isinstance(x, layers.Embedding))
    return found


def train(model):
    return numpy(model(TOKENS, training=True))


def masked_rows(matrix, per, call=0, seed=5):
    """The rows under the core's mask."""
    (mask,) = keyed.masks(plan_embedding(POLICIES[per], 0, V, B), seed, call).values()
    by_sample = np.broadcast_to(mask[0], (B, V))[np.arange(B)[:, None, None], TOKENS]
    return matrix[TOKENS] * by_sample[..., None]


@pytest.mark.parametrize("per", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_masks_of_the_embedding_alone(per, kind):
    model = tagger(kind=kind)
    embedding, wrapper = words_of(model), model.get_layer("each")
    stock = numpy(wrapper(TOKENS))
    dp.apply(model, POLICIES[per], seed=5)
    matrix = numpy(embedding.embeddings)
    for call in range(2):
        got = numpy(wrapper(TOKENS, training=True))
        np.testing.assert_allclose(got, masked_rows(matrix, per, call), rtol=1e-6)
        assert embedding.calls == call + 1
    embedding.calls = 0
    np.testing.assert_allclose(
        numpy(embedding(TOKENS, training=True)), masked_rows(matrix, per), rtol=1e-6
    )
    np.testing.assert_array_equal(numpy(wrapper(TOKENS)), stock)
    assert embedding.calls == 1


@pytest.mark.parametrize("name", ["each/words", "each/*"])
def test_an_embedding_is_chosen_by_the_name_in_the_report(name):
    assert len(dp.apply(tagger(), "variational", only=[name, "rnn"]).embeddings) == 1
    assert not dp.apply(tagger(), "variational", skip=name).embeddings


@pytest.mark.parametrize("name", ["awd", "variational"])
@pytest.mark.parametrize(("wrap", "steps"), [(wrapped, S), (wrapped, None), (twice, S)])
def test_a_model_computes_what_it_computes_without_the_wrapper(name, wrap, steps):
    model, plain = tagger(wrap, steps=steps), tagger(bare, steps=steps)
    before = numpy(model(TOKENS))
    paths = [v.path for v in model.weights]
    applied = dp.apply(model, name, seed=5)
    name_in_report = {wrapped: "each/words", twice: "outer/each/words"}[wrap]
    assert [each.name for each in applied.embeddings] == [name_in_report]
    assert not applied.skipped
    dp.apply(plain, name, seed=5)
    for _ in range(2):
        np.testing.assert_allclose(train(model), train(plain), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(numpy(model(TOKENS)), before)
    for each in (model, plain):
        each.compile(keras.optimizers.SGD(0.1), "mse")
    target = np.zeros_like(before)
    for _ in range(3):
        losses = [float(each.train_on_batch(TOKENS, target)) for each in (model, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert words_of(model).calls == words_of(plain).calls == 5
    assert [v.path for v in model.weights] == paths
    applied.remove()
    assert type(words_of(model)) is layers.Embedding
    assert {type(x) for x in model._flatten_layers() if isinstance(x, layers.TimeDistributed)} == {
        layers.TimeDistributed
    }
    plain.set_weights(model.get_weights())
    dp.remove(plain)
    np.testing.assert_allclose(train(model), train(plain), atol=1e-6)


def test_without_the_swapped_class_it_computes_something_else(monkeypatch):
    monkeypatch.setattr(time_distributed.SwappedTimeDistributed, "swap", lambda _: None)
    model = tagger()
    dp.apply(model, POLICIES["call"], seed=5)
    got = numpy(model.get_layer("each")(TOKENS, training=True))
    assert not np.allclose(got, masked_rows(numpy(words_of(model).embeddings), "call"))
    assert words_of(model).calls == S


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_told_no_one_as_in_the_stock_wrapper(kind):
    model = tagger(kind=kind, mask_zero=True)
    wrapper = model.get_layer("each")
    assert getattr(wrapper(TOKENS), "_keras_mask", None) is None
    dp.apply(model, POLICIES["call"], seed=5)
    rows = wrapper(TOKENS, training=True)
    assert getattr(rows, "_keras_mask", None) is None
    assert (numpy(rows) == 0).all(-1).any()


@pytest.mark.parametrize("remove", ["of the report", "of the model"])
def test_rates_of_a_schedule_and_padding(remove):
    rate = dp.schedule({0: 0.0, 1: 0.6})
    model, plain = tagger(mask_zero=True), tagger(bare)
    before = numpy(model(TOKENS))
    applied = dp.apply(model, "awd", rate={"embedding": rate}, seed=5)
    dp.apply(plain, "awd", rate={"embedding": rate}, seed=5)
    rows = [numpy(model.get_layer(name)(TOKENS, training=True)) for name in ("each", "each")]
    assert not (rows[0] == 0).all(-1).any()
    assert (rows[1] == 0).all(-1).any()
    for each in (model, plain):
        words_of(each).calls = 0
        each.get_layer("rnn").calls = 0
    for _ in range(2):
        np.testing.assert_allclose(train(model), train(plain), rtol=1e-5, atol=1e-6)
    if remove == "of the report":
        applied.remove()
    else:
        dp.remove(model)
    assert type(model.get_layer("each")) is layers.TimeDistributed
    np.testing.assert_array_equal(train(model), before)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_cloned_with_its_policy(tmp_path, seed, kind):
    model = tagger(kind=kind)
    before = numpy(model(TOKENS))
    dp.apply(model, POLICIES["sequence"], seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", dp.PolicyWarning)  # nothing is lost
        model.save(tmp_path / "model.keras")
        clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (keras.saving.load_model(tmp_path / "model.keras"), clone):
        assert type(other.get_layer("each")) is TimeDistributed
        assert words_of(other).placement == words_of(model).placement
        if seed is not None:
            got = numpy(other.get_layer("each")(TOKENS, training=True))
            matrix = numpy(words_of(model).embeddings)
            np.testing.assert_allclose(got, masked_rows(matrix, "sequence"), rtol=1e-6)
        dp.remove(other)
        assert type(other.get_layer("each")) is layers.TimeDistributed
        assert type(words_of(other)) is kind
        np.testing.assert_allclose(train(other), before, atol=1e-6)
        dp.apply(other, POLICIES["sequence"], seed=seed)


class Shared(keras.Model):
    """One embedding, of a title and of sentences."""

    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(V, F)
        self.each = layers.TimeDistributed(self.words)
        self.rnn = layers.LSTM(2, return_sequences=True)

    def call(self, tokens, training=False):
        title, rows = self.words(tokens[:, 0]), self.each(tokens, training=training)
        rows = ops.concatenate([title[:, None], rows], axis=1)
        return rows, self.rnn(ops.reshape(rows, (len(tokens), S + 1, W * F)), training=training)


def test_an_embedding_that_is_called_outside_of_the_wrapper_too_has_one_counter():
    model = Shared()
    before = numpy(model(TOKENS)[0])
    applied = dp.apply(model, POLICIES["sequence"], seed=5, example=TOKENS)
    rows = numpy(model(TOKENS, training=True)[0])
    matrix = numpy(model.words.embeddings)
    first, second = (masked_rows(matrix, "sequence", call) for call in (0, 1))
    np.testing.assert_allclose(rows[:, 0], first[:, 0], rtol=1e-6)
    np.testing.assert_allclose(rows[:, 1:], second, rtol=1e-6)
    assert model.words.calls == 2
    with dp.sequence(model):
        rows = numpy(model(TOKENS, training=True)[0])
    np.testing.assert_allclose(rows[:, 1:], masked_rows(matrix, "sequence", 2), rtol=1e-6)
    np.testing.assert_allclose(rows[:, 0], rows[:, 1], rtol=1e-6)
    assert model.words.calls == 3
    with dp.monte_carlo(model, seed=3, hold=True):
        sampled = [numpy(model(TOKENS)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*sampled)
    assert not np.array_equal(sampled[0], before)
    applied.remove()
    np.testing.assert_array_equal(numpy(model(TOKENS, training=True)[0]), before)


def test_the_drop_in_layers_by_hand():
    layer = TimeDistributed(Embedding(V, F, policy=POLICIES["call"], seed=5))
    got = numpy(layer(TOKENS, training=True))
    np.testing.assert_allclose(got, masked_rows(numpy(layer.layer.embeddings), "call"), rtol=1e-6)
    other = TimeDistributed(layers.Dense(2))
    x = np.ones((B, S, W), "float32")
    np.testing.assert_allclose(numpy(other(x)), numpy(other.layer(x)), rtol=1e-6)


class OwnWrapper(layers.TimeDistributed):
    """A class of one's own."""


class OwnCall(Embedding):
    def call(self, inputs, training=False):
        return super().call(inputs, training=training)


SKIPPED = {
    "inside a layer": (lambda e: wrapped(keras.Sequential([e])), layers.Embedding),
    "the class of each": (lambda e: OwnWrapper(e, name="each"), layers.Embedding),
    "its call": (wrapped, OwnCall),
}


@pytest.mark.parametrize("why", SKIPPED)
def test_what_gets_no_policy_is_told(why):
    wrap, kind = SKIPPED[why]
    model = tagger(wrap, kind)
    before = numpy(model(TOKENS))
    text = str(dp.apply(model, "variational", seed=5))
    assert "skipped words" in text
    assert why in text
    dp.remove(model)
    np.testing.assert_array_equal(train(model), before)
