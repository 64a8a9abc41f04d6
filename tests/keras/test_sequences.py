"""`dp.sequence` and `dp.hold` on Keras's layers: eagerly, in compiled models, and around them."""

# ruff: noqa: ARG005 - a mutant has the signature of what it replaces

import contextlib

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from dropout_policies_keras import shared_calls
from dropout_policies_keras.shared_calls import SharedCalls
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.policies import cell_types
from dropout_policies.testing.strategies import policies

H = 6
KINDS = (dpk.LSTM, dpk.GRU, dpk.SimpleRNN)
CELLS = dict(zip(KINDS, (cell_types.LSTM, cell_types.GRU, cell_types.RNN), strict=True))
BACKEND = keras.backend.backend()


def inputs(steps=6, width=H, batch=3):
    return np.random.default_rng(0).normal(size=(batch, steps, width)).astype("float32")


def chunks(total, cuts):
    ends = [*sorted({cut % total for cut in cuts} - {0}), total]
    return list(zip([0, *ends], ends, strict=False))


def run_in_chunks(layer, x, parts, state=None):
    outputs = []
    for begin, end in parts:
        y, *state = layer(x[:, begin:end], initial_state=state, training=True)
        outputs.append(y)
    return ops.concatenate(outputs, axis=1), state


def check_split(layer, x, parts):
    """A split of a sequence is the whole one: outputs, states, the number of calls."""
    before = layer.calls
    whole, *state = layer(x, training=True)
    calls, layer.calls = layer.calls, before
    with dp.sequence(layer):
        y, end = run_in_chunks(layer, x, parts)
    assert layer.calls == calls
    for found, expected in zip([y, *end], [whole, *state], strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5, rtol=1e-4
        )


def stepwise(kind, **more):
    return kind(H, return_sequences=True, return_state=True, **more)


@settings(max_examples={"torch": 12, "tensorflow": 4, "jax": 2}[BACKEND])
@given(data=st.data())
def test_any_split_of_a_sequence_is_the_whole_one(data):
    kind = data.draw(st.sampled_from(KINDS))
    policy = data.draw(policies(CELLS[kind], 1))
    steps = data.draw(st.integers(1, 7))
    cuts = data.draw(st.lists(st.integers(1, 6), max_size=6))
    layer = stepwise(kind, policy=policy, seed=data.draw(st.integers(0, 2**32 - 1)))
    layer.calls = data.draw(st.integers(0, 3))
    check_split(layer, inputs(steps, 5, 2), chunks(steps, cuts))


