"""A recurrent kernel's gradient, made of all steps at once: whatever is asked, it is the scan's."""

import gc

import dropout_policies_keras
import keras
import numpy as np
import pytest
from dropout_policies_keras.kernels import products
from keras import ops

import dropout_policies as dp

if keras.backend.backend() != "jax":
    pytest.skip("transformations are JAX's alone", allow_module_level=True)

import jax
import jax.extend.core

B, T, D, H = 3, 5, 2, 4

CELLS = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
    "SimpleRNN": ("SimpleRNN", {}),
}
POLICIES = {
    "zaremba": "zaremba",
    "weight_drop": "weight_drop",
    "naive": "naive",
    "untied": dp.variational(gates="untied"),
    "zoneout": dp.zoneout(0.0, 0.3),
}
PADDINGS = {
    "whole": None,
    "padded": np.arange(T) < np.array([[5], [3], [1]]),
    "gap": np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 1, 0, 1]], bool),
}


def drawn(*shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def loss_of(cell, policy="zaremba", padding="whole", steps=T, training=True, **more):
    """A function of a layer's weights, input and start; what to take it at, and a way to go."""
    kind, arguments = CELLS[cell]
    layer = getattr(dropout_policies_keras, kind)(
        H, policy=POLICIES[policy], seed=3, return_state=True, **arguments, **more
    )
    layer.build((B, steps, D))
    (state,) = (v.value for v in layer.non_trainable_variables)

    def loss(weights, x, start, call=None):
        given = {"initial_state": start, "mask": PADDINGS[padding], "training": training}
        others = [state if call is None else state.at[1].set(call)]
        results, _ = layer.stateless_call(weights, others, x, **given)
        return sum((n + 1) * ops.sum(ops.sin(each)) for n, each in enumerate(results))

    shapes = [v.shape for v in layer.trainable_variables]
    states = 2 if kind == "LSTM" else 1

    def at(seed):
        weights = [drawn(*shape, seed=seed + n) for n, shape in enumerate(shapes)]
        start = [drawn(B, H, seed=seed + 10 + n) for n in range(states)]
        return weights, drawn(B, steps, D, seed=seed + 20), start

    return loss, at(100), at(200)


@pytest.fixture
def assert_same(monkeypatch):
    """That what a function finds is the same when each step adds its own product."""

    def same(of, near=2e-5):
        got = jax.tree.leaves(of())
        with monkeypatch.context() as patch:
            patch.setattr(products, "select_product", lambda *_: products.plain_product)
            expected = jax.tree.leaves(of())
        assert got
        for left, right in zip(got, expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=10 * near, atol=near)

    return same


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_a_product_each_step(cell, policy, assert_same):
    def of():
        loss, at, _ = loss_of(cell, policy)
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*at)

    assert_same(of)


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("padding", ["padded", "gap"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_padding_goes_on(cell, padding, zeros, every, assert_same):
    def of():
        more = {"zero_output_for_mask": zeros, "return_sequences": every}
        loss, at, _ = loss_of(cell, padding=padding, **more)
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*at)

    assert_same(of)


MODES = {
    "forward": lambda loss, at, along: jax.jvp(loss, at, along),
    "forward over reverse": lambda loss, at, along: jax.jvp(jax.grad(loss, (0, 1, 2)), at, along),
    "reverse over forward": lambda loss, at, along: jax.grad(
        lambda *at: jax.jvp(loss, at, along)[1], (0, 1, 2)
    )(*at),
    "reverse over reverse": lambda loss, at, _: jax.grad(
        lambda *at: sum(
            ops.sum(ops.square(each)) for each in jax.tree.leaves(jax.grad(loss, (0, 1, 2))(*at))
        ),
        (0, 1, 2),
    )(*at),
    "of many inputs": lambda loss, at, along: jax.vmap(
        jax.grad(loss, (0, 1, 2)), (None, 0, None, 0)
    )(at[0], ops.stack([at[1], along[1]]), at[2], np.arange(2, dtype="uint32")),
    "of many weights": lambda loss, at, along: jax.vmap(jax.grad(loss, (0, 1, 2)), (0, None, None))(
        [ops.stack(pair) for pair in zip(at[0], along[0], strict=True)], *at[1:]
    ),
    "checkpointed": lambda loss, at, _: jax.grad(jax.checkpoint(loss), (0, 1, 2))(*at),
    "of the input": lambda loss, at, _: jax.grad(loss, 1)(*at),
    "of the start": lambda loss, at, _: jax.grad(loss, 2)(*at),
    "of the weights": lambda loss, at, _: jax.grad(loss)(*at),
    "of none": lambda loss, at, _: loss(*at),
}


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_goes_on(mode, cell, assert_same):
    """With masks of each step and of all steps, and padding, which has no derivative."""

    def of():
        loss, at, along = loss_of(cell, "naive", "padded", return_sequences=True)
        return jax.jit(lambda at, along: MODES[mode](loss, at, along))(at, along)

    assert_same(of)


def test_other_types_go_on(assert_same):
    """A kernel is float32, and its products are bfloat16."""

    def of():
        loss, at, _ = loss_of("GRU", dtype="mixed_bfloat16")
        gradients = jax.jit(jax.grad(loss, (0, 1)))(*at)
        assert all(each.dtype == "float32" for each in jax.tree.leaves(gradients))
        return [each / ops.max(ops.abs(each)) for each in jax.tree.leaves(gradients)]

    assert_same(of, near=0.03)


@pytest.mark.parametrize("cell", CELLS)
def test_evaluation_has_gradients(cell, assert_same):
    """What comes into its steps is the input itself, to take less memory."""

    def of():
        loss, at, _ = loss_of(cell, "zoneout", training=False)
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*at)

    assert_same(of)


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_need_be_compiled(cell, assert_same):
    def of():
        loss, at, _ = loss_of(cell, "naive", "gap")
        return jax.grad(loss, (0, 1, 2))(*at)

    assert_same(of)


