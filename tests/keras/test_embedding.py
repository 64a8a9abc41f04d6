"""Word types dropped from what an embedding gives."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM, Embedding
from keras import layers, ops

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import plan_embedding

V, F, B, T = 11, 3, 4, 6
TOKENS = np.random.default_rng(0).integers(0, V, (B, T))


def policy(per, rate=0.5, **extra):
    return dp.Policy(embedding=dp.drop(rate, per=per, **extra))


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def expected(layer, tokens, per, call, seed=5, number=0):
    """The oracle's, under the mask of the call."""
    wanted = plan_embedding(policy(per), number, V, len(tokens))
    (mask,) = keyed.masks(wanted, seed, call).values()
    rows = reference.embedding(tokens.T, layer.get_weights()[0], mask)
    return rows.swapaxes(0, 1)


@pytest.mark.parametrize("per", ["sequence", "call"])
def test_rows_are_the_oracles_and_the_matrix_is_whole(per):
    layer = Embedding(V, F, policy=policy(per), seed=5)
    stock = layers.Embedding(V, F)
    stock.build()
    layer.build()
    stock.set_weights(layer.get_weights())
    for call in range(2):
        got = numpy(layer(TOKENS, training=True))
        np.testing.assert_allclose(got, expected(layer, TOKENS, per, call), rtol=1e-6)
    assert layer.calls == 2
    np.testing.assert_array_equal(numpy(layer(TOKENS)), numpy(stock(TOKENS)))
    np.testing.assert_array_equal(layer.get_weights()[0], stock.get_weights()[0])
    assert layer.calls == 2
    assert [v.path.split("/")[-1] for v in layer.weights] == ["embeddings"]


def test_one_token_for_each_sample():
    layer = Embedding(V, F, policy=policy("sequence"), seed=5)
    got = numpy(layer(TOKENS[:, 0], training=True))
    np.testing.assert_allclose(got, expected(layer, TOKENS[:, :1], "sequence", 0)[:, 0], rtol=1e-6)


