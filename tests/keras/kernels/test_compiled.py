"""What is compiled in one piece: the core's bits, and time that grows with the steps alone."""

import dropout_policies_keras
import keras
import numpy as np
import pytest
from dropout_policies_keras import masks
from dropout_policies_keras.kernels import compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import dropout_policies as dp
from dropout_policies.compilation import libraries
from dropout_policies.masks import compiled_bits, keyed
from dropout_policies.placement.plans import PlannedMask, Slot
from dropout_policies.policies.sites import Site

BACKEND = keras.backend.backend()


def traced(function):
    """A function as a step of `fit` runs it: in a graph, if the backend has them."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


@pytest.fixture(params=["at once", "by operations"])
def way(request, monkeypatch):
    """Both ways that the bits of masks are computed."""
    if request.param == "at once":
        assert compiled_bits.has_compiled_bits(), "the tests need a C compiler"
    else:
        monkeypatch.setattr(compiled, "find_compiled_bits", lambda *_: None)
    return request.param


words = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))


@settings(max_examples=15)
@given(words, words, sizes, st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 6))
def test_bits_at_once_are_the_cores(k0, k1, shape, rate, row_offset):
    used = []

    @traced
    def bits(key, least):
        compiled_bits = compiled.find_compiled_bits(masks.keep_bits, shape, key)
        used.append(compiled_bits)
        return compiled_bits((key[0], key[1]), least, shape, row_offset)

    key = np.array([k0, k1], np.uint32).view(np.int32)
    got = bits(ops.convert_to_tensor(key), ops.convert_to_tensor(_least(rate), dtype="int32"))
    expected = keyed.keep_bits((k0, k1), rate, shape, row_offset)
    np.testing.assert_array_equal(ops.convert_to_numpy(got), expected)
    assert all(used)


def _least(rate):
    return keyed.threshold(rate) - 2**31


@pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends trace each size anew")
@pytest.mark.parametrize("steps", [3, None])
def test_sizes_may_be_known_only_when_a_graph_runs(steps):
    import tensorflow as tf

    used = []

    @tf.function(input_signature=[tf.TensorSpec([steps, None], tf.float32)])
    def bits(like):
        steps, batch = ops.shape(like)
        key, least, shape = tf.constant([3, 4]), tf.constant(_least(0.4)), (steps, batch, 5)
        used.append(compiled.find_compiled_bits(masks.keep_bits, shape, key))
        return (used[-1] or masks.keep_bits)((key[0], key[1]), least, shape, 2)

    for batch in (4, 7, 2):
        expected = keyed.keep_bits((3, 4), 0.4, (3, batch, 5), 2)
        np.testing.assert_array_equal(bits(np.zeros((3, batch), np.float32)), expected)
    assert [each is None for each in used] == [steps is None], "each T would be compiled anew"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.65])
def test_masks_without_a_seed_are_the_generators(rate):
    """Those of Keras's: which masks follows from its seed, and no two are the same."""
    one = PlannedMask(dp.drop(rate), rate, (50, 40, 51))
    wanted = {Slot(Site.INPUT, 0, 0): one, Slot(Site.BETWEEN, 1, 0): one}

    def drawn(generator):
        def of_a_call():
            return list(masks.draw(wanted, generator, masks.BitSource(None), "float32").values())

        # JAX's function would leave a tracer in the generator.
        found = (of_a_call if BACKEND == "jax" else traced(of_a_call))()
        return [ops.convert_to_numpy(mask) != 0 for mask in found]

    generator = keras.random.SeedGenerator(7)
    first, second = drawn(generator), drawn(generator)
    np.testing.assert_array_equal(first, drawn(keras.random.SeedGenerator(7)))
    count = first[0].size
    expected = np.eye(4) * rate * (1 - rate) + (1 - rate) ** 2
    found = [[(a & b).mean() for b in (*first, *second)] for a in (*first, *second)]
    np.testing.assert_allclose(found, expected, atol=5 / count**0.5)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX compiles whatever it runs")