MUTANTS = {
    "masks drawn anew in each call": (
        shared_calls.SharedState,
        "of",
        lambda self, keys: None,
    ),
    "steps that do not go on": (
        SharedCalls,
        "count",
        lambda self, steps: setattr(self, "_calls", 1),
    ),
    "steps that go on one by one": (
        SharedCalls,
        "count",
        lambda self, steps: (
            setattr(self, "step", self.step + 1),
            setattr(self, "_calls", 1),
        ),
    ),
    "a call that does not count": (
        SharedCalls,
        "count",
        lambda self, steps: setattr(self, "step", self.step + steps),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name, monkeypatch):
    owner, attribute, value = MUTANTS[name]
    layer = stepwise(dpk.LSTM, policy="naive", rate=0.5, seed=1)
    x, parts = np.ones((2, 5, H), "float32"), [(0, 2), (2, 5)]
    check_split(layer, x, parts)
    layer.__dict__.pop("_call_counter", None)
    monkeypatch.setattr(owner, attribute, value)
    monkeypatch.setattr(type(layer), "prepare_to_share", lambda self: False)
    with pytest.raises(AssertionError):
        check_split(layer, x, parts)


def recorded(layer, call):
    with dp.record(layer) as masks:
        call()
    (found,) = masks.values()
    return found


def test_the_masks_are_those_of_the_oracle_bit_for_bit():
    layer = stepwise(dpk.LSTM, policy="naive", rate=0.5, seed=7)
    x = inputs()

    def run():
        with dp.sequence(layer):
            run_in_chunks(layer, x, [(0, 1), (1, 4), (4, 6)])

    calls = recorded(layer, run)
    for slot in calls[0]:
        got = np.concatenate([call[slot] for call in calls])
        expected = keyed.keep_bits(keyed.mask_key(7, 0, slot), 0.5, got.shape) * 2.0
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seed", [None, 1])
def test_masks_per_sequence_are_held_and_masks_per_step_are_new(seed):
    held, anew = dp.drop(0.5, per="sequence"), dp.drop(0.5)
    policy = dp.Policy(input=anew, hidden=held, recurrent_weight=dp.drop(0.5, per="call"))
    layer = stepwise(dpk.LSTM, policy=policy, seed=seed)
    x = inputs(4)
    layer(x)

    def run():
        for _ in range(2):
            with dp.sequence(layer):
                run_in_chunks(layer, x, [(0, 1), (1, 2), (2, 3), (3, 4)])

    calls = recorded(layer, run)
    sites = {slot.site.value: [call[slot] for call in calls] for slot in calls[0]}
    for site in ("hidden", "recurrent_weight"):
        assert all(np.array_equal(mask, sites[site][0]) for mask in sites[site][:4])
        assert all(np.array_equal(mask, sites[site][4]) for mask in sites[site][4:])
        assert not np.array_equal(sites[site][0], sites[site][4])
    assert len({mask.tobytes() for mask in sites["input"]}) == 8
    assert layer.calls == 2


class Model(keras.Model):
    """Words, and two layers, step by step in one `call`."""

    def __init__(self, opens_scope=True, **more):
        super().__init__()
        self.opens_scope = opens_scope
        self.embedding = dpk.Embedding(20, H, policy=dp.variational(0.5), **more)
        self.rnn = dpk.LSTM(H, policy="variational", return_state=True, **more)
        cells = [keras.layers.GRUCell(H), keras.layers.LSTMCell(H)]
        self.own = dpk.RNN(cells, policy="zaremba", return_state=True, **more)

    def call(self, words, training=False):
        if not self.opens_scope:
            return self.steps(words, training)
        with dp.sequence(self):
            return self.steps(words, training)

    def steps(self, words, training):
        rnn = own = None
        outputs = []
        for t in range(words.shape[1]):
            x = self.embedding(words[:, t : t + 1], training=training)
            y, *rnn = self.rnn(x, initial_state=rnn, training=training)
            z, *own = self.own(y[:, None], initial_state=own, training=training)
            outputs.append(z)
        return ops.stack(outputs, axis=1)

    def whole(self, words):
        x = self.embedding(words, training=True)
        self.rnn.return_sequences = True
        y, *_ = self.rnn(x, training=True)
        self.rnn.return_sequences = False
        self.own.return_sequences = True
        z, *_ = self.own(y, training=True)
        self.own.return_sequences = False
        return z

    @property
    def own_layers(self):
        return (self.embedding, self.rnn, self.own)


WORDS = np.random.default_rng(1).integers(20, size=(3, 5))


def test_a_model_that_steps_in_its_call_is_one_sequence_eagerly_and_in_fit():
    model = Model(seed=1)
    model(WORDS)
    whole = ops.convert_to_numpy(model.whole(WORDS))
    for layer in model.own_layers:
        assert layer.calls == 1
        layer.calls = 0
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(WORDS, training=True)), whole, atol=1e-5, rtol=1e-4
    )
    for layer in model.own_layers:
        assert layer.calls == 1
        layer.calls = 0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    target = np.zeros_like(whole)
    first = model.train_on_batch(WORDS, target)
    np.testing.assert_allclose(first, np.mean(whole**2), rtol=1e-4)
    model.fit(WORDS, target, batch_size=3, epochs=2, verbose=0)
    assert [layer.calls for layer in model.own_layers] == [3, 3, 3]
    assert not any("_call_counter" in layer.__dict__ for layer in model.own_layers)


def test_a_scope_in_a_call_is_not_concerned_in_evaluation():
    model, plain = Model(seed=1), Model(seed=1, opens_scope=False)
    model(WORDS)
    plain(WORDS)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model(WORDS)), ops.convert_to_numpy(plain(WORDS))
    )
    assert [layer.calls for layer in model.own_layers] == [0, 0, 0]


# --- stateful layers over windows ----------------------------------------------------------------


def windows_model(policy="variational", stateful=True, steps=2, **more):
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(3, steps, H)),
            dpk.LSTM(H, policy=policy, stateful=stateful, return_sequences=True, **more),
            dpk.GRU(H, policy=policy, stateful=stateful, return_sequences=True, **more),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=False)
    return model


