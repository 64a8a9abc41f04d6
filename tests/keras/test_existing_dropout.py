"""Dropout that a model has already: switched off where a policy masks too, and brought back."""

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


def lstm(name):
    return layers.LSTM(D, return_sequences=True, name=name)


@keras.saving.register_keras_serializable(package="tests")
class WordDropout(layers.Layer):
    """Dropout of whole steps, as people write it."""

    def __init__(self, drop_prob, **more):
        super().__init__(**more)
        self.drop_prob, self.generator = drop_prob, keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        if not training or not self.drop_prob:
            return inputs
        kept = keras.random.uniform((ops.shape(inputs)[0], T, 1), seed=self.generator)
        return inputs * ops.cast(kept >= self.drop_prob, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "drop_prob": self.drop_prob}


KINDS = {
    "dropout": lambda: layers.Dropout(0.25, name="drop"),
    "whole channels": lambda: layers.SpatialDropout1D(0.25, name="drop"),
    "gaussian": lambda: layers.GaussianDropout(0.25, name="drop"),
    "noise": lambda: layers.GaussianNoise(0.25, name="drop"),
    "alpha": lambda: layers.AlphaDropout(0.25, name="drop"),
    "own": lambda: WordDropout(0.25, name="drop"),
    "derived": lambda: type("Mine", (layers.Dropout,), {})(0.25, name="drop"),
    "wrapped": lambda: layers.TimeDistributed(layers.Dropout(0.25, name="drop")),
}


def rate(layer):
    layer = getattr(layer, "layer", layer)
    names = ("rate", "stddev", "drop_prob")
    return next(float(getattr(layer, name)) for name in names if hasattr(layer, name))


class Code(keras.Model):
    """A row of layers that only its `call` knows."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, inputs, training=False):
        for part in self.parts:
            takes = isinstance(part, layers.Dense | layers.Activation)
            inputs = part(inputs) if takes else part(inputs, training=training)
        return inputs


def functional(parts):
    start = out = keras.Input((T, D))
    for part in parts:
        out = part(out)
    return keras.Model(start, out)


def code(parts):
    model = Code(parts)
    model(x())
    return model


MODELS = {
    "sequential": lambda parts: keras.Sequential([keras.Input((T, D)), *parts]),
    "functional": functional,
    "code": code,
}


EACH = [("sequential", kind) for kind in KINDS]
EACH += [(form, kind) for form in ("functional", "code") for kind in ("own", "wrapped")]


@pytest.mark.parametrize(("form", "kind"), EACH)
def test_every_kind_is_switched_off_and_comes_back(form, kind):
    drop = KINDS[kind]()
    model = MODELS[form]([lstm("low"), drop, lstm("high"), layers.Dense(2)])
    before = numpy(model(x()))
    applied = dp.apply(model, dp.Policy(between=dp.drop(0.5)), example=x())
    assert rate(drop) == 0
    assert "taken over, back on remove(): drop" in str(applied)
    assert "which masked what goes from 'low' into 'high'" in str(applied)
    np.testing.assert_array_equal(numpy(model(x())), before)
    applied.remove()
    assert rate(drop) == 0.25
    once, twice = (numpy(model(x(), training=True)) for _ in range(2))
    assert not np.array_equal(once, twice)
    with dp.apply(model, "zaremba", 0.5, example=x()):
        assert rate(drop) == 0
        dp.remove(model)
        assert rate(drop) == 0.25
    assert rate(drop) == 0.25


@pytest.mark.parametrize("form", MODELS)
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_connection_is_masked_once_wherever_the_dropout_stands(form, where):
    """At rate 0 of the policy, nothing is random any more: the model's own dropout is off."""
    parts = [lstm("low"), layers.Activation("tanh"), lstm("high"), layers.Dense(2)]
    drop = layers.Dropout(0.5, name="drop")
    parts.insert([0, 2, 3][where], drop)
    model = MODELS[form](parts)
    applied = dp.apply(model, "zaremba", 0.5, example=x())
    assert [s.masked for s in applied.stacks] == [3]
    assert (rate(drop), len(applied.taken_over)) == (0.0, 1)
    if where == 2:
        high = numpy(model.get_layer("high")(x(), training=True)) if form != "code" else None
        assert high is None or 0.35 < (high == 0).mean() < 0.65, "not both 0.5 and 0.5"


