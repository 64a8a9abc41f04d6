"""The convolutional LSTMs, held to the oracle: a convolution is a product with a matrix."""

# ruff: noqa: ARG005 - a mutant has the signature of what it replaces

from math import prod

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from dropout_policies_keras import conv_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from dropout_policies.policies import cell_types
from dropout_policies.testing.strategies import policies

B, T, D, H, SEED = 2, 3, 2, 3, 7
SHAPES = {1: (5,), 2: (4, 3), 3: (3, 2, 4)}
BACKEND = keras.backend.backend()
EXAMPLES = {"jax": 4, "tensorflow": 12, "torch": 25}[BACKEND]  # each compiles anew on JAX
MASKS = ["channel"] if BACKEND == "jax" else ["element", "channel"]


def layer_of(rank, policy, **more):
    made = getattr(dpk, f"ConvLSTM{rank}D")(
        H, 2, policy=policy, seed=SEED, return_sequences=True, return_state=True, **more
    )
    made(data(rank, made))
    rng = np.random.default_rng(1)
    made.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in made.get_weights()])
    return made


def data(rank, layer):
    x = np.random.default_rng(rank).standard_normal((B, T, D, *SHAPES[rank])).astype("float32")
    return x if layer.data_format == "channels_first" else np.moveaxis(x, 2, -1)


def channels_first(values, layer, axis):
    """Values with the channels before the spatial axes, flat: every position of one channel, then
    of the next."""
    values = ops.convert_to_numpy(values).astype("float64")
    if layer.data_format == "channels_last":
        values = np.moveaxis(values, -1, axis)
    return values.reshape(*values.shape[:axis], -1)


def matrix(convolve, kernel, channels, spatial, layer):
    """The matrix `[G*H*S', D*S]` of a convolution."""
    basis = np.eye(channels * prod(spatial), dtype="float32").reshape(-1, channels, *spatial)
    if layer.data_format == "channels_last":
        basis = np.moveaxis(basis, 1, -1)
    return channels_first(convolve(basis, kernel), layer, 1).T


def masked(kernel, mask):
    """A kernel `[*K, C, G*H]` under its mask `[1, G*H, C*K]`."""
    if mask is None:
        return kernel
    *taps, channels, gates = kernel.shape
    by_tap = mask[0].reshape(gates, channels, *taps)
    return kernel * np.moveaxis(by_tap, (0, 1), (-1, -2)).astype("float32")


def oracle(layer, rank, policy, call):
    """The outputs and last states that NumPy gives, flat, under the core's own masks."""
    cell, spatial = layer.cell, SHAPES[rank]
    outside = conv_cells.spatial_shape_of_state(cell)
    kernel, recurrent, *bias = layer.get_weights()
    geometry = Geometry(
        *(D, H),
        directions=(int(layer.go_backwards),),
        batch=B,
        steps=T,
        cell=cell_types.LSTM,
        input_positions=prod(spatial),
        positions=prod(outside),
        taps=2**rank,
    )
    plan = plan_masks(Placement(policy), geometry)
    masks = keyed.masks(plan, SEED, call)
    weights = {s.site: masks.pop(s) for s in [*masks] if s.site.value.endswith("_weight")}
    for slot in masks:
        if policy[slot.site].shape == "channel":
            is_input = slot.site in (dp.Site.INPUT, dp.Site.BETWEEN)
            masks[slot] = np.repeat(masks[slot], prod(spatial if is_input else outside), axis=-1)
    dense = reference.Weights(
        matrix(
            lambda x, k: cell.input_conv(x, k, None, padding=cell.padding),
            masked(kernel, weights.get(dp.Site.INPUT_WEIGHT)),
            D,
            spatial,
            layer,
        ),
        matrix(
            cell.recurrent_conv,
            masked(recurrent, weights.get(dp.Site.RECURRENT_WEIGHT)),
            H,
            outside,
            layer,
        ),
        np.repeat(bias[0], prod(outside)) if bias else None,
    )
    x = channels_first(data(rank, layer), layer, 2).swapaxes(0, 1)
    y, state = reference.run(
        reference.lstm, x, [[dense]], masks, directions=[int(layer.go_backwards)]
    )
    y = y.swapaxes(0, 1)
    return [y[:, ::-1] if layer.go_backwards else y, *(part[0] for part in state)]


