"""Inside fit and train_on_batch: compiled, with sizes known only when it runs."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM

import dropout_policies as dp

T, D, H = 6, 3, 8


def model(policy, jit="auto", steps=T):
    some = keras.Sequential(
        [
            keras.Input((steps, D)),
            LSTM(H, return_sequences=True, policy=policy, seed=1, name="low"),
            LSTM(H, return_sequences=True, policy=policy, seed=1, name="high"),
        ]
    )
    some.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit)
    return some


def data(batch, steps=T):
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((batch, steps, D)).astype("float32"),
        rng.standard_normal((batch, steps, H)).astype("float32"),
    )


def test_fit_trains_with_a_smaller_last_batch_and_counts_calls():
    some = model(dp.naive(0.3))
    x, y = data(10)
    history = some.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert [some.get_layer(n).calls for n in ("low", "high")] == [6, 6]
    some.evaluate(x, y, verbose=0)
    some.predict(x, verbose=0)
    assert some.get_layer("low").calls == 6


def test_a_time_dimension_known_only_at_run_time():
    """And a batch of another size each time: the masks are those of the layers called eagerly."""
    some, eager = model(dp.naive(0.3), steps=None), model(dp.naive(0.3), steps=None)
    eager.set_weights(some.get_weights())
    some.optimizer.learning_rate = 0.0
    for batch, steps in ((4, 3), (2, 5), (5, 4)):
        x, y = data(batch, steps)
        expected = np.mean((array(eager(x, training=True)) - y) ** 2)
        np.testing.assert_allclose(some.train_on_batch(x, y), expected, rtol=1e-5)
    assert some.get_layer("high").calls == 3


def test_a_compiled_step_has_the_masks_of_an_eager_one():
    """The loss of each step, against the layers called one by one with the same keys."""
    x, y = data(4)
    compiled, eager = model(dp.naive(0.5)), model(dp.naive(0.5))
    eager.set_weights(compiled.get_weights())
    for step in range(3):
        expected = np.mean((keras.ops.convert_to_numpy(eager(x, training=True)) - y) ** 2)
        compiled.optimizer.learning_rate = 0.0
        np.testing.assert_allclose(compiled.train_on_batch(x, y), expected, rtol=1e-5)
        assert compiled.get_layer("low").calls == step + 1


def test_masks_differ_from_step_to_step_inside_a_compiled_function():
    """With constant input and no recurrence, a mask kept over the steps would show."""
    layer = LSTM(64, return_sequences=True, policy=dp.Policy(output=dp.drop(0.5)), seed=1)
    some = keras.Sequential([keras.Input((T, D)), layer])

    class Watch(keras.losses.Loss):
        def call(self, y_true, y_pred):
            # How many units are kept at all T steps: 64 / 2**T if masks are drawn anew.
            kept = keras.ops.cast(keras.ops.abs(y_pred) > 0, "float32")
            count = keras.ops.sum(keras.ops.prod(kept, axis=1), axis=-1)
            return count + 0 * keras.ops.sum(y_pred - y_true, axis=(1, 2))

    some.compile(optimizer=keras.optimizers.SGD(0.0), loss=Watch())
    x, y = data(4)[0], np.zeros((4, T, 64), "float32")
    counts = [some.train_on_batch(x, y) for _ in range(3)]
    assert all(count < 8 for count in counts)
    assert len(set(np.round(counts, 6))) > 1


def test_unseeded_masks_change_from_call_to_call_inside_a_compiled_function():
    some = keras.Sequential([keras.Input((T, D)), LSTM(H, return_sequences=True, policy="naive")])
    some.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    x, y = data(4)
    assert len({float(some.train_on_batch(x, y)) for _ in range(4)}) == 4


@pytest.mark.parametrize("policy", [None, "none", "naive"])
def test_a_stateful_layer_carries_its_state_through_compiled_functions(policy):
    """In training, evaluation and prediction alike; a stock layer on JAX carries nothing."""
    x, y = data(4)
    start = keras.Input(batch_shape=(4, T, D))
    seed = None if policy is None else 1
    layer = LSTM(H, return_sequences=True, stateful=True, policy=policy, seed=seed)
    some = keras.Model(start, layer(start))
    some.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    eager = LSTM(H, return_sequences=True, return_state=True, policy=policy, seed=seed)
    eager.build((4, T, D))
    eager.set_weights(layer.get_weights())
    state = [keras.ops.zeros((4, H))] * 2
    for training in (True, True, False):
        (some.train_on_batch if training else some.test_on_batch)(x, y)
        _, *state = eager(x, initial_state=state, training=training)
        for carried, expected in zip(layer.states, state, strict=True):
            np.testing.assert_allclose(array(carried), array(expected), atol=1e-6)
    expected, *state = (array(part) for part in eager(x, initial_state=state))
    np.testing.assert_allclose(some.predict(x, batch_size=4, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(array(layer.states[0]), state[0], atol=1e-6)
    layer.reset_state()
    assert not array(layer.states[0]).any()


def test_the_carried_state_is_no_weight():
    layer = LSTM(H, stateful=True, policy="zaremba")
    layer.build((4, T, D))
    assert [v.path.split("/")[-1] for v in layer.weights] == ["kernel", "recurrent_kernel", "bias"]


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_resetting_the_state_within_a_batch_says_what_to_do():
    """On JAX, Keras keeps the variables elsewhere while fit runs."""
    start = keras.Input(batch_shape=(4, T, D))
    layer = LSTM(H, stateful=True, policy="zaremba", name="lstm")
    some = keras.Model(start, layer(start))
    some.compile(optimizer="sgd", loss="mse")

    class Reset(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):  # noqa: ARG002
            if keras.backend.backend() == "jax" and batch:
                with pytest.raises(dp.PolicyError, match=r"lstm: .*jax_state_sync"):
                    layer.reset_state()
                some.jax_state_sync()
            layer.reset_state()

    x, y = data(8)[0], np.zeros((8, H), "float32")
    some.fit(x, y, batch_size=4, verbose=0, callbacks=[Reset()])


DEEP = [
    dp.zoneout(0.3, 0.2) | dp.zaremba(0.3),
    dp.variational(gates="untied"),
    dp.awd(),
    dp.semeniuta(),
]


def built(policy, seed=1, **compiled):
    some = model(policy)
    for layer in some.layers:
        layer.set_placement(layer.placement, seed)
    some.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse", **compiled)
    return some


def eager_loss(some, x, y):
    return float(np.mean((array(some(x, training=True)) - y) ** 2))


@pytest.mark.parametrize("policy", DEEP, ids=lambda policy: policy.name)
@pytest.mark.parametrize(
    "compiled", [{"jit_compile": True}, {"steps_per_execution": 2}], ids=["jit", "two steps"]
)
def test_every_path_is_compiled_in_every_way(policy, compiled):
    """With the masks of the layers called eagerly with the same keys."""
    if keras.backend.backend() == "torch":
        pytest.skip("no steps_per_execution in Keras on torch; jit_compile is a slow test below")
    x, y = data(4)
    some, eager = built(policy, **compiled), built(policy)
    eager.set_weights(some.get_weights())
    losses = [eager_loss(eager, x, y) for _ in range(2)]
    batches = np.concatenate([x, x]), np.concatenate([y, y])
    mean = some.fit(*batches, batch_size=4, shuffle=False, verbose=0).history["loss"][0]
    np.testing.assert_allclose(mean, np.mean(losses), rtol=1e-5)
    assert some.get_layer("low").calls == 2


@pytest.mark.parametrize("seed", [None, 1])
def test_a_schedule_changes_the_masks_without_tracing_anew(seed):
    rate = dp.schedule({0: 0.0, 2: 0.5, 3: 0.9})
    traces = []

    class Counted(LSTM):
        def inner_loop(self, *args, **kwargs):
            traces.append(1)
            return super().inner_loop(*args, **kwargs)

    layer = Counted(64, return_sequences=True, policy=dp.Policy(output=dp.drop(rate)), seed=seed)
    some = keras.Sequential([keras.Input((T, D)), layer])

    class NamedVariable(keras.losses.Loss):
        def call(self, y_true, y_pred):
            kept = keras.ops.cast(keras.ops.abs(y_pred) > 0, "float32")
            return keras.ops.mean(kept) + 0 * keras.ops.sum(y_pred - y_true)

    some.compile(optimizer=keras.optimizers.SGD(0.0), loss=NamedVariable())
    x, y = data(4)[0], np.zeros((4, T, 64), "float32")
    first = [some.train_on_batch(x, y)]
    traced = len(traces)
    shares = [*first, *(some.train_on_batch(x, y) for _ in range(4))]
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.5, 0.1, 0.1], atol=0.05)
    assert layer.calls == 5
    if keras.backend.backend() != "torch":
        assert len(traces) == traced


def test_a_schedules_masks_are_those_of_a_fixed_rate_once_it_is_there():
    rate = dp.schedule({0: 0.2, 1: 0.6})
    x, y = data(4)
    scheduled, fixed = (built(dp.naive(r)) for r in (rate, 0.6))
    fixed.set_weights(scheduled.get_weights())
    losses = [[float(some.train_on_batch(x, y)) for _ in range(2)] for some in (scheduled, fixed)]
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == losses[1][1]


@pytest.mark.parametrize("policy", [dp.zoneout(0.3, 0.2), dp.rnndrop()], ids=lambda p: p.name)
def test_evaluation_by_the_mean_is_compiled_and_leaves_random_state_alone(policy):
    some, eager = built(policy), built(policy)
    eager.set_weights(some.get_weights())
    x, y = data(4)
    expected = float(np.mean((array(eager(x)) - y) ** 2))
    before = [array(layer.generator.state).tolist() for layer in some.layers]
    for _ in range(2):
        np.testing.assert_allclose(some.test_on_batch(x, y), expected, rtol=1e-5)
        np.testing.assert_allclose(some.predict(x, verbose=0), array(eager(x)), atol=1e-6)
    assert before == [array(layer.generator.state).tolist() for layer in some.layers]


@pytest.mark.slow
def test_a_compiled_step_is_the_eager_one_on_torch_too():
    """jit_compile=True, which takes torch.compile long for one layer alone."""
    x, y = np.ones((2, 3, D), "float32"), np.zeros((2, 3, 4), "float32")
    losses = []
    for compiled in (True, False):
        keras.utils.set_random_seed(1)
        layer = LSTM(4, return_sequences=True, policy="zoneout", seed=1)
        some = keras.Sequential([keras.Input((3, D)), layer])
        some.compile(optimizer="sgd", loss="mse", jit_compile=compiled)
        losses.append([float(some.train_on_batch(x, y)) for _ in range(2)])
        assert layer.calls == 2
    np.testing.assert_allclose(*losses, rtol=1e-5)
