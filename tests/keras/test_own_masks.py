"""Masks that a Keras model's code draws itself: seen, and never doubled without a word."""

import sys

import keras
import numpy as np
import pytest
from dropout_policies_keras import Embedding
from dropout_policies_keras.model_wiring import call_connections, function_observer
from keras import layers, ops

import dropout_policies as dp

B, T, D = 8, 6, 16
KEEP = 0.6
BACKEND = keras.backend.backend()
random = keras.random


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


class Two(keras.Model):
    """Two layers, and what `between` does in training to what goes from one to the other."""

    def __init__(self, between, place="between"):
        super().__init__()
        self.between, self.place = between, place
        self.low = layers.LSTM(D, return_sequences=True, name="low")
        self.high = layers.LSTM(D, return_sequences=True, return_state=True, name="high")
        self.front, self.head = layers.Dense(D), layers.Dense(D)

    def at(self, place, value, training):
        return self.between(value) if training and place == self.place else value

    def call(self, inputs, training=False):
        value = self.at("input", self.front(self.at("front", inputs, training)), training)
        value = self.at("between", self.low(value), training)
        value, h, _ = self.high(value)
        value, h = self.at("output", value, training), self.at("state", h, training)
        return self.at("head", self.head(value) + self.head(h)[:, None], training)


class Locked(layers.Layer):
    """A layer of the user's own whose name does not say dropout."""

    def __init__(self, **more):
        super().__init__(**more)
        self.generator = random.SeedGenerator(1)

    def call(self, value, training=True):
        if not training:
            return value
        shape = (ops.shape(value)[0], *[1] * (len(value.shape) - 2), value.shape[-1])
        kept = random.uniform(shape, seed=self.generator) < KEEP
        return value * ops.cast(kept, value.dtype) / KEEP


def kept(value, rate=1 - KEEP):
    return ops.cast(random.uniform(ops.shape(value)) >= rate, value.dtype)


def half(value, keep):
    return ops.cast(random.uniform(value.shape, dtype="bfloat16") < keep, value.dtype)


def in_place(value):
    value *= kept(value)
    return value


def native(value):
    """As one writes it for a backend alone."""
    if BACKEND == "torch":
        return value * torch.bernoulli(torch.full_like(value, KEEP)) / KEEP
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.where(tf.random.uniform(tf.shape(value)) < KEEP, value / KEEP, 0.0)
    import jax

    return value * jax.random.bernoulli(jax.random.PRNGKey(0), KEEP, value.shape) / KEEP


MASKS = {
    "uniform": lambda v: v * kept(v) / KEEP,
    "from the left": lambda v: kept(v) / KEEP * v,
    "binomial": lambda v: v * random.binomial(ops.shape(v), 1, KEEP) / KEEP,
    "binomial of many": lambda v: v * random.binomial(v.shape, 1, ops.full(v.shape, KEEP)),
    "where": lambda v: ops.where(random.uniform(ops.shape(v)) < KEEP, v, 0.0),
    "floor": lambda v: v * ops.floor(KEEP + random.uniform((ops.shape(v)[0], 1, 1))),
    "a layer": Locked(),
    "native": native,
    "what is dropped is subtracted": lambda v: v - v * (1 - kept(v)),
    "through an activation": lambda v: ops.sigmoid(v * kept(v)),
    "two masks": lambda v: v * kept(v, 0.1) * kept(v[:1], 0.1),
    "steps": lambda v: ops.stack([v[:, t] * kept(v[:, t]) for t in range(T)], axis=1),
    "in place": in_place,
    "beside others": lambda v: ops.concatenate([v[..., :8] * kept(v[..., :8]), v[..., 8:]], -1),
    "beside a sum": lambda v: v * kept(v) + ops.arange(D, dtype="float32"),
    "half precision": lambda v: v * half(v, KEEP),
}
if BACKEND == "torch":
    import torch

    MASKS |= {
        "bernoulli_": lambda v: v * torch.empty_like(v[:, :1]).bernoulli_(KEEP).div_(KEEP),
        "uniform_": lambda v: v * torch.empty_like(v[:, :1]).uniform_().lt(KEEP),
        "scaled in place": lambda v: v * torch.bernoulli(torch.full_like(v, KEEP)).div_(KEEP),
        "of probabilities": lambda v: v * torch.full_like(v, KEEP).bernoulli(),
    }

