"""RNN over Keras's cells, over several of them, and over a cell of one's own."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, SimpleRNN
from keras import layers, ops

import dropout_policies as dp
from dropout_policies.placement.plans import Slot
from dropout_policies.policies.sites import Site
from tests.support.keras_subject import OwnLSTMCell

B, T, D, H = 3, 5, 4, 6
HOW = {"return_sequences": True, "return_state": True}


def data(seed=0, shape=(B, T, D)):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def flat(result):
    return [ops.convert_to_numpy(part) for part in keras.tree.flatten(result)]


def mixed_cells():
    return [layers.LSTMCell(H), layers.GRUCell(5, reset_after=False), layers.SimpleRNNCell(D)]


def policy(per="step"):
    """What every kind of cell can have."""
    return dp.Policy(
        input=dp.drop(0.2, per=per, gates="untied"),
        between=dp.drop(0.3),
        output=dp.drop(0.4),
        hidden=dp.drop(0.3, per=per, gates="untied"),
        state=dp.drop(0.2, scaled=False),
        hidden_update=dp.Rule(0.2, kind="zoneout"),
        recurrent_weight=dp.drop(0.3, per="call"),
    )


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_stack_of_mixed_cells_is_its_layers_one_by_one(backwards, padded, training):
    """The same weights and seed in three layer objects give the same numbers."""
    cells = layers.StackedRNNCells(mixed_cells())
    stack = RNN(cells, go_backwards=backwards, policy=policy(), seed=3, **HOW)
    mask = np.array([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 0, 0, 0]], bool)
    masked = {"mask": ops.convert_to_tensor(mask)} if padded else {}
    y, *states = stack(data(), training=training, **masked)
    assert stack.layers == 3
    parts = [
        kind(units, policy=policy(), seed=3, stack=(layer, 3), **HOW, **more)
        for layer, (kind, units, more) in enumerate(
            [(LSTM, H, {}), (GRU, 5, {"reset_after": False}), (SimpleRNN, D, {})]
        )
    ]
    x, ends = data(), []
    for part, cell in zip(parts, cells.cells, strict=True):
        part.go_backwards = backwards
        part.build(x.shape)
        part.set_weights(cell.get_weights())
        x, *end = part(x, training=training, **masked)
        ends += end
        # A layer of its own gives what it read last first, and takes text.
        x = ops.flip(x, axis=1) if backwards else x
    x = ops.flip(x, axis=1) if backwards else x
    if padded:
        keep = mask[:, ::-1, None] if backwards else mask[:, :, None]
        keep = keep.astype("float32")
        x, y = x * ops.convert_to_tensor(keep), y * ops.convert_to_tensor(keep)
    for got, expected in zip(flat([y, states]), flat([x, ends]), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("make", [mixed_cells, lambda: layers.GRUCell(H), lambda: OwnLSTMCell(H)])
def test_evaluation_is_the_stock_layer_bit_for_bit(make):
    stock = layers.RNN(make(), **HOW)
    ours = RNN(make(), policy="naive", **HOW)
    stock.build((B, T, D))
    ours.build((B, T, D))
    ours.set_weights(stock.get_weights())
    for left, right in zip(flat(stock(data())), flat(ours(data())), strict=True):
        np.testing.assert_array_equal(left, right)


@keras.saving.register_keras_serializable(package="tests")
class Wide(keras.layers.Layer):
    """A cell whose output is no state, and wider."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.output_size = 2 * units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.mix = self.add_weight(shape=(self.units, self.units), name="mix")

    def call(self, inputs, states, training=False):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.mix))
        extra = 1.0 if training else 0.0
        return ops.concatenate([h, h + extra], axis=-1), [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_around_a_cell_of_ones_own_noise_falls_where_it_says():
    rules = dp.Policy(
        input=dp.drop(0.3),
        output=dp.drop(0.4),
        hidden=dp.drop(0.3, per="sequence"),
        state=dp.drop(0.2),
        hidden_update=dp.Rule(0.3, kind="zoneout"),
    )
    cell = Wide(H)
    layer = RNN(cell, policy=rules, seed=1, **HOW)
    with dp.record(layer) as masks:
        y, last = flat(layer(data(), training=True))
    (drawn,) = masks[layer.name]
    here = {slot.site: mask for slot, mask in drawn.items()}
    assert here[Site.OUTPUT].shape == (T, B, 2 * H)
    kernel, mix = layer.get_weights()
    h, x = np.zeros((B, H)), data().swapaxes(0, 1)
    for t in range(T):
        new = np.tanh(x[t] * here[Site.INPUT][t] @ kernel + h * here[Site.HIDDEN][0] @ mix)
        expected = np.concatenate([new, new + 1.0], axis=-1) * here[Site.OUTPUT][t]
        np.testing.assert_allclose(y[:, t], expected, atol=1e-5)
        d = here[Site.HIDDEN_UPDATE][t]
        h = d * h + (1 - d) * new * here[Site.STATE][t]
    np.testing.assert_allclose(last, h, atol=1e-5)


@pytest.mark.parametrize("name", ["rnndrop", "weight_drop", "semeniuta", "zoneout"])
def test_inside_a_cell_of_ones_own_only_it_can_mask(name):
    message = r"RNN of Wide has no site .*It has: input, between, output, hidden, state, hidden_up"
    with pytest.raises(dp.PolicyError, match=message + r".*Only Wide itself can mask inside"):
        RNN(Wide(H), policy=dp.resolve(name))
    with pytest.raises(dp.PolicyError, match=r"RNN of Wide cannot be masked inside.*gates='tied'"):
        RNN(Wide(H), policy=dp.variational(gates="untied"))


def test_a_cell_whose_state_is_no_vector_is_refused():
    cell = Wide(H)
    cell.state_size = [(2, 3)]
    with pytest.raises(dp.PolicyError, match=r"state_size=\[\(2, 3\)\]"):
        RNN(cell, policy="zaremba")


def test_layers_and_directions_have_masks_of_their_own():
    cells = [layers.GRUCell(D), layers.GRUCell(D)]
    both = layers.Bidirectional(RNN(cells, policy=policy(), seed=2, return_sequences=True))
    both.build((B, T, D))
    with dp.record(both) as masks:
        both(data(), training=True)
    drawn = [mask for calls in masks.values() for mask in calls[0].items()]
    assert {slot[1:] for slot, _ in drawn} == {(0, 0), (1, 0), (0, 1), (1, 1)}
    bits = [(mask != 0).astype(int).tobytes() for _, mask in drawn]
    assert len(set(bits)) == len(bits)


@pytest.mark.parametrize("kind", [LSTM, GRU, SimpleRNN])
def test_masks_of_each_step_differ_from_step_to_step(kind):
    """Drawn inside of the loop, they would not under JAX."""
    rules = dp.Policy(hidden=dp.drop(0.5), hidden_update=dp.Rule(0.5, kind="zoneout"))
    layer = kind(32, return_sequences=True, policy=rules)
    with dp.record(layer) as masks:
        layer(data(), training=True)
        layer(data(), training=True)
    rows = [
        mask[t].tobytes() for call in masks[layer.name] for mask in call.values() for t in range(T)
    ]
    assert len(set(rows)) == len(rows) == 4 * T
    # And they are what falls: with z zoned out to 1, h stays zero where the mask says so.
    zoned = masks[layer.name][1][Slot(Site.HIDDEN_UPDATE, 0, 0)]
    with dp.replay(layer, {layer.name: [masks[layer.name][1]]}):
        y = flat(layer(data(), training=True))[0].swapaxes(0, 1)
    np.testing.assert_array_equal(y[0] == 0, zoned[0] == 1)
    for t in range(1, T):
        stays = zoned[t] == 1
        np.testing.assert_array_equal(y[t][stays], y[t - 1][stays])
        assert not (y[t] == y[t - 1])[~stays].any()


@pytest.mark.parametrize("make", [mixed_cells, lambda: OwnLSTMCell(D)])
@pytest.mark.parametrize("seed", [None, 5])
def test_they_train_compiled_and_evaluate_alike(make, seed):
    rules = dp.locked() | dp.Policy(hidden_update=dp.Rule(0.3, kind="zoneout"))
    layer = RNN(make(), policy=rules, seed=seed)
    model = keras.Sequential([keras.Input((T, D)), layer])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    y = np.zeros((B, D), "float32")

    def loss(of_batch):
        model.reset_metrics()  # before Keras 3.15 the mean of all batches is returned
        return float(of_batch(data(), y))

    losses = [loss(model.train_on_batch) for _ in range(3)]
    assert len(set(losses)) == 3
    evaluated = [loss(model.test_on_batch) for _ in range(2)]
    assert evaluated[0] == evaluated[1]
    if seed is not None:
        assert layer.calls == 3
        layer.calls = 0
        np.testing.assert_allclose(loss(model.train_on_batch), losses[0], rtol=1e-6)


@pytest.mark.parametrize("seed", [None, 5])
def test_they_are_saved_with_their_policy(tmp_path, seed):
    own = RNN(OwnLSTMCell(D), policy=dp.locked(0.3), seed=seed, return_sequences=True)
    stack = RNN(mixed_cells(), policy=policy("sequence"), seed=seed, stack=(0, 3))
    saved = keras.Sequential([keras.Input((T, D)), own, stack])
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"OwnLSTMCell": OwnLSTMCell}
    )
    for before, after in zip(saved.layers, loaded.layers, strict=True):
        assert after.placement == before.placement
        assert after.seed == before.seed == seed
    np.testing.assert_array_equal(*(m.predict(data(), verbose=0) for m in (saved, loaded)))
    if seed is not None:
        np.testing.assert_array_equal(*(flat(m(data(), training=True))[0] for m in (saved, loaded)))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_stateful_stack_carries_all_of_its_states(backwards):
    how = {"go_backwards": backwards, "policy": policy(), "seed": 3, **HOW}
    stack = RNN(layers.StackedRNNCells(mixed_cells()), stateful=True, **how)
    plain = RNN(layers.StackedRNNCells(mixed_cells()), **how)
    windows = [data(number) for number in range(3)]
    for layer in (stack, plain):
        layer.build((B, T, D))
    plain.set_weights(stack.get_weights())
    state = None
    for window in windows:
        y, *ends = stack(window, training=True)
        expected, *state = plain(window, initial_state=state, training=True)
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (y, expected)), atol=1e-6)
        for one, other in zip(flat(ends), flat(state), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    assert stack.calls == plain.calls == 3
    stack.reset_state()
    assert all(not state.any() for state in flat(stack.states))
