"""What calls inside a scope keep of their masks, so that none is drawn twice."""

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from dropout_policies_keras import kept_bits, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import dropout_policies as dp

B, H = 3, 4
EXAMPLES = {"jax": 3, "tensorflow": 6, "torch": 15}[keras.backend.backend()]  # by what one costs


@pytest.fixture
def draws(monkeypatch):
    """How many steps of bits were drawn in each go."""
    counted, original = [], masks._draw_bits

    def counting(slot, mask, generator, source, replica, compiled_bits, shape, first_step):
        counted.append((slot.site.value, shape[0]))
        return original(slot, mask, generator, source, replica, compiled_bits, shape, first_step)

    monkeypatch.setattr(masks, "_draw_bits", counting)
    return counted


def noise(steps, batch=B):
    return np.random.default_rng(steps).standard_normal((batch, steps, H)).astype("float32")


def stepped(layer, x):
    state = [ops.zeros((len(x), H))]
    for t in range(x.shape[1]):
        y, *state = layer(x[:, t : t + 1], initial_state=state, training=True)
    return y


def gru(policy):
    return dpk.GRU(H, policy=policy, seed=1, return_sequences=True, return_state=True)


STEP = dp.Policy(input=dp.drop(0.5))
HELD = dp.Policy(hidden=dp.drop(0.5, per="sequence"))


def test_a_mask_that_is_held_is_drawn_once(draws):
    layer = gru("variational")
    with dp.sequence(layer):
        stepped(layer, noise(10))
    assert sorted(draws) == [("hidden", 1), ("input", 1), ("output", 1)]


def test_masks_of_steps_are_drawn_in_advance(draws):
    layer = gru(STEP)
    with dp.sequence(layer):
        stepped(layer, noise(20))
    assert draws == [("input", count) for count in (1, 2, 4, 8, 16)]


def test_chunks_of_a_few_steps_use_all_that_was_drawn_in_advance(draws):
    layer = gru(STEP)
    with dp.sequence(layer):
        for _ in range(3):
            layer(noise(3), training=True)
    assert draws == [("input", 3), ("input", 6)]  # the last three of nine came with the second


def test_a_graph_holds_each_mask_once(draws):
    class Stepper(keras.Model):
        def __init__(self):
            super().__init__()
            self.cell = dpk.GRUCell(
                H, policy=dp.Policy(hidden=dp.drop(0.5, per="sequence")), seed=1
            )

        def call(self, x, training=False):
            state = [ops.zeros((B, H))]
            with dp.sequence(self):
                for t in range(x.shape[1]):
                    y, state = self.cell(x[:, t], state, training=training)
            return y

    model = Stepper()
    model(noise(6))
    model.compile("sgd", "mse")
    model.train_on_batch(noise(6), np.zeros((B, H)))
    assert set(draws) == {("hidden", 1)}
    assert len(draws) <= 2  # a backend may trace a function twice


def test_long_chunks_draw_their_own_steps_alone(draws):
    layer = gru(STEP)
    with dp.sequence(layer):
        for _ in range(3):
            layer(noise(20), training=True)
    assert draws == [("input", 20)] * 3


def test_twins_draw_their_masks_once(draws):
    layer = gru(STEP)
    with dp.hold(layer):
        for count in (5, 5, 3, 7):
            layer(noise(count), training=True)
    assert draws == [("input", 5), ("input", 7)]


def recorded(layer, lengths, batches, resets=None):
    """The masks of calls over some steps each, on batches of some rows each."""
    with dp.record(layer) as record, dp.sequence(layer) as scope:
        for number, (count, batch) in enumerate(zip(lengths, batches, strict=True)):
            if resets is not None:
                scope.reset(resets[number])
            layer(noise(count, batch), training=True)
    (calls,) = record.values()
    return [{slot: np.array(mask) for slot, mask in call.items()} for call in calls]


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_what_is_kept_is_what_would_be_drawn(data):
    count = data.draw(st.integers(1, 8))
    lengths = data.draw(st.lists(st.integers(1, 10), min_size=count, max_size=count))
    are_reset = data.draw(st.booleans())
    sizes = st.just(B) if are_reset else st.integers(1, B)
    batches = data.draw(st.lists(sizes, min_size=count, max_size=count))
    rows = st.lists(st.booleans(), min_size=B, max_size=B)
    resets = data.draw(st.lists(rows, min_size=count, max_size=count)) if are_reset else None
    policy = dp.Policy(
        input=dp.drop(0.5),
        hidden=dp.drop(0.5, per="sequence"),
        recurrent_weight=dp.drop(0.5, per="call"),
    )
    layer = dpk.GRU(H, policy=policy, seed=data.draw(st.integers(0, 5)))
    kept = recorded(layer, lengths, batches, resets)
    layer.calls = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_bits, "_can_be_kept", lambda _: False)
        drawn = recorded(layer, lengths, batches, resets)
    for a, b in zip(kept, drawn, strict=True):
        assert a.keys() == b.keys()
        for slot in a:
            np.testing.assert_array_equal(a[slot], b[slot])


class LoopThenStep(keras.Model):
    """A cell that Keras's loop runs first, and its own code then, in one sequence."""

    def __init__(self):
        super().__init__()
        self.cell = dpk.GRUCell(H, policy=HELD, seed=1)
        self.rnn = keras.layers.RNN(self.cell, return_state=True)

    def call(self, x, training=False):
        with dp.sequence(self):
            y, *state = self.rnn(x, training=training)
            y, _ = self.cell(y, state, training=training)
        return y


def test_what_a_loop_has_drawn_stays_in_the_loop():
    model = LoopThenStep()
    model(noise(4))
    with dp.sequence(model.cell), dp.record(model.cell) as record:
        model.cell(noise(1)[:, 0], [ops.zeros((B, H))], training=True)
    (mask,) = next(iter(record.values()))[0].values()
    expected = by_hand(model.cell, noise(4), np.array(mask)[0])
    model.cell.calls, weights = 0, model.get_weights()
    model.compile("sgd", "mse")
    loss = model.train_on_batch(noise(4), np.zeros((B, H)))
    assert model.cell.calls == 1
    np.testing.assert_allclose(loss, np.square(expected).mean(), rtol=1e-4)
    model.set_weights(weights)
    model.cell.calls = 0
    y = ops.convert_to_numpy(model(noise(4), training=True))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def by_hand(cell, x, mask):
    """What the cell gives after all steps and one more, on its own output, under a mask of h."""
    plain = keras.layers.GRUCell(H)
    plain.build((B, H))
    plain.set_weights(cell.get_weights())
    kernel, recurrent, bias = (np.array(ops.convert_to_numpy(w)) for w in plain.weights)
    h = np.zeros((B, H))
    outputs = [*np.moveaxis(x, 1, 0), None]
    for value in outputs:
        value = h if value is None else value
        into = value @ kernel + bias[0]
        back = (h * mask) @ recurrent + bias[1]
        z, r = (1 / (1 + np.exp(-(into + back)[:, n * H : (n + 1) * H])) for n in (0, 1))
        n = np.tanh(into[:, 2 * H :] + r * back[:, 2 * H :])
        h = z * h + (1 - z) * n
    return h