NO_MASKS = {
    "added": lambda v: v + random.uniform(ops.shape(v)),
    "added, normal": lambda v: v + random.normal(ops.shape(v)),
    "added, of the value's size": lambda v: v + random.uniform(ops.shape(v), -1, 1) * ops.std(v),
    "rate 0": lambda v: v * kept(v, 0.0),
    "rate 0, binomial": lambda v: v * random.binomial(ops.shape(v), 1, 1.0),
    "rate 0, floor": lambda v: v * ops.floor(1.0 + random.uniform((ops.shape(v)[0], 1, 1))),
    "rate 0, half precision": lambda v: v * half(v, 1.0),
    "a constant": lambda v: v * 0.5,
    "added to a part": lambda v: ops.concatenate(
        [ops.relu(v[..., :8] + random.uniform(v[..., :8].shape)), v[..., 8:]], -1
    ),
    "moved": lambda v: ops.roll(v, int(random.uniform(()) * T), axis=1),
    "of no use": lambda v: (v, random.uniform((3,)))[0],
    "itself at random": lambda v: ops.where(random.uniform(ops.shape(v)) < KEEP, v, -v),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_on_a_masked_connection_is_an_error(name):
    model = Two(MASKS[name])
    words = r"test_own_masks.py:\d+ \(a mask by .*, drawn in code\) masks what goes from 'low' into"
    with pytest.raises(dp.PolicyError, match=words) as caught:
        dp.apply(model, "zaremba", example=x())
    assert "delete it from the model's code or set its rate to 0 there" in str(caught.value)
    assert type(model.low) is layers.LSTM
    dp.apply(model, "zaremba", rate={"between": 0}, example=x()).remove()
    kept = str(dp.apply(model, "zaremba", example=x(), existing="keep"))
    assert "kept, and it masks what goes from 'low' into 'high' a second time" in kept


@pytest.mark.parametrize("name", NO_MASKS)
@pytest.mark.parametrize("place", ["between", "input", "output"])
def test_what_is_no_mask_is_none(name, place):
    assert not dp.apply(Two(NO_MASKS[name], place), "zaremba", example=x()).skipped


@pytest.mark.parametrize("name", ["uniform", "binomial", "where", "a layer", "native"])
def test_every_place_is_seen_as_that_of_a_function_is(name):
    masked = {
        "input": "the input of 'low'",
        "output": "the output of 'high'",
        "between": "what goes from 'low' into 'high'",
    }
    left = {
        "front": "it is on a connection between other layers, which no mask falls on",
        "head": "it is on a connection between other layers, which no mask falls on",
        "state": "it is on the last state of 'high', which no mask falls on",
    }
    for place, words in masked.items():
        with pytest.raises(dp.PolicyError, match=rf"drawn in code\) masks {words} and cannot be"):
            dp.apply(Two(MASKS[name], place), "zaremba", example=x())
    for place, words in left.items():
        assert words in str(dp.apply(Two(MASKS[name], place), "zaremba", example=x()))
    dp.apply(Two(MASKS[name]), "zoneout", example=x())


def test_the_models_graph_may_show_the_layers_and_not_the_mask():
    start = keras.Input((T, D))
    low = layers.LSTM(D, return_sequences=True, name="low")(start)
    model = keras.Model(start, layers.LSTM(D, name="high")(Locked()(low)))
    with pytest.raises(dp.PolicyError, match=r"keras.random.uniform, drawn in code"):
        dp.apply(model, "zaremba", example=x())


def test_in_evaluation_too():
    class Always(Two):
        def at(self, place, value, training):  # noqa: ARG002
            return self.between(value) if place == self.place else value

    with pytest.raises(dp.PolicyError, match="masks what goes from 'low' into 'high'") as caught:
        dp.apply(Always(MASKS["uniform"]), "zaremba", example=x())
    assert str(caught.value).count("test_own_masks.py") == 1


def test_a_layer_that_is_a_dropout_is_that_alone():
    class LockedDropout(Locked):
        def __init__(self):
            super().__init__(name="drop")
            self.rate = 0.4

    drop = LockedDropout()

    class Model(Two):
        def __init__(self):
            super().__init__(drop)
            self.drop = drop

    applied = dp.apply(Model(), "zaremba", example=x())
    assert [(one.name, one.rate) for one in applied.taken_over] == [("drop", "rate=0.4")]
    assert not applied.skipped


@pytest.mark.parametrize("place", ["input", "between", "output"])
def test_a_mask_that_a_dropout_makes_of_ones_is_on_every_connection(place):
    drop = layers.Dropout(0.4, name="drop")
    model = Two(lambda v: v * drop(ops.ones_like(v[:, :1]), training=True), place)
    model.drop = drop
    applied = dp.apply(model, "zaremba", example=x())
    assert [one.name for one in applied.taken_over] == ["drop"]
    assert drop.rate == 0.0
    in_code = Two(lambda v: v * random.dropout(ops.ones_like(v[:, :1]), 0.4), place)
    with pytest.raises(dp.PolicyError, match=r"keras.random.dropout, rate=0.4\) masks"):
        dp.apply(in_code, "zaremba", example=x())


class Sides(keras.Model):
    """A layer whose input is two values side by side, the first of them masked."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose
        self.words, self.more = layers.Dense(D), layers.Dense(D)
        self.rnn = layers.LSTM(D, name="rnn")

    def call(self, inputs):
        return self.rnn(self.choose(self.words(inputs), self.more(inputs)))


def test_a_mask_on_a_part_of_an_input_is_one():
    for join in (lambda a, b: ops.concatenate([a * kept(a), b], -1), lambda a, b: a * kept(a) + b):
        with pytest.raises(dp.PolicyError, match=r"drawn in code\) masks the input of 'rnn'"):
            dp.apply(Sides(join), "zaremba", example=x())
    for join in (
        lambda a, b: ops.where(random.uniform(ops.shape(a)) < KEEP, a, b),
        lambda a, b: ops.concatenate([a + random.uniform(ops.shape(a)), b], -1),
    ):
        assert not dp.apply(Sides(join), "zaremba", example=x()).skipped


def test_a_first_state_of_noise_is_no_mask():
    class Started(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = layers.GRU(D, name="rnn")

        def call(self, inputs):
            shape = (ops.shape(inputs)[0], D)
            state = random.uniform(shape) * random.binomial(shape, 1, 0.5)
            return self.rnn(inputs, initial_state=state)

    policy = dp.Policy(input=dp.drop(0.5), hidden=dp.drop(0.5))
    assert not dp.apply(Started(), policy, example=x()).skipped


def test_a_choice_between_two_values_is_no_mask():
    class Choice(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (
                layers.GRU(D, return_sequences=True, name=name) for name in "abc"
            )

        def call(self, inputs):
            a, b = self.a(inputs), self.b(inputs)
            return self.c(ops.where(random.uniform(ops.shape(a)) < 0.5, a, b))

    assert not dp.apply(Choice(), "zaremba", example=x()).skipped


def by_where(new, old):
    return ops.where(random.uniform(ops.shape(new)) < 0.1, old, new)


def by_products(new, old):
    mask = random.binomial(ops.shape(new), 1, 0.1)
    return mask * old + (1 - mask) * new


class OwnZoneout(keras.Model):
    def __init__(self, choose):
        super().__init__()
        self.choose, self.cell = choose, layers.GRUCell(D, name="cell")
        self.top, self.head = layers.LSTM(D, name="top"), layers.Dense(2)

    def call(self, inputs, training=False):
        h, out = ops.zeros_like(inputs[:, 0]), []
        for t in range(T):
            new, _ = self.cell(inputs[:, t], [h])
            h = self.choose(new, h) if training else new
            out.append(h)
        return self.head(self.top(ops.stack(out, 1)))


@pytest.mark.parametrize("choose", [by_where, by_products])
def test_a_choice_between_two_states_is_zoneout_and_no_dropout_of_an_output(choose):
    model = OwnZoneout(choose)
    text = str(dp.apply(model, "zaremba", example=x()))
    assert "it is on the state that 'cell' starts from, which no mask falls on" in text
    dp.remove(model)
    with pytest.raises(dp.PolicyError, match=r"drawn in code\) masks the state of 'cell'"):
        dp.apply(model, "zoneout", example=x())


def test_a_mask_at_every_step_is_no_choice():
    model = OwnZoneout(lambda new, _: new * kept(new))
    with pytest.raises(dp.PolicyError, match="masks what goes from 'cell' into 'top'"):
        dp.apply(model, "zaremba", example=x())


@pytest.mark.parametrize("choose", [by_where, by_products])
def test_scheduled_sampling_is_no_mask(choose):
    class Decoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.cell, self.head = layers.GRUCell(D, name="cell"), layers.Dense(D)

        def call(self, inputs):
            h, y, out = ops.zeros_like(inputs[:, 0]), inputs[:, 0], []
            for t in range(T):
                h, _ = self.cell(choose(inputs[:, t], y), [h])
                y = self.head(h)
                out.append(y)
            return ops.stack(out, 1)

    policy = dp.Policy(input=dp.drop(0.5), hidden=dp.drop(0.5))
    assert not dp.apply(Decoder(), policy, example=x()).skipped


def test_masks_of_a_policy_are_no_masks_of_the_code():
    class Words(keras.Model):
        def __init__(self):
            super().__init__()
            self.words = Embedding(11, D, policy=dp.Policy(embedding=dp.drop(0.3, per="call")))
            self.rnn = layers.LSTM(D)

        def call(self, tokens, training=False):
            return self.rnn(self.words(tokens, training=training))

    assert not dp.wiring(Words(), example=np.zeros((B, T), "int32")).dropouts


def test_a_run_leaves_no_trace():
    def functions():
        found = {}
        for title in function_observer.DRAWS:
            package, _, name = title.rpartition(".")
            if (module := sys.modules.get(package)) is not None:
                found[title] = getattr(module, name)
        return found

    layer = Locked()
    model = Two(layer)
    model(x())
    model.layer = layer
    before, state = functions(), np.asarray(ops.convert_to_numpy(layer.generator.state)).tolist()
    dp.wiring(model, example=x())
    assert functions() == before
    assert np.asarray(ops.convert_to_numpy(layer.generator.state)).tolist() == state


@pytest.mark.parametrize("name", ["uniform", "binomial", "where", "a layer", "native"])
def test_without_the_draws_these_tests_fail(name, monkeypatch):
    monkeypatch.setattr(function_observer, "DRAWS", {})
    assert not dp.apply(Two(MASKS[name]), "zaremba", example=x()).skipped


def test_without_the_two_ends_these_tests_fail(monkeypatch):
    monkeypatch.setattr(call_connections, "extremes", lambda drawn: (drawn, drawn))
    assert not dp.apply(Two(MASKS["uniform"]), "zaremba", example=x()).skipped