def test_a_trained_model_is_retraced():
    model = MODELS["sequential"]([lstm("low"), layers.Dropout(0.5), lstm("high")])
    model.compile(keras.optimizers.SGD(0.0), "mse")

    def losses():
        fit = model.fit(x(), x(), verbose=0, shuffle=False, epochs=3, batch_size=B)
        return fit.history["loss"]

    assert len(set(losses())) == 3
    applied = dp.apply(model, dp.Policy(between=dp.drop(0.5)), seed=1)
    masked = losses()
    assert len(set(masked)) == 3
    applied.remove()
    model.layers[1].rate = 0.0
    dp.apply(model, dp.Policy(between=dp.drop(0.5)), seed=1)
    np.testing.assert_allclose(losses(), masked, rtol=1e-5)


@pytest.mark.parametrize("form", MODELS)
def test_the_user_may_keep_or_refuse_it(form):
    def model():
        drops = [layers.Dropout(0.2, name="first"), layers.GaussianNoise(0.1, name="second")]
        return MODELS[form]([drops[0], lstm("low"), drops[1], lstm("high"), layers.Dense(2)]), drops

    kept, drops = model()
    text = str(dp.apply(kept, "zaremba", existing="keep", example=x()))
    assert [rate(d) for d in drops] == [0.2, 0.1]
    assert text.count("a second time") == 2
    refused, drops = model()
    with pytest.raises(dp.PolicyError, match=r"(?s)first .*rate=0.2.*second .*stddev=0.1"):
        dp.apply(refused, "zaremba", existing="refuse", example=x())
    assert [rate(d) for d in drops] == [0.2, 0.1]
    with pytest.raises(dp.PolicyError, match="existing must be"):
        dp.apply(refused, "zaremba", existing="off", example=x())


def test_dropout_where_no_mask_falls_stays_on():
    parts = [layers.Dropout(0.2, name="first"), lstm("low"), layers.Dropout(0.3, name="second")]
    model = MODELS["sequential"]([*parts, layers.Dense(2), layers.Dropout(0.4, name="third")])
    text = str(dp.apply(model, dp.Policy(output=dp.drop(0.5))))
    assert "taken over, back on remove(): second" in text
    assert "skipped first" in text
    assert "on the input of 'low', which no mask falls on" in text
    assert "skipped third" in text
    assert [rate(model.get_layer(n)) for n in ("first", "second", "third")] == [0.2, 0.0, 0.4]


def test_dropout_on_a_branch_too_cannot_be_switched_off():
    start = keras.Input((T, D))
    dropped = layers.Dropout(0.2, name="drop")(start)
    model = keras.Model(start, [lstm("low")(dropped), layers.Dense(2)(dropped)])
    with pytest.raises(dp.PolicyError, match=r"drop .*also used where the policy does not mask"):
        dp.apply(model, "zaremba")
    assert model.get_layer("drop").rate == 0.2


def test_one_that_is_off_is_nothing():
    model = MODELS["sequential"]([lstm("low"), layers.Dropout(0.0), layers.GaussianNoise(0.0)])
    applied = dp.apply(model, "zaremba", existing="refuse")
    assert not applied.taken_over
    assert not applied.skipped


@pytest.mark.parametrize("form", MODELS)
def test_a_lambda_that_drops_cannot_be_switched_off(form):
    drop = layers.Lambda(lambda x: keras.random.dropout(x, 0.3), output_shape=(T, D), name="drop")
    if form == "code":

        class Off(Code):
            def call(self, inputs, training=False):  # noqa: ARG002
                low, drop, high = self.parts
                return high(drop(low(inputs)))

        model = Off([lstm("low"), drop, lstm("high")])
    else:
        model = MODELS[form]([lstm("low"), drop, lstm("high")])
    with pytest.raises(dp.PolicyError, match=r"drop \(keras.layers.Lambda.*cannot be switched off"):
        dp.apply(model, "zaremba", example=x())
    assert "a second time" in str(dp.apply(model, "zaremba", existing="keep", example=x()))