def test_nothing_is_compiled_where_nothing_may_be(monkeypatch):
    key = ops.convert_to_tensor([1, 2], dtype="int32")
    used = []

    def ask(x):
        used.append(compiled.find_compiled_bits(masks.keep_bits, (3, 2, 5), key))
        return x

    traced(ask)(key)
    libraries.compiled_library.cache_clear()
    monkeypatch.setenv("DROPOUT_POLICIES_COMPILE", "0")
    try:
        traced(ask)(key)
    finally:
        libraries.compiled_library.cache_clear()
    assert used[0] is not None
    assert used[-1] is None


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends trace the loop")
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("policy", ["zaremba", "weight_drop", "variational"])
def test_the_work_of_a_step_grows_as_its_steps(kind, policy):
    """Keras's own layers fill an array of all steps for each step's gradient."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Elements(TorchDispatchMode):
        """What comes out of every operation, views left out."""

        made = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if not any(each.alias_info for each in function._schema.returns):
                arrays = filter(torch.is_tensor, keras.tree.flatten(found))
                self.made += sum(each.numel() for each in arrays)
            return found

    def work(steps):
        layer = getattr(dropout_policies_keras, kind)(8, return_sequences=True, policy=policy)
        x = ops.convert_to_tensor(np.ones((4, steps, 8), np.float32))
        layer.build(x.shape)
        with Elements() as elements:
            ops.sum(layer(x, training=True)).backward()
        return elements.made

    short, long, longer = work(10), work(40), work(70)
    np.testing.assert_allclose(longer - long, long - short, rtol=0.05)


@pytest.mark.skipif(BACKEND != "jax", reason="the others keep what their loops keep")
@pytest.mark.parametrize("policy", ["locked", "variational"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_step_keeps_what_goes_into_it_and_its_activations(kind, policy):
    """JAX would keep each value inside for all steps; so do the stock layers, whose LSTM makes no
    projections of all steps besides."""
    import jax

    def kept(layers, **arguments):
        model = keras.Sequential([keras.Input((50, 16))])
        for _ in range(3):
            model.add(getattr(layers, kind)(16, return_sequences=True, **arguments))
        weights, others = model.trainable_variables, model.non_trainable_variables

        def loss(weights, others, x):
            y, _ = model.stateless_call(weights, others, x, training=True)
            return ops.sum(ops.square(y))

        values = ([each.value for each in variables] for variables in (weights, others))
        step = jax.jit(jax.grad(loss)).lower(*values, ops.zeros((8, 50, 16)))
        return step.compile().memory_analysis().temp_size_in_bytes

    assert kept(dropout_policies_keras, policy=policy) < kept(keras.layers)


@pytest.mark.skipif(BACKEND != "jax", reason="the others have no forward mode")
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gradients_forward_and_twice_pass_what_is_made_again(kind):
    import jax

    layer = getattr(dropout_policies_keras, kind)(3, policy="variational", seed=3)
    x, along = (keras.random.normal((2, 4, 3), seed=seed) for seed in (1, 2))
    layer.build(x.shape)
    weights = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]

    def loss(x):
        return ops.sum(ops.square(layer.stateless_call(weights, others, x, training=True)[0]))

    gradient = jax.grad(loss)
    forward = jax.jvp(loss, (x,), (along,))[1]
    np.testing.assert_allclose(forward, ops.sum(gradient(x) * along), rtol=1e-4)
    twice = jax.jvp(gradient, (x,), (along,))[1]
    near = 3e-3
    expected = (gradient(x + near * along) - gradient(x - near * along)) / (2 * near)
    np.testing.assert_allclose(twice, expected, rtol=0.01, atol=0.01)
    backward = jax.grad(lambda x: ops.sum(gradient(x) * along))(x)
    np.testing.assert_allclose(backward, twice, rtol=1e-3, atol=1e-5)