def check(layer, rank, policy):
    for call in range(2):
        y, *states = layer(data(rank, layer), training=True)
        found = [channels_first(y, layer, 2), *(channels_first(s, layer, 1) for s in states)]
        for a, b in zip(found, oracle(layer, rank, policy, call), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_every_policy_is_the_oracles(data):
    rank = data.draw(st.integers(1, 3))
    policy = data.draw(policies(cell_types.LSTM))
    formats = ["channels_last"] if BACKEND == "tensorflow" else ["channels_last", "channels_first"]
    layer = layer_of(
        rank,
        policy,
        padding=data.draw(st.sampled_from(["same", "valid"])),
        data_format=data.draw(st.sampled_from(formats)),  # TensorFlow convolves no other on a CPU
        use_bias=data.draw(st.booleans()),
        go_backwards=data.draw(st.booleans()),
    )
    check(layer, rank, policy)


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("name", dp.names())
def test_every_published_policy_is_the_oracles(name, shape):
    policy = dp.resolve(name).with_shape(shape)
    layer = layer_of(2, policy, padding="same", strides=1)
    check(layer, 2, policy)


def test_gates_may_have_masks_of_their_own_and_strides_make_fewer_positions():
    into = dp.drop(0.5, gates="untied")
    for shape in ("element", "channel"):
        policy = dp.Policy(input=into, hidden=into, output=dp.drop(0.5)).with_shape(shape)
        check(layer_of(2, policy, strides=2, padding="same"), 2, policy)


MUTANTS = {
    "the mask of another order of axes": (
        conv_cells,
        "masks_of_values",
        lambda original: (
            lambda cell, policy, masks: {
                site: ops.flip(mask, axis=2) if len(mask.shape) == 5 else mask
                for site, mask in original(cell, policy, masks).items()
            }
        ),
    ),
    "whole maps where elements are meant": (
        conv_cells,
        "masks_of_values",
        lambda original: (
            lambda cell, policy, masks: {
                site: mask[:, :, :1, :1] * ops.ones_like(mask) if len(mask.shape) == 5 else mask
                for site, mask in original(cell, policy, masks).items()
            }
        ),
    ),
    "no mask on the kernels": (
        conv_cells,
        "_masked_kernel",
        lambda original: lambda kernel, mask, dtype: original(kernel, None, dtype),
    ),
    "one mask for all gates": (
        conv_cells,
        "_gates",
        lambda original: (
            lambda convolve, value, mask, kernel, axis: original(
                convolve,
                value,
                mask
                if mask is None
                else ops.split(mask, mask.shape[axis] // value.shape[axis], axis)[0],
                kernel,
                axis,
            )
        ),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name, monkeypatch):
    module, attribute, change = MUTANTS[name]
    policy = dp.Policy(
        input=dp.drop(0.5, gates="untied"),
        hidden=dp.drop(0.5, per="sequence"),
        cell=dp.drop(0.3),
        input_weight=dp.drop(0.5, per="call"),
    )
    layer = layer_of(2, policy, padding="same")
    monkeypatch.setattr(module, attribute, change(getattr(module, attribute)))
    with pytest.raises(AssertionError):
        check(layer, 2, policy)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("policy", [None, "zaremba"])
def test_without_masks_it_is_the_stock_layer_bit_for_bit(rank, policy):
    ours = layer_of(rank, policy) if policy else getattr(dpk, f"ConvLSTM{rank}D")(H, 2)
    stock = getattr(layers, f"ConvLSTM{rank}D")(
        H, 2, return_sequences=policy is not None, return_state=policy is not None
    )
    x = data(rank, ours)
    ours(x)
    stock(x)
    stock.set_weights(ours.get_weights())
    pairs = zip(keras.tree.flatten(ours(x)), keras.tree.flatten(stock(x)), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


def network(kind=layers.ConvLSTM2D, **more):
    return keras.Sequential(
        [
            keras.Input((T, 4, 4, D)),
            kind(H, 3, padding="same", return_sequences=True, name="low", **more),
            kind(H, 3, padding="same", name="high", **more),
        ]
    )


def images():
    return np.random.default_rng(0).standard_normal((B, T, 4, 4, D)).astype("float32")


def test_applied_to_a_model_it_takes_over_saves_and_comes_off(tmp_path):
    model = network(dropout=0.2, recurrent_dropout=0.1)
    before = model.predict(images(), verbose=0)
    applied = dp.apply(model, "zaremba", rate=0.5, seed=3)
    assert "L = 2, 3 of 3 vertical connections masked" in str(applied)
    assert "low (keras.layers.ConvLSTM2D): input 0.5 per step" in str(applied)
    assert "dropout=0.2, recurrent_dropout=0.1" in str(applied)
    y = ops.convert_to_numpy(model(images(), training=True))
    assert 0.3 < (y == 0).mean() < 0.7
    np.testing.assert_array_equal(model.predict(images(), verbose=0), before)
    with pytest.raises(dp.PolicyError, match=r"cell.dropout cannot be set under a policy"):
        model.get_layer("low").cell.dropout = 0.3
    model.compile("sgd", "mse")
    model.fit(images(), np.zeros_like(y), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert model.get_layer("low").calls == 2
    for each in (model, loaded):
        for name in ("low", "high"):
            each.get_layer(name).calls = 0
    a, b = (ops.convert_to_numpy(each(images(), training=True)) for each in (model, loaded))
    np.testing.assert_array_equal(a, b)
    after = model.predict(images(), verbose=0)
    applied.remove()
    dp.remove(loaded)
    for each in (model, loaded):
        low = each.get_layer("low")
        assert type(low) is layers.ConvLSTM2D
        assert (low.cell.dropout, low.cell.recurrent_dropout) == (0.2, 0.1)
        np.testing.assert_allclose(each.predict(images(), verbose=0), after, atol=1e-6)


def test_the_report_says_what_falls_on_whole_channels():
    applied = dp.apply(network(), dp.zaremba(0.5).with_shape("channel"), seed=3)
    assert "input 0.5 per step and channel" in str(applied)


def test_whole_feature_maps_are_gone():
    layer = layer_of(2, dp.Policy(output=dp.drop(0.5, shape="channel")), padding="same")
    zero = ops.convert_to_numpy(layer(data(2, layer), training=True)[0]) == 0
    assert zero.any()
    assert (zero.all(axis=(2, 3)) == zero.any(axis=(2, 3))).all()


if BACKEND != "jax":  # where Keras's own loop takes no padding of images

    def test_padded_steps_keep_the_state():
        layer = layer_of(1, "zaremba")
        mask = np.array([[True, True, False]] * B)
        _, h, c = layer(data(1, layer), mask=ops.convert_to_tensor(mask), training=True)
        layer.calls = 0
        _, h2, c2 = layer(data(1, layer)[:, :2], training=True)
        for a, b in ((h, h2), (c, c2)):
            np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-6)


def test_half_precision_and_states_that_are_carried():
    half = dpk.ConvLSTM1D(H, 2, policy="variational", seed=1, dtype="mixed_float16")
    layer = dpk.ConvLSTM1D(H, 2, policy="variational", seed=1, stateful=True)
    x = data(1, layer)
    assert keras.backend.standardize_dtype(half(x, training=True).dtype) == "float16"
    layer(x, training=True)
    assert np.abs(ops.convert_to_numpy(layer.states[0])).max() > 0


def test_both_directions_and_steps_in_a_sequence():
    x = images()
    both = layers.Bidirectional(
        dpk.ConvLSTM2D(H, 3, padding="same", policy="locked", seed=1, stack=(0, 1))
    )
    assert both(x, training=True).shape == (B, 4, 4, 2 * H)
    layer = dpk.ConvLSTM2D(
        H, 3, padding="same", policy="naive", seed=1, return_sequences=True, return_state=True
    )
    whole, h, c = layer(x, training=True)
    layer.calls, state, outputs = 0, None, []
    with dp.sequence(layer):
        for t in range(T):
            y, *state = layer(x[:, t : t + 1], initial_state=state, training=True)
            outputs.append(y)
    found = ops.concatenate(outputs, axis=1)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(whole), atol=1e-5)
    for a, b in zip(state, (h, c), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-5)
