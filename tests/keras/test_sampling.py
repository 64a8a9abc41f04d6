"""Masks in evaluation on purpose, and masks taken out and put in."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM
from keras import layers, ops

import dropout_policies as dp
from dropout_policies.placement.adapters import find_adapter
from dropout_policies.policies.sites import Site

B, T, D, V = 3, 5, 4, 9


def x():
    return np.random.default_rng(0).integers(0, V, (B, T))


def model(policy="variational", seed=None, **rate):
    some = keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            layers.Embedding(V, D, name="words"),
            layers.Bidirectional(layers.LSTM(D, return_sequences=True), name="both"),
            layers.RNN([layers.GRUCell(D), layers.LSTMCell(D)], return_sequences=True, name="top"),
        ]
    )
    dp.apply(some, policy, seed=seed, **rate)
    return some


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def states(some):
    return [numpy(layer.generator.state).tolist() for layer in dict(under(some)).values()]


def under(some):
    return find_adapter(some).under_policy(some)


def test_layers_under_a_policy_have_names():
    assert set(under(model())) == {"words", "both/forward", "both/backward", "top"}
    assert list(under(LSTM(2, policy="zaremba", name="alone"))) == ["alone"]
    parts = [
        keras.Sequential([keras.Input((T, 2)), LSTM(2, policy="naive", name="a")]) for _ in "12"
    ]
    start = keras.Input((T, 2))
    twice = keras.Model(start, [part(start) for part in parts])
    assert len(under(twice)) == 2


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("call", ["predict", "eager"])
def test_samples_differ_and_everything_is_as_it_was(seed, call):
    some = model(seed=seed)

    def run():
        return some.predict(x(), verbose=0) if call == "predict" else numpy(some(x()))

    plain, before = run(), states(some)
    with dp.monte_carlo(some, seed=3):
        first, second = run(), run()
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(run(), plain)
    assert states(some) == before
    with dp.monte_carlo(some, seed=3, hold=True):
        np.testing.assert_allclose(run(), first, atol=1e-6)
        np.testing.assert_allclose(run(), first, atol=1e-6)
    np.testing.assert_array_equal(run(), plain)
    assert states(some) == before


def test_training_goes_on_as_if_there_had_been_no_samples():
    def losses(sampled):
        keras.utils.set_random_seed(1)
        some = keras.Sequential([keras.Input((T, D)), LSTM(D, policy="naive", seed=2)])
        some.compile(optimizer="sgd", loss="mse")
        data = np.ones((B, T, D), "float32"), np.zeros((B, D), "float32")
        found = [some.train_on_batch(*data)]
        if sampled:
            with dp.monte_carlo(some, seed=1):
                some.predict(data[0], verbose=0)
        return [*found, *(some.train_on_batch(*data) for _ in range(2))]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-6)


def test_the_frameworks_seed_rules_where_none_is_given():
    some = model()

    def sample():
        keras.utils.set_random_seed(6)
        with dp.monte_carlo(some):
            return numpy(some(x()))

    np.testing.assert_array_equal(sample(), sample())


def test_averages_are_the_mean_and_spread_of_samples():
    some = model()
    mean, spread = dp.average(some, lambda: numpy(some(x())), samples=4, seed=2)
    with dp.monte_carlo(some, seed=2):
        each = np.stack([numpy(some(x())) for _ in range(4)])
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, each.std(0), atol=1e-5)


@pytest.mark.parametrize("policy", ["variational", "zoneout_like"])
@pytest.mark.parametrize("seed", [None, 4])
def test_recorded_masks_can_be_put_back(policy, seed):
    inner = Site.HIDDEN if policy == "variational" else Site.HIDDEN_UPDATE
    if policy != "variational":
        policy = dp.Policy(hidden_update=dp.Rule(0.3, kind="zoneout"), input=dp.drop(0.3))
    some = model(policy, seed=seed)
    with dp.record(some) as masks:
        expected = numpy(some(x(), training=True))
        numpy(some(x()))  # in evaluation there are none
    assert {len(calls) for name, calls in masks.items() if name != "words"} == {1}
    assert {slot.site for slot in masks["both/backward"][0]} == {Site.INPUT, inner}
    with dp.replay(some, masks):
        np.testing.assert_array_equal(numpy(some(x(), training=True)), expected)
        with pytest.raises(dp.PolicyError, match="this is one more"):
            some(x(), training=True)
    assert not np.array_equal(numpy(some(x(), training=True)), expected)


def test_masks_cannot_be_taken_out_of_what_is_compiled():
    some = keras.Sequential([keras.Input((T, D)), LSTM(D, policy="naive", name="rnn")])
    # "auto" is what a user has; on JAX, False would compile nothing.
    jax = keras.backend.backend() == "jax"
    some.compile(optimizer="sgd", loss="mse", jit_compile="auto" if jax else False)
    data = np.ones((B, T, D), "float32"), np.zeros((B, D), "float32")
    if keras.backend.backend() == "torch":  # which compiles nothing here
        with dp.record(some) as masks:
            some.train_on_batch(*data)
        assert len(masks["rnn"]) == 1
        return
    for change in (dp.record(some), dp.replay(some, {"rnn": [{}]})):
        with pytest.raises(dp.PolicyError, match=r"rnn: masks.*run_eagerly=True"), change:
            some.train_on_batch(*data)
    some.run_eagerly = True
    with dp.record(some) as masks:
        some.train_on_batch(*data)
    assert len(masks["rnn"]) == 1
    some.run_eagerly = False
    some.train_on_batch(*data)


def test_masks_that_are_put_in_fall_in_evaluation_too_and_are_not_counted():
    some = model(seed=4)
    with dp.record(some) as masks:
        expected = numpy(some(x(), training=True))
    before = states(some)
    with dp.replay(some, masks), dp.record(some) as again:
        np.testing.assert_array_equal(numpy(some(x())), expected)
    assert states(some) == before
    for name, (call,) in masks.items():
        for slot, mask in call.items():
            np.testing.assert_array_equal(again[name][0][slot], mask)


@pytest.mark.parametrize("seed", [None, 4])
def test_a_schedule_stays_where_it_is_while_masks_are_sampled(seed):
    rate = dp.schedule({0: 0.0, 2: 0.5})
    layer = LSTM(64, policy=dp.Policy(output=dp.drop(rate)), seed=seed)
    data = np.ones((B, T, D), "float32")
    for share in (0.0, 0.0, 0.5):
        with dp.monte_carlo(layer, seed=1):
            for _ in range(3):
                assert (numpy(layer(data)) == 0).mean() == pytest.approx(share, abs=0.15)
        layer(data, training=True)


def test_a_policy_may_be_removed_within():
    some = keras.Sequential([keras.Input((T, D)), layers.LSTM(D, name="rnn")])
    plain, data = some.get_layer("rnn"), np.ones((B, T, D), "float32")
    expected, before = numpy(some(data)), numpy(plain.cell.seed_generator.state).tolist()
    applied = dp.apply(some, "naive")
    with dp.monte_carlo(some), dp.record(some):
        some(data)
        applied.remove()
    assert type(plain) is layers.LSTM
    assert numpy(plain.cell.seed_generator.state).tolist() == before
    np.testing.assert_array_equal(numpy(some(data)), expected)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_narrow_layers_are_recorded_and_played(dtype):
    layer = LSTM(D, policy="naive", dtype=dtype, name="rnn")
    data = np.ones((B, T, D), "float32")
    with dp.record(layer) as masks:
        expected = numpy(ops.cast(layer(data, training=True), "float32"))
    assert all(np.issubdtype(mask.dtype, np.floating) for mask in masks["rnn"][0].values())
    with dp.replay(layer, masks):
        got = numpy(ops.cast(layer(data, training=True), "float32"))
    np.testing.assert_array_equal(got, expected)