def train_on_windows(model, x):
    """The losses of windows of two steps, each by itself."""
    losses = []
    for t in range(0, x.shape[1], 2):
        model.reset_metrics()
        window = x[:, t : t + 2]
        losses.append(float(model.train_on_batch(window, np.zeros_like(window))))
    return losses


def begin_again(model, calls=0):
    for layer in model.layers:
        layer.reset_state()
        layer.calls = calls


@pytest.mark.parametrize("policy", ["variational", "naive"])
@pytest.mark.parametrize("compiled_before", [True, False])
def test_windows_of_a_stateful_model_are_one_sequence(policy, compiled_before):
    x = inputs()
    model = windows_model(policy, seed=3)
    if compiled_before:
        train_on_windows(model, x)
        assert [layer.calls for layer in model.layers] == [3, 3]
    begin_again(model)
    with dp.sequence(model):
        losses = train_on_windows(model, x)
    assert [layer.calls for layer in model.layers] == [1, 1]
    whole = windows_model(policy, stateful=False, steps=6, seed=3)
    whole.set_weights(model.get_weights())
    y = ops.convert_to_numpy(whole(x, training=True))
    expected = [np.mean(y[:, t : t + 2] ** 2) for t in (0, 2, 4)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    # Outside each window is a call again; and the next scope is the next call.
    begin_again(model)
    apart = train_on_windows(model, x)
    assert [layer.calls for layer in model.layers] == [3, 3]
    np.testing.assert_allclose(apart[0], losses[0], rtol=1e-5)
    assert not np.allclose(apart[1:], losses[1:], rtol=1e-3)
    begin_again(model, 1)
    with dp.sequence(model):
        assert not np.allclose(train_on_windows(model, x), losses, rtol=1e-3)
    assert [layer.calls for layer in model.layers] == [2, 2]


def test_fit_over_windows_is_one_sequence():
    x = inputs()
    model = windows_model(seed=3)
    flat = np.concatenate([x[:, t : t + 2] for t in (0, 2, 4)])
    begin_again(model)
    with dp.sequence(model):
        history = model.fit(flat, np.zeros_like(flat), batch_size=3, shuffle=False, verbose=0)
    assert [layer.calls for layer in model.layers] == [1, 1]
    begin_again(model)
    with dp.sequence(model):
        losses = train_on_windows(model, x)
    np.testing.assert_allclose(history.history["loss"][0], np.mean(losses), rtol=1e-5)


def test_eager_and_compiled_calls_go_on_from_each_other():
    x = inputs()
    model = windows_model("naive", seed=3)
    begin_again(model)
    with dp.sequence(model):
        losses = train_on_windows(model, x)
    begin_again(model)
    with dp.sequence(model):
        model(x[:, :2], training=True)
        mixed = train_on_windows(model, x[:, 2:4])
        last = ops.convert_to_numpy(model(x[:, 4:], training=True))
    np.testing.assert_allclose([*mixed, np.mean(last**2)], losses[1:], rtol=1e-4)
    assert [layer.calls for layer in model.layers] == [1, 1]


def test_hold_gives_compiled_calls_the_same_masks():
    x = inputs(2)
    model = windows_model(stateful=False, seed=3)
    with dp.hold(model):
        first, second = train_on_windows(model, x), train_on_windows(model, x)
    assert [layer.calls for layer in model.layers] == [1, 1]
    assert first == second
    assert train_on_windows(model, x) != first


if BACKEND != "torch":

    def test_rows_of_their_own_do_not_go_with_calls_that_are_compiled_by_themselves():
        x = inputs()
        model = windows_model(seed=3)
        reset = [True, False, False]

        def before():
            with dp.sequence(model) as scope:
                scope.reset(reset)
                train_on_windows(model, x)

        def after():
            with dp.sequence(model) as scope:
                train_on_windows(model, x)
                scope.reset(reset)

        for _ in range(2):  # also where the functions are compiled already
            with pytest.raises(dp.PolicyError, match="inside the function that is compiled"):
                before()
            with pytest.raises(dp.PolicyError, match="compiled by themselves"):
                after()
            assert train_on_windows(model, x)


# --- reset ---------------------------------------------------------------------------------------


def test_rows_that_are_reset_begin_anew_and_the_others_go_on():
    both = dp.naive(0.5) | dp.Policy(cell=dp.drop(0.5, per="sequence"))
    layer = stepwise(dpk.LSTM, policy=both, seed=4)
    done = np.array([False, True, False])
    x = np.ones((3, 1, H), "float32")
    layer(x)

    def run(reset, rows=None):
        picked = [0, 1, 2] if rows is None else rows
        layer.calls = 0
        with dp.sequence(layer, rows=rows) as scope:
            for t in range(6):
                if t == 3 and reset:
                    scope.reset(ops.convert_to_tensor(done[picked]))
                layer(x[picked], training=True)

    got, expected = recorded(layer, lambda: run(True)), recorded(layer, lambda: run(False))
    for t in range(6):
        for slot, mask in got[t].items():
            np.testing.assert_array_equal(mask[:, [0, 2]], expected[t][slot][:, [0, 2]])
            same = np.array_equal(mask[:, 1], expected[t][slot][:, 1])
            assert same == (t < 3), (t, slot)
            step = (t - 3 if t >= 3 else t) if slot.site is not dp.Site.CELL else 0
            seed = keyed.derived_seed(4, 1) if t >= 3 else 4
            bits = keyed.keep_bits(keyed.mask_key(seed, 0, slot), 0.5, (1, 1, H), 1, step)
            np.testing.assert_array_equal(mask[:, 1:2], bits * 2.0)
    for rows in ([1], [2, 1]):
        replayed = recorded(layer, lambda rows=rows: run(True, rows))
        for t in range(6):
            for slot, mask in replayed[t].items():
                np.testing.assert_array_equal(mask, got[t][slot][:, rows])


@pytest.mark.parametrize("rows", [True, [2, 0, 0], [[True]], "all", [], [0.5, 0, 0]])
def test_what_is_no_row_is_refused(rows):
    layer = stepwise(dpk.GRU, policy="zaremba")
    with dp.sequence(layer) as scope, pytest.raises(dp.PolicyError, match=r"reset\(done\)"):
        scope.reset(rows)


def test_other_numbers_of_rows_are_refused():
    layer = stepwise(dpk.GRU, policy="zaremba", seed=1)
    with dp.sequence(layer) as scope:
        layer(inputs(1), training=True)
        scope.reset([True, False, False])
        with pytest.raises(dp.PolicyError, match=r"each of the 3 rows.*Received: 2"):
            scope.reset([True, False])
        with pytest.raises(dp.PolicyError, match=r"has 3 rows\. Received: a call with 4"):
            layer(inputs(1, batch=4), training=True)


class Agent(keras.Model):
    """A layer that is run over recorded episodes."""

    def __init__(self, **more):
        super().__init__()
        self.rnn = stepwise(dpk.LSTM, policy="naive", rate=0.5, **more)

    def call(self, observations, training=False):
        x, done = observations
        state, outputs = None, []
        with dp.sequence(self) as scope:
            for t in range(x.shape[1]):
                scope.reset(done[:, t])
                y, *state = self.rnn(x[:, t : t + 1], initial_state=state, training=training)
                outputs.append(y)
        return ops.concatenate(outputs, axis=1)


def test_episodes_are_reset_inside_a_compiled_call():
    model = Agent(seed=2)
    x, done = inputs(), np.zeros((3, 6), bool)
    done[1, 2] = done[2, 4] = True
    model((x, done))
    eager = ops.convert_to_numpy(model((x, done), training=True))
    none = ops.convert_to_numpy(model((x, 0 * done), training=True))
    assert not np.allclose(eager, none)
    model.rnn.calls = 0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.train_on_batch((x, done), np.zeros_like(eager))
    np.testing.assert_allclose(loss, np.mean(eager**2), rtol=1e-4)


# --- scopes --------------------------------------------------------------------------------------


def test_the_number_of_calls_is_set_outside_of_a_scope():
    layer = stepwise(dpk.LSTM, policy="variational", seed=1)
    for scope in (dp.sequence, dp.hold):
        with scope(layer):
            with pytest.raises(dp.PolicyError, match=r"before the scope.*Received: calls=5"):
                layer.calls = 5
            layer(inputs(2), training=True)
    assert layer.calls == 2


def test_samples_are_taken_step_by_step_inside_of_one():
    layer = stepwise(dpk.LSTM, policy="variational", seed=1)
    x = inputs(4)

    def run(state=None):
        outputs = []
        for begin, end in [(0, 1), (1, 4)]:
            y, *state = layer(x[:, begin:end], initial_state=state)
            outputs.append(y)
        return ops.convert_to_numpy(ops.concatenate(outputs, axis=1))

    with dp.monte_carlo(layer, seed=1):
        whole = ops.convert_to_numpy(layer(x)[0])
    with dp.monte_carlo(layer, seed=1), dp.sequence(layer):
        np.testing.assert_allclose(run(), whole, atol=1e-6)
    with (
        dp.sequence(layer),
        pytest.raises(dp.PolicyError, match="Sample first"),
        dp.monte_carlo(layer),
    ):
        pass


def test_schedules_stay_where_the_sequence_began():
    rates = dp.schedule({0: 0.0, 1: 0.9})
    layer = stepwise(dpk.LSTM, policy="zaremba", rate=rates, seed=1)
    x = inputs(1)
    layer(x)
    call = lambda: recorded(layer, lambda: layer(x, training=True))[0]  # noqa: E731
    with dp.sequence(layer):
        for _ in range(3):
            assert all((mask == 1).all() for mask in call().values())
    assert any((mask == 0).any() for mask in call().values())


def test_a_layer_that_goes_backwards_is_called_once():
    layer = keras.layers.Bidirectional(
        dpk.LSTM(H, policy="zaremba", seed=1, stack=(0, 1), return_sequences=True)
    )
    x = inputs()
    with dp.sequence(layer):
        layer(x, training=True)
        with pytest.raises(dp.PolicyError, match="needs the whole sequence in one call"):
            layer(x, training=True)


def test_a_layer_that_is_stepped_outside_of_a_scope_warns_once():
    layer = stepwise(dpk.LSTM, policy="variational", seed=1)
    _, *state = layer(inputs(1), training=True)
    with pytest.warns(dp.PolicyWarning, match=r"lstm.* is called for one step.*dp\.sequence"):
        layer(inputs(1), initial_state=state, training=True)
    layer(inputs(1), initial_state=state, training=True)
    quiet = stepwise(dpk.LSTM, policy="zaremba", seed=1)
    quiet(inputs(1), initial_state=state, training=True)
    quiet = stepwise(dpk.LSTM, policy="variational", seed=1)
    with dp.sequence(quiet):
        quiet(inputs(1), initial_state=state, training=True)
    quiet(inputs(1), initial_state=state)


class Loop(keras.layers.Layer):
    """A cell of one's own that calls a layer under a policy in each step."""

    def __init__(self, policy, **kwargs):
        super().__init__(**kwargs)
        self.state_size = H
        self.rnn = dpk.GRU(H, policy=policy, seed=1)

    def build(self, shape):
        self.rnn.build((None, 1, shape[-1]))

    def call(self, inputs, states, training=False):
        h = self.rnn(inputs[:, None], initial_state=states[0], training=training)
        return h, [h]


class LoopModel(keras.Model):
    def __init__(self, policy, **more):
        super().__init__()
        self.rnn = keras.layers.RNN(Loop(policy), return_sequences=True, **more)

    def call(self, x, training=False):
        with dp.sequence(self.rnn.cell):
            return self.rnn(x, training=training)


HELD = dp.Policy(input=dp.drop(0.5, per="sequence"), hidden=dp.drop(0.5, per="sequence"))


def test_masks_per_sequence_are_held_in_a_loop_of_the_graph():
    model = LoopModel(HELD)
    x = inputs()
    model(x)
    whole = dpk.GRU(H, policy=HELD, seed=1, return_sequences=True)
    whole.build(x.shape)
    whole.set_weights(model.get_weights())
    expected = ops.convert_to_numpy(whole(x, training=True))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.train_on_batch(x, np.zeros_like(expected))
    np.testing.assert_allclose(loss, np.mean(expected**2), rtol=1e-4)
    assert model.rnn.cell.rnn.calls == 1


def test_masks_per_step_in_kerass_loop_are_refused():
    model = LoopModel("zaremba")
    x = inputs()
    model(x)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    with pytest.raises(dp.PolicyError, match=r"the number of the step.*unroll=True"):
        model.train_on_batch(x, np.zeros_like(x))
    unrolled = LoopModel("zaremba", unroll=True)
    unrolled(x)
    unrolled.compile(keras.optimizers.SGD(0.0), "mse")
    unrolled.train_on_batch(x, np.zeros_like(x))


# --- functions of one's own ----------------------------------------------------------------------


if BACKEND == "tensorflow":

    def test_a_function_of_ones_own_keeps_to_the_scope_or_is_refused():
        import tensorflow as tf

        layer = stepwise(dpk.LSTM, policy="naive", rate=0.5, seed=1)
        x = inputs(2)
        layer(x)
        state = [np.zeros((3, H), "float32")] * 2
        step = lambda x, state: layer(x, initial_state=state, training=True)  # noqa: E731
        before = tf.function(step)
        before(x, state)
        with (
            pytest.raises(dp.PolicyError, match="compiled before the first scope"),
            dp.sequence(layer),
        ):
            before(x, state)
        inside = tf.function(step)
        layer.calls = 0
        with dp.sequence(layer):
            y, *state = inside(x[:, :1], state)
            z, *_ = inside(x[:, 1:], state)
        assert layer.calls == 1
        layer.calls = 0
        whole, *_ = layer(x, training=True)
        np.testing.assert_allclose(np.concatenate([y, z], axis=1), whole, atol=1e-6)
        assert inside(x[:, :1], state) is not None  # outside of a scope it is a call again
        assert layer.calls == 2


class Twins(keras.Model):
    """Both twins of a siamese network, under the same masks."""

    def __init__(self):
        super().__init__()
        self.rnn = dpk.LSTM(H, policy="naive", seed=1)

    def call(self, x, training=False):
        with dp.hold(self):
            return self.rnn(x, training=training), self.rnn(x, training=training)


if BACKEND == "jax":

    def test_a_scope_is_inside_of_the_call_that_jax_compiles():
        import jax

        model = Twins()
        x = inputs(2)
        model(x)
        trainable = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        step = jax.jit(lambda state: model.stateless_call(trainable, state, x, training=True))
        (y, z), new = step(state)
        np.testing.assert_array_equal(y, z)
        (other, _), newer = step(new)
        assert not np.array_equal(other, y)
        assert [int(state[0][1]) for state in (state, new, newer)] == [0, 1, 2]

        rnn = keras.Sequential([keras.Input((2, H)), dpk.LSTM(H, policy="naive", seed=1)])
        weights = [v.value for v in rnn.trainable_variables]

        def from_outside(state):
            with dp.hold(rnn):
                return rnn.stateless_call(weights, state, x, training=True)

        with pytest.raises(dp.PolicyError, match=r"outside of stateless_call.*the model's call"):
            jax.jit(from_outside)([v.value for v in rnn.non_trainable_variables])

        call = jax.jit(lambda state: rnn.stateless_call(weights, state, x, training=True))
        with pytest.raises(dp.PolicyError, match="not written back"), dp.hold(rnn):
            call([v.value for v in rnn.non_trainable_variables])
        assert rnn.layers[-1].calls == 0


if BACKEND == "torch":  # on one backend: an audit calls the model a hundred times

    class Stepped(keras.Model):
        """A layer that is called for each step, perhaps in a scope."""

        def __init__(self, policy, in_scope):
            super().__init__()
            self.rnn = dpk.LSTM(16, policy=policy, return_sequences=True, return_state=True)
            self.in_scope = in_scope

        def call(self, x, training=False):
            state, outputs = [ops.zeros((len(x), 16))] * 2, []
            with dp.sequence(self) if self.in_scope else contextlib.nullcontext():
                for t in range(x.shape[1]):
                    y, *state = self.rnn(x[:, t : t + 1], initial_state=state, training=training)
                    outputs.append(y)
            return ops.concatenate(outputs, axis=1)

    @pytest.mark.filterwarnings("ignore::dropout_policies.PolicyWarning")
    @pytest.mark.parametrize(("in_scope", "found"), [(True, "variational"), (False, "naive")])
    def test_the_audit_of_a_loop_in_a_scope_names_the_policy(in_scope, found):
        model = Stepped("variational", in_scope)
        model(np.zeros((2, 5, 16), "float32"))
        assert dp.audit(model).policy == found
