"""Calls that a framework maps over samples: `jax.vmap`, `torch.func.vmap`, `tf.vectorized_map`."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, Embedding, SimpleRNN
from keras import layers, ops

import dropout_policies as dp

B, T, D, H = 4, 3, 2, 8
BACKEND = keras.backend.backend()
MAPPED = r"this call is mapped over samples \(jax.vmap, torch.func.vmap, tf.vectorized_map\)"
ANY_ERROR = Exception
"""TensorFlow's AutoGraph gives errors another class; the message stays."""


def vmap(function, axes):
    """The framework's own; `axes` has 0 for arguments that are mapped and None for others."""
    if BACKEND == "jax":
        import jax

        return jax.vmap(function, in_axes=axes)
    if BACKEND == "torch":
        import torch

        return torch.func.vmap(function, in_dims=axes, randomness="different")
    import tensorflow as tf

    def mapped(*arguments):
        def one(elements):
            left = iter(elements)
            whole = zip(arguments, axes, strict=True)
            return function(*(next(left) if axis == 0 else x for x, axis in whole))

        given = [x for x, axis in zip(arguments, axes, strict=True) if axis == 0]
        return tf.vectorized_map(one, given)

    return mapped


def gradient(function):
    """Of a scalar with respect to a tensor."""
    if BACKEND == "jax":
        import jax

        return jax.grad(function)
    if BACKEND == "torch":
        import torch

        return torch.func.grad(function)
    import tensorflow as tf

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    return gradient


def compiled(function):
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    return function


def numpy(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(tensor))


def data(samples=B):
    x = np.random.default_rng(0).standard_normal((samples, 1, T, D)).astype("float32")
    return ops.convert_to_tensor(x)


def words():
    return ops.convert_to_tensor(np.arange(B * T).reshape(B, 1, T).astype("int32"))


MODELS = {
    "LSTM": lambda seed: LSTM(H, policy="zaremba", seed=seed, name="rnn"),
    "GRU": lambda seed: GRU(H, policy="variational", seed=seed, name="rnn"),
    "SimpleRNN": lambda seed: SimpleRNN(H, policy="locked", seed=seed, name="rnn"),
    "inside": lambda seed: LSTM(H, policy="zoneout", seed=seed, name="rnn"),
    "weights and rows": lambda seed: LSTM(H, policy="awd", seed=seed, name="rnn"),
    "schedule": lambda seed: LSTM(
        H, policy=dp.zaremba(dp.schedule({0: 0.5, 2: 0.2})), seed=seed, name="rnn"
    ),
    "cells": lambda seed: RNN(
        [layers.LSTMCell(H), layers.GRUCell(H)], policy="zaremba", seed=seed, name="rnn"
    ),
    "both directions": lambda seed: layers.Bidirectional(
        LSTM(H, policy="zaremba", seed=seed, name="rnn"), name="rnn"
    ),
    "words": lambda seed: Embedding(
        B * T, D, policy=dp.Policy(embedding=dp.drop(0.5, per="sequence")), seed=seed, name="rnn"
    ),
}


def model(kind="LSTM", seed=None):
    start = keras.Input((T,), dtype="int32") if kind == "words" else keras.Input((T, D))
    return keras.Model(start, MODELS[kind](seed)(start))


def inputs(kind):
    return words() if kind == "words" else data()


def states(some):
    """The values of a model's variables: trainable, and others."""
    return [v.value for v in some.trainable_variables], [
        v.value for v in some.non_trainable_variables
    ]


def called(some, weights, others, x):
    return some.stateless_call(weights, others, x, training=True)[0]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_one_random_state_for_many_samples_is_refused(kind, seed):
    some = model(kind, seed)
    weights, others = states(some)
    with pytest.raises(ANY_ERROR, match=r"rnn: " + MAPPED):
        vmap(lambda x: called(some, weights, others, x), (0,))(inputs(kind))


FORMS = {
    "as it is": lambda f: vmap(f, (0,)),
    "compiled before": lambda f: vmap(_called_once(compiled(f)), (0,)),
    "compiled after": lambda f: compiled(vmap(f, (0,))),
    "of gradients": lambda f: vmap(gradient(lambda x: ops.sum(f(x))), (0,)),
    "of compiled gradients": lambda f: vmap(compiled(gradient(lambda x: ops.sum(f(x)))), (0,)),
    "under a gradient": lambda f: gradient(lambda x: ops.sum(vmap(f, (0,))(x))),
    "twice": lambda f: lambda x: vmap(vmap(f, (0,)), (0,))(ops.expand_dims(x, 1)),
}
if BACKEND == "tensorflow":
    FORMS["in a condition"] = lambda f: vmap(
        lambda x: ops.cond(ops.sum(x) < 1e9, lambda: f(x), lambda: f(x)), (0,)
    )