@pytest.mark.parametrize("per", ["sequence", "call"])
def test_sentences_of_words_for_each_sample(per):
    layer = Embedding(V, F, policy=policy(per), seed=5)
    got = numpy(layer(TOKENS.reshape(B, 2, T // 2), training=True))
    assert got.shape == (B, 2, T // 2, F)
    np.testing.assert_allclose(got.reshape(B, T, F), expected(layer, TOKENS, per, 0), rtol=1e-6)


def test_what_is_not_scaled_is_by_its_mean_in_evaluation():
    layer = Embedding(V, F, policy=policy("call", 0.2, scaled=False))
    rows = numpy(layer(TOKENS))
    stock = layer.get_weights()[0]
    np.testing.assert_allclose(rows, 0.8 * stock[TOKENS], rtol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(dp.PolicyError, match="no rule at site 'embedding'"):
        Embedding(V, F, policy="zaremba")
    with pytest.raises(dp.PolicyError, match="rate goes with a policy"):
        Embedding(V, F, rate=0.1)
    layer = Embedding(V, F, policy="awd")
    token = ops.convert_to_tensor(1)
    assert layer(token).shape == (F,)
    with pytest.raises(dp.PolicyError, match="a single token"):
        layer(token, training=True)


def stock_model():
    return keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            layers.Embedding(V, F, mask_zero=True, name="words"),
            layers.LSTM(F, name="rnn"),
            layers.Dense(2),
        ]
    )


@pytest.mark.parametrize("name", ["variational", "awd"])
def test_apply_drops_words_in_a_compiled_model_and_remove_ends_it(name):
    model = stock_model()
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    y = np.zeros((B, 2), "float32")
    plain = float(model.train_on_batch(TOKENS, y))
    paths = [v.path for v in model.variables]
    weights = [v.path for v in model.weights]
    rates = {site.value: 0.0 for site in dp.resolve(name)} | {"embedding": 0.5}
    applied = dp.apply(model, name, rate=rates, seed=5)
    assert [e.name for e in applied.embeddings] == ["words"]
    assert "words (keras.layers.Embedding): embedding 0.5" in str(applied)
    words = model.get_layer("words")
    per = applied.policy[dp.Site.EMBEDDING].per
    np.testing.assert_allclose(
        numpy(words(TOKENS, training=True)), expected(words, TOKENS, per, 0), rtol=1e-6
    )
    losses = {float(model.train_on_batch(TOKENS, y)) for _ in range(4)}
    assert len(losses) == 4
    assert words.calls == 5
    assert float(model.test_on_batch(TOKENS, y)) == pytest.approx(plain, rel=1e-6)
    assert [v.path for v in model.weights] == weights
    applied.remove()
    assert [v.path for v in model.variables] == paths
    assert float(model.train_on_batch(TOKENS, y)) == pytest.approx(plain, rel=1e-6)
    assert type(words) is layers.Embedding


def test_two_embeddings_have_masks_of_their_own():
    start = keras.Input((T,), dtype="int32")
    parts = [layers.Embedding(V, F, name=name)(start) for name in ("a", "b")]
    model = keras.Model(start, layers.LSTM(2)(layers.Concatenate()(parts)))
    dp.apply(model, "variational", rate={"embedding": 0.5}, seed=5)
    for number, name in enumerate(("a", "b")):
        layer = model.get_layer(name)
        got = numpy(layer(TOKENS, training=True))
        np.testing.assert_allclose(
            got, expected(layer, TOKENS, "sequence", 0, number=number), rtol=1e-6
        )


def test_padding_stays_padding():
    model = keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            Embedding(V, F, mask_zero=True, policy=policy("sequence"), seed=5),
            LSTM(F, return_sequences=True),
        ]
    )
    tokens = np.array([[1, 2, 0, 0, 0, 0]])
    y = numpy(model(tokens, training=True))
    np.testing.assert_array_equal(y[:, 2:], np.repeat(y[:, 1:2], 4, axis=1))


@pytest.mark.parametrize("seed", [None, 5])
def test_it_is_saved_and_cloned_with_its_policy(tmp_path, seed):
    saved = keras.Sequential(
        [keras.Input((T,), dtype="int32"), Embedding(V, F, policy=policy("sequence"), seed=seed)]
    )
    saved.save(tmp_path / "model.keras")
    for other in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(saved),
    ):
        layer = other.layers[0]
        assert layer.placement == saved.layers[0].placement
        assert layer.seed == seed
        if seed is not None:
            got = numpy(layer(TOKENS, training=True))
            np.testing.assert_allclose(got, expected(layer, TOKENS, "sequence", 0), rtol=1e-6)


@pytest.mark.parametrize("loaded", [False, True])
def test_without_its_policy_it_has_the_stock_layers_variables(tmp_path, loaded):
    def model(kind, **policy):
        return keras.Sequential([keras.Input((T,), dtype="int32"), kind(V, F, **policy), LSTM(2)])

    made = model(Embedding, policy=policy("call"), seed=5)
    if loaded:
        made.save(tmp_path / "model.keras")
        made = keras.saving.load_model(tmp_path / "model.keras")
    assert len(made.variables) == len(made.weights) + 2
    dp.remove(made)
    stock = model(layers.Embedding)
    for kind in ("variables", "non_trainable_variables", "weights"):
        names = [[v.path.split("/")[-1] for v in getattr(m, kind)] for m in (made, stock)]
        assert names[0] == names[1]
    if keras.backend.backend() == "torch":
        counts = [len(list(m.layers[0].parameters())) for m in (made, stock)]
        assert counts == [1, 1]
    with dp.apply(made, policy("call") | dp.zaremba(0.5), seed=5):
        assert len(made.variables) == len(made.weights) + 2
        assert made.layers[0].calls == 0


def test_a_tied_decoder_sees_the_matrix_whole():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.words, self.rnn = layers.Embedding(9, 4), layers.LSTM(4, return_sequences=True)

        def call(self, tokens, training=False):
            y = self.rnn(self.words(tokens), training=training)
            return y, ops.matmul(y, ops.transpose(self.words.embeddings))

    model, tokens = Tied(), np.arange(6).reshape(2, 3) % 9
    model(tokens)
    matrix = ops.convert_to_numpy(model.words.embeddings).copy()
    dp.apply(model, "awd", seed=3)
    for _ in range(3):
        y, logits = (ops.convert_to_numpy(part) for part in model(tokens, training=True))
        np.testing.assert_allclose(logits, y @ matrix.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.words.embeddings), matrix)