@pytest.mark.parametrize("is_always_on", [False, True])
def test_a_function_in_the_code_is_seen_by_an_example(is_always_on):
    class Function(keras.Model):
        def __init__(self):
            super().__init__()
            self.low, self.high = lstm("low"), lstm("high")

        def call(self, inputs, training=False):
            y = self.low(inputs)
            if training or is_always_on:
                y = keras.random.dropout(y, 0.4)
            return self.high(y)

    model = Function()
    with pytest.raises(
        dp.PolicyError, match=r"test_existing_dropout.py:\d+ \(keras.random.dropout"
    ):
        dp.apply(model, "zaremba", example=x())
    dp.apply(model, "zaremba", example=x(), existing="keep")


def test_without_an_example_every_one_that_only_code_places_is_told():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.drop = layers.Dense(D), layers.Dropout(0.1, name="inside")

        def call(self, inputs, training=False):
            return self.dense(self.drop(inputs, training=training))

    model = MODELS["functional"]([lstm("low"), Block(), lstm("high")])
    text = str(dp.apply(model, "zaremba"))
    assert "skipped inside (keras.layers.Dropout): rate=0.1; still on" in text
    assert "with example= apply sees where it falls" in text
    dp.remove(model)
    text = str(dp.apply(model, "zaremba", example=x()))
    assert "taken over, back on remove(): inside" in text


def test_dropout_inside_of_attention_is_none_of_a_policys():
    start = keras.Input((T, D))
    low = lstm("low")(start)
    model = keras.Model(start, layers.MultiHeadAttention(2, 4, dropout=0.1)(low, low))
    applied = dp.apply(model, "zaremba")
    assert not applied.skipped
    assert not applied.taken_over


@pytest.mark.parametrize("kind", ["dropout", "noise", "wrapped", "own"])
def test_a_saved_model_has_the_rate_back_on_remove(tmp_path, kind):
    model = MODELS["sequential"]([lstm("low"), KINDS[kind](), lstm("high")])
    dp.apply(model, "zaremba", 0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (loaded, keras.models.clone_model(model)):
        assert rate(each.layers[1]) == 0, "its policy masks there"
        dp.remove(each)
        assert rate(each.layers[1]) == 0.25
        assert type(each.layers[0]) is layers.LSTM
        dp.apply(each, "locked", 0.5)
        assert rate(each.layers[1]) == 0


def test_a_saved_layer_has_its_own_dropout_back_on_remove(tmp_path):
    cells = layers.RNN([layers.GRUCell(D, dropout=0.1), layers.LSTMCell(D, recurrent_dropout=0.2)])
    low = layers.LSTM(D, return_sequences=True, dropout=0.3, recurrent_dropout=0.4, name="low")
    model = MODELS["sequential"]([layers.Bidirectional(low, merge_mode="sum"), cells])
    dp.apply(model, "zaremba", 0.5)
    model.save(tmp_path / "model.keras")
    for each in (keras.saving.load_model(tmp_path / "model.keras"), model):
        both, top = each.layers
        assert (both.forward_layer.dropout, top.cell.cells[0].dropout) == (0, 0)
        dp.remove(each)
        for half in (both.forward_layer, both.backward_layer):
            assert (half.dropout, half.recurrent_dropout) == (0.3, 0.4)
        found = [(cell.dropout, cell.recurrent_dropout) for cell in top.cell.cells]
        assert found == [(0.1, 0.0), (0.0, 0.2)]


def test_two_models_of_one_name_each_get_their_rate_back(tmp_path):
    def part(name, rate):
        return keras.Sequential(
            [keras.Input((T, D)), lstm("rnn"), layers.Dropout(rate, name="drop")], name=name
        )

    start = keras.Input((T, D))
    model = keras.Model(start, [part("one", 0.1)(start), part("two", 0.3)(start)])
    dp.apply(model, "zaremba", 0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        dp.remove(each)
        rates = [each.get_layer(name).get_layer("drop").rate for name in ("one", "two")]
        assert rates == [0.1, 0.3]