if BACKEND == "jax":
    FORMS["in a loop"] = lambda f: vmap(
        lambda x: ops.fori_loop(0, 2, lambda _, y: y + f(x), ops.zeros((1, H))), (0,)
    )


def _called_once(function):
    """What is compiled already when it is mapped."""
    function(data()[0])
    return function


@pytest.mark.parametrize("form", FORMS)
def test_so_it_is_in_every_form(form):
    some = model(seed=3)
    weights, others = states(some)
    with pytest.raises(ANY_ERROR, match=r"rnn: " + MAPPED):
        FORMS[form](lambda x: called(some, weights, others, x))(data())


@pytest.mark.parametrize("what", ["x", "state", "mask"])
def test_whatever_is_mapped_of_what_a_sample_has(what):
    layer = LSTM(H, policy="zaremba", seed=3, name="rnn")
    x = data()[0]
    layer(x)

    def call(value):
        given = {"initial_state": [value, value]} if what == "state" else {}
        given = {"mask": value} if what == "mask" else given
        return layer(value if what == "x" else x, training=True, **given)

    mapped = {"x": data(), "state": ops.ones((B, 1, H)), "mask": ops.ones((B, 1, T), "bool")}
    with pytest.raises(ANY_ERROR, match=r"rnn: " + MAPPED):
        vmap(call, (0,))(mapped[what])


def test_a_call_that_is_refused_is_not_counted():
    layer, same = (LSTM(H, policy="zaremba", seed=3, name="rnn") for _ in range(2))
    x = data()[0]
    for each in (layer, same):
        each(x)
    same.set_weights(layer.get_weights())
    with pytest.raises(ANY_ERROR, match=MAPPED):
        vmap(lambda x: layer(x, training=True), (0,))(data())
    assert layer.calls == 0
    np.testing.assert_array_equal(*(numpy(each(x, training=True)) for each in (layer, same)))
    assert layer.calls == 1


@pytest.mark.parametrize("kind", ["LSTM", "inside", "cells", "words"])
@pytest.mark.parametrize("seed", [None, 3])
def test_with_a_random_state_for_each_sample_each_has_its_own_masks(kind, seed):
    """Those of a call of its own with that state, compiled as the mapped one is."""
    some = model(kind, seed)
    weights, others = states(some)
    counts = [np.array([0, n], numpy(others[0]).dtype) for n in range(B)]
    of_each = [ops.stack([other + ops.convert_to_tensor(n) for n in counts]) for other in others]
    x = inputs(kind)
    got = numpy(
        vmap(lambda x, *own: called(some, weights, list(own), x), (0, *[0] * len(others)))(
            x, *of_each
        )
    )
    for n in range(B):
        own = [other[n] for other in of_each]
        expected = compiled(lambda x, *own: called(some, weights, list(own), x))(x[n], *own)
        np.testing.assert_allclose(got[n], numpy(expected), atol=1e-6)


def test_many_random_states_for_one_input_are_many_samples():
    some = model(seed=3)
    weights, (state,) = states(some)
    counts = [ops.convert_to_tensor(np.array([0, n], numpy(state).dtype)) for n in range(B)]
    x = data()[0]
    got = numpy(
        vmap(lambda own: called(some, weights, [own], x), (0,))(
            ops.stack([state + n for n in counts])
        )
    )
    assert len({row.tobytes() for row in got}) == B
    np.testing.assert_allclose(
        got[1], numpy(called(some, weights, [state + counts[1]], x)), atol=1e-6
    )


def test_a_state_of_each_sample_in_one_dimension_is_not_enough_in_two():
    some = model(seed=3)
    weights, (state,) = states(some)
    inner = vmap(lambda x, own: called(some, weights, [own], x), (0, 0))
    x = ops.expand_dims(data(), 0)
    x = ops.concatenate([x, x + 1.0])
    with pytest.raises(ANY_ERROR, match=MAPPED):
        vmap(lambda x: inner(x, ops.stack([state] * B)), (0,))(x)


