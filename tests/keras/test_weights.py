"""Masks on weights: the weights themselves never change."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, SimpleRNN
from keras import layers, ops

import dropout_policies as dp
from tests.support.keras_gradients import measured

B, T, D, H = 3, 4, 5, 6
MAKE = {
    "LSTM": lambda **policy: LSTM(H, **policy),
    "GRU": lambda **policy: GRU(H, **policy),
    "SimpleRNN": lambda **policy: SimpleRNN(H, **policy),
    "RNN": lambda **policy: RNN([layers.LSTMCell(H), layers.GRUCell(H)], **policy),
}
BOTH = dp.weight_drop(0.5) | dp.Policy(input_weight=dp.drop(0.5, per="call"))


def data(seed=0, shape=(B, T, D)):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("kind", MAKE)
def test_training_calls_leave_the_weights_bit_for_bit(kind):
    many = 100 if kind == "LSTM" else 20
    layer = MAKE[kind](policy=BOTH)
    before, variables = numpy(layer(data())), [v.path for v in layer.variables]
    weights = layer.get_weights()
    outputs = {numpy(layer(data(), training=True)).tobytes() for _ in range(many)}
    assert len(outputs) == many
    for now, then in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    assert [v.path for v in layer.variables] == variables
    np.testing.assert_array_equal(numpy(layer(data())), before)
    assert not np.array_equal(numpy(layer(data(), training=True)), before)


@pytest.mark.parametrize("kind", MAKE)
def test_the_layer_has_the_variables_of_the_stock_one(kind):
    plain, ours = MAKE[kind](), MAKE[kind](policy=BOTH)
    for layer in (plain, ours):
        layer.build((B, T, D))
    names = [[v.path.split("/")[-1] for v in layer.weights] for layer in (plain, ours)]
    assert names[0] == names[1]
    assert len(plain.variables) == len(ours.variables)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_the_gradient_reaches_the_raw_weight_where_the_mask_lets_it(kind):
    layer = MAKE[kind](policy=dp.weight_drop(0.5), seed=1)
    layer.build((B, T, D))
    with dp.record(layer) as masks:
        layer(data(), training=True)
    (mask,) = masks[layer.name][0].values()
    layer.calls = 0

    def run(inputs):
        y = layer(inputs[0], training=True)
        return ops.sum(y * y), [y]

    _, (_, gradient) = measured(run, [data()], [layer.cell.recurrent_kernel])
    kept = mask[0].T != 0
    if kind == "GRU":
        r, z, n = np.split(kept, 3, axis=1)
        kept = np.concatenate([z, r, n], axis=1)
    np.testing.assert_array_equal(gradient != 0, kept)


def test_every_sample_and_step_has_one_mask_and_a_later_process_the_same():
    whole = LSTM(H, policy="weight_drop", seed=8, return_sequences=True)
    expected = numpy(whole(data(), training=True))
    part = LSTM(H, policy="weight_drop", seed=8, return_sequences=True)
    part.build((B, T, D))
    part.set_weights(whole.get_weights())
    part.row_offset = 1
    np.testing.assert_allclose(numpy(part(data()[1:], training=True)), expected[1:], atol=1e-6)


def test_weights_are_trained_through_the_masks_and_evaluated_whole():
    layer = LSTM(H, policy="weight_drop", seed=1)
    model = keras.Sequential([keras.Input((T, D)), layer])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    before = layer.get_weights()
    model.fit(data(), data(1, (B, H)), epochs=3, verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))
    stock = layers.LSTM(H)
    stock.build((B, T, D))
    stock.set_weights(layer.get_weights())
    np.testing.assert_array_equal(numpy(layer(data())), numpy(stock(data())))
