"""The convolutional LSTMs as layers of Keras; the suite of conformance holds them to the oracle."""

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from dropout_policies_keras import conv_cells
from keras import layers, ops

import dropout_policies as dp

B, T, D, H, SEED = 2, 3, 2, 3, 7
SHAPES = {1: (5,), 2: (4, 3), 3: (3, 2, 4)}
BACKEND = keras.backend.backend()


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


def test_in_evaluation_the_mean_stands_for_an_unscaled_mask_of_a_kernel():
    unscaled = dp.drop(0.75, per="call", scaled=False)
    layer = layer_of(1, dp.Policy(input_weight=unscaled, recurrent_weight=unscaled))
    stock = layers.ConvLSTM1D(H, 2, return_sequences=True)
    stock(data(1, layer))
    kernel, recurrent, bias = layer.get_weights()
    stock.set_weights([kernel / 4, recurrent / 4, bias])
    y, expected = layer(data(1, layer))[0], stock(data(1, layer))
    np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(expected), atol=1e-6)


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


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_the_stock_layers(dtype, monkeypatch):
    policy = dp.naive(0.4) | dp.zoneout(0.3, 0.3)
    policy |= dp.Policy(recurrent_weight=dp.drop(0.5, per="call"))
    exact = layer_of(2, policy)
    half = layer_of(2, policy, dtype=dtype)
    stock = layers.ConvLSTM2D(H, 2, return_sequences=True, return_state=True, dtype=dtype)
    x, drawn = data(2, half), {}
    original = conv_cells.masks_of_values

    def recorded(cell, policy, masks):
        found = original(cell, policy, masks)
        drawn.update({site: dtype_of(mask) for site, mask in found.items()})
        return found

    monkeypatch.setattr(conv_cells, "masks_of_values", recorded)
    half.calls = exact.calls = 0
    for training in (True, False):
        expected = [dtype_of(part) for part in stock(x, training=training)]
        found = half(x, training=training)
        assert [dtype_of(part) for part in found] == expected
        if training:
            sites = set(policy) - {dp.Site.BETWEEN}
            assert drawn == dict.fromkeys(sites, dtype.removeprefix("mixed_"))
        for a, b in zip(found, exact(x, training=training), strict=True):
            a, b = (ops.convert_to_numpy(ops.cast(part, "float32")) for part in (a, b))
            np.testing.assert_allclose(a, b, atol=0.05)


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def test_states_are_carried():
    layer = dpk.ConvLSTM1D(H, 2, policy="variational", seed=1, stateful=True)
    layer(data(1, layer), training=True)
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