@pytest.mark.parametrize("seed", [None, 3])
def test_masks_of_weights_are_one_for_all_samples_anyway(seed):
    """So per-sample gradients sum to the gradient of the batch."""
    some = keras.Sequential([keras.Input((T, D)), LSTM(H, policy="weight_drop", seed=seed)])
    weights, others = states(some)
    x = data()
    whole = compiled(lambda x: called(some, weights, others, x))(x[:, 0])
    each = vmap(lambda x: called(some, weights, others, x), (0,))(x)
    np.testing.assert_allclose(numpy(each)[:, 0], numpy(whole), atol=1e-6)


@pytest.mark.parametrize("policy", ["none", "zaremba", "zoneout"])
def test_without_masks_calls_are_mapped_as_in_the_stock_layer(policy):
    layer = LSTM(H, policy=policy, seed=3)
    x = data()
    whole = numpy(layer(x[:, 0]))
    np.testing.assert_allclose(numpy(vmap(layer, (0,))(x))[:, 0], whole, atol=1e-6)
    quiet = LSTM(H, policy=policy, rate=None if policy == "none" else 0.0, seed=3)
    quiet(x[0])
    quiet.set_weights(layer.get_weights())
    got = vmap(lambda x: quiet(x, training=True), (0,))(x)
    if policy != "zoneout":
        np.testing.assert_allclose(numpy(got)[:, 0], whole, atol=1e-6)


def test_a_jacobian_maps_directions_and_no_samples():
    some = model(seed=3)
    weights, others = states(some)
    x = data()[:, 0]
    expected = numpy(called(some, weights, others, x)).shape + tuple(x.shape)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = called(some, weights, others, x)
        assert tuple(tape.jacobian(y, x).shape) == expected
        return
    if BACKEND == "jax":
        import jax as framework
    else:
        from torch import func as framework
    for jacobian in (framework.jacrev, framework.jacfwd):
        found = jacobian(lambda x: called(some, weights, others, x))(x)
        assert tuple(found.shape) == expected


def test_elements_taken_one_after_another_are_calls():
    """`tf.map_fn`, `jax.lax.scan` over the state, or a loop."""
    layer = LSTM(H, policy="zaremba", seed=3)
    x = data()
    layer(x[0])
    expected = [numpy(layer(each, training=True)) for each in x]
    layer.calls = 0
    if BACKEND == "tensorflow":
        import tensorflow as tf

        got = tf.map_fn(lambda each: layer(each, training=True), x)
    elif BACKEND == "jax":
        import jax

        some = keras.Sequential([keras.Input((T, D)), layer])
        weights, others = states(some)

        def step(others, each):
            y, others = some.stateless_call(weights, others, each, training=True)
            return others, y

        got = jax.lax.scan(step, others, x)[1]
    else:
        got = ops.stack([layer(each, training=True) for each in x])
    np.testing.assert_allclose(numpy(got), np.stack(expected), atol=1e-6)


if BACKEND == "jax":

    @pytest.mark.parametrize("seed", [None, 3])
    def test_a_compiled_call_that_keeps_no_random_state_is_refused(seed):
        """Every call of it would have the same masks, and leave the state to its trace."""
        import jax

        layer = LSTM(H, policy="zaremba", seed=seed, name="rnn")
        x = data()[0]
        layer(x)
        before = numpy(layer.generator.state)
        for form in (jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))):
            with pytest.raises(dp.PolicyError, match=r"rnn: jax.jit compiles .*stateless_call"):
                form(lambda x: layer(x, training=True))(x)
            np.testing.assert_array_equal(numpy(layer.generator.state), before)
        for allowed in (layer, lambda x: layer(x, training=False)):
            np.testing.assert_allclose(numpy(jax.jit(allowed)(x)), numpy(layer(x)), atol=1e-6)
        jax.grad(lambda x: ops.sum(layer(x, training=True)))(x)
        assert layer.calls > 0


if BACKEND == "torch":

    def test_a_mapped_call_that_is_compiled_is_refused():
        import torch

        layer = LSTM(H, policy="zaremba", seed=3, name="rnn")
        layer(data()[0])
        mapped = vmap(lambda x: layer(x, training=True), (0,))
        with pytest.raises(ANY_ERROR, match=r"rnn: " + MAPPED):
            torch.compile(mapped, backend="eager")(data())