def equations(jaxpr, inside=False):
    """The operations of a trace, and whether each is in a scan."""
    for each in jaxpr.eqns:
        yield each, inside
        for deeper in jax.extend.core.jaxprs_in_params(each.params):
            yield from equations(deeper, inside or each.primitive.name == "scan")


def traced(cell, policy="zaremba", **more):
    loss, at, _ = loss_of(cell, policy, **more)
    return list(equations(jax.make_jaxpr(jax.grad(loss))(*at).jaxpr))


@pytest.mark.parametrize("policy", ["zaremba", "weight_drop", "untied"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_kernels_gradient_is_one_product(cell, policy, monkeypatch):
    apart = cell == "GRU, reset before" or policy == "untied"
    gates = {"LSTM": 4, "SimpleRNN": 1}.get(cell, 3)
    kernels, shape = (gates, (H, H)) if apart else (1, (H, gates * H))

    def counted():
        """Products in the kernel's shape: outside of a scan, and in one."""
        found = [
            inside
            for each, inside in traced(cell, policy)
            if each.primitive.name == "dot_general"
            and each.outvars[0].aval.shape in (shape, shape[::-1])
        ]
        return found.count(False), found.count(True)

    assert counted() == (kernels, 0)
    monkeypatch.setattr(products, "select_product", lambda *_: products.plain_product)
    assert counted() == (0, kernels), "the count can fail"


def test_an_unrolled_layer_has_no_scan():
    names = [{each.primitive.name for each, _ in traced("LSTM", unroll=u)} for u in (True, False)]
    assert ["scan" in each for each in names] == [False, True]


@pytest.mark.parametrize("cell", ["LSTM", "SimpleRNN"])
def test_what_a_product_is_added_to_needs_no_turn(cell, monkeypatch):
    def kept():
        loss, at, _ = loss_of(cell, steps=200)
        return jax.jit(jax.grad(loss)).lower(*at).compile().memory_analysis().temp_size_in_bytes

    found = kept()
    monkeypatch.setattr(products, "select_product", lambda *_: products.plain_product)
    assert found <= kept()


@pytest.mark.parametrize("cell", CELLS)
def test_no_tracer_leaks(cell):
    loss, at, _ = loss_of(cell, "naive", "gap")
    with jax.checking_leaks():
        jax.jit(jax.grad(loss))(*at)


def test_nothing_is_kept_after_a_call():
    layer = dropout_policies_keras.LSTM(H, policy="naive")
    x = drawn(B, T, D, seed=1)
    layer(x, training=True)
    gc.collect()
    before = len(jax.live_arrays())
    for _ in range(3):
        layer(x, training=True)
    gc.collect()
    assert len(jax.live_arrays()) == before
