"""The drop-in cells: one step a call, stepped by hand, in a model's `call`, and in keras's RNN."""

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp
from dropout_policies.policies import cell_types

B, T, D, H = 3, 5, 4, 6
KINDS = {
    "LSTM": (dpk.LSTMCell, dpk.LSTM, layers.LSTMCell, {}, cell_types.LSTM),
    "GRU": (dpk.GRUCell, dpk.GRU, layers.GRUCell, {}, cell_types.GRU),
    "GRU, reset before": (
        dpk.GRUCell,
        dpk.GRU,
        layers.GRUCell,
        {"reset_after": False},
        cell_types.GRU,
    ),
    "RNN": (dpk.SimpleRNNCell, dpk.SimpleRNN, layers.SimpleRNNCell, {}, cell_types.RNN),
}
BACKEND = keras.backend.backend()


def data(steps=T):
    return np.random.default_rng(0).standard_normal((B, steps, D)).astype("float32")


def steps(cell, x, training=True, state=None):
    state = cell.get_initial_state(batch_size=len(x)) if state is None else state
    state = list(state) if isinstance(state, list | tuple) else [state]
    outputs = []
    for t in range(x.shape[1]):
        y, state = cell(x[:, t], state, training=training)
        outputs.append(y)
    return ops.stack(outputs, axis=1), state


def numbers(result):
    return [ops.convert_to_numpy(part) for part in keras.tree.flatten(result)]


def everything(kind, per="sequence"):
    """A policy of every site that a kind of cell has."""
    rules = {}
    for site in kind.sites - {dp.Site.BETWEEN}:
        zoneout = site.value.endswith("_update")
        life = "call" if site.value.endswith("_weight") else per
        rules[site.value] = dp.Rule(0.3, per=life, kind="zoneout" if zoneout else "drop")
    rules["input"] = dp.drop(0.3, per=per, gates="untied")
    rules["hidden"] = dp.drop(0.3, per=per, gates="untied")
    return dp.Policy(**rules)


@pytest.mark.parametrize("per", ["sequence", "step"])
@pytest.mark.parametrize("name", KINDS)
def test_a_cell_in_a_sequence_is_the_layer(name, per):
    ours, layer, _, more, kind = KINDS[name]
    policy = everything(kind, per)
    whole = layer(H, policy=policy, seed=3, return_sequences=True, return_state=True, **more)
    cell = ours(H, policy=policy, seed=3, **more)
    expected = numbers(whole(data(), training=True))
    steps(cell, data(1), training=False)
    cell.set_weights(whole.get_weights())
    with dp.sequence(cell):
        found = numbers(steps(cell, data()))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert cell.calls == whole.calls == 1


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("policy", [{}, {"policy": "zaremba", "rate": 0.0}, {"policy": "zaremba"}])
def test_without_masks_a_cell_is_the_stock_one_bit_for_bit(name, policy):
    ours, _, stock, more, _ = KINDS[name]
    cell, plain = ours(H, **policy, **more), stock(H, **more)
    steps(cell, data(1), training=False)
    steps(plain, data(1), training=False)
    cell.set_weights(plain.get_weights())
    training = policy.get("rate") == 0.0 or not policy
    pairs = zip(
        numbers(steps(cell, data(), training)),
        numbers(steps(plain, data(), training)),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)
    assert [w.path.split("/")[-1] for w in cell.weights] == [
        w.path.split("/")[-1] for w in plain.weights
    ]


@pytest.mark.parametrize("name", KINDS)
def test_a_mask_on_the_output_leaves_the_states_whole(name):
    ours, _, stock, more, _ = KINDS[name]
    cell, plain = ours(H, policy=dp.Policy(output=dp.drop(0.5)), seed=1, **more), stock(H, **more)
    y, state = steps(cell, data(1))
    steps(plain, data(1), training=False)
    plain.set_weights(cell.get_weights())
    h, same = steps(plain, data(1))
    for a, b in zip(numbers(state), numbers(same), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    mask = numbers(y)[0] / numbers(h)[0]
    assert set(np.round(np.unique(mask), 3)) == {0.0, 2.0}


def test_each_step_outside_of_a_scope_is_a_call():
    cell = dpk.LSTMCell(H, policy="zaremba", seed=1)
    with dp.record(cell) as masks:
        steps(cell, data())
    assert cell.calls == T
    (calls,) = masks.values()
    assert len({mask.tobytes() for call in calls for mask in call.values()}) == 2 * T


@pytest.mark.parametrize("kind", [dpk.LSTMCell, dpk.GRUCell, dpk.SimpleRNNCell])
def test_a_longer_rule_outside_names_the_scope(kind):
    cell = kind(H, policy=dp.Policy(hidden=dp.drop(0.5, per="sequence")))
    with pytest.raises(dp.PolicyError, match=r"cell.* sees one step.*with dp\.sequence\(model\)"):
        steps(cell, data(1))
    steps(cell, data(1), training=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dpk.LSTMCell(H, policy="zaremba", dropout=0.3), r"dropout=0\.3"),
        (lambda: dpk.GRUCell(H, policy="rnndrop"), "cell"),
        (lambda: dpk.GRUCell(H, rate=0.5), "goes with a policy"),
        (lambda: dpk.LSTMCell(H, policy="zaremba", stack=(2, 2)), "stack"),
        (lambda: setattr(dpk.LSTMCell(H, policy="zaremba"), "dropout", 0.5), "cannot be set"),
        (
            lambda: dpk.RNN(dpk.LSTMCell(H, policy="zaremba"), policy="zaremba"),
            "under policy 'zaremba' already",
        ),
        (
            lambda: dp.apply(
                keras.Sequential([layers.RNN(dpk.LSTMCell(H, policy="zaremba"))]), "zaremba"
            ),
            "under policy 'zaremba' already",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(dp.PolicyError, match=message):
        make()


class Decoder(keras.Model):
    """Two cells with attention over what was encoded, stepped in `call`."""

    def __init__(self, policy="variational", cell=dpk.LSTMCell):
        super().__init__()
        self.first = cell(H, policy=policy, seed=1, stack=(0, 2))
        self.second = cell(H, policy=policy, seed=1, stack=(1, 2))
        self.head = layers.Dense(2)

    def call(self, inputs, training=False):
        x, encoded = inputs
        one = two = [ops.zeros((ops.shape(x)[0], H))] * 2
        context, outputs = encoded[:, -1], []
        with dp.sequence(self):
            for t in range(x.shape[1]):
                both = ops.concatenate([x[:, t], context], axis=-1)
                h, one = self.first(both, one, training=training)
                h, two = self.second(h, two, training=training)
                scores = ops.softmax(ops.einsum("bsh,bh->bs", encoded, h))
                context = ops.einsum("bs,bsh->bh", scores, encoded)
                outputs.append(self.head(h))
        return ops.stack(outputs, axis=1)


def test_a_decoder_of_cells_trains_under_masks_of_one_sequence():
    encoded = np.random.default_rng(1).standard_normal((B, 7, H)).astype("float32")
    inputs, model = (data(), encoded), Decoder()
    model(inputs)
    with dp.record(model) as masks:
        eager = ops.convert_to_numpy(model(inputs, training=True))
    for calls in masks.values():
        assert len(calls) == T
        for slot in calls[0]:
            assert all(np.array_equal(call[slot], calls[0][slot]) for call in calls)
    assert {slot.layer for calls in masks.values() for slot in calls[0]} == {0, 1}
    assert [cell.calls for cell in (model.first, model.second)] == [1, 1]
    model.first.calls = model.second.calls = 0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.train_on_batch(inputs, np.zeros_like(eager))
    np.testing.assert_allclose(loss, np.mean(eager**2), rtol=1e-4)
    assert [cell.calls for cell in (model.first, model.second)] == [1, 1]
    # Under masks per step too.
    stepwise = Decoder("naive")
    stepwise(inputs)
    eager = ops.convert_to_numpy(stepwise(inputs, training=True))
    stepwise.first.calls = stepwise.second.calls = 0
    stepwise.compile(keras.optimizers.SGD(0.0), "mse")
    loss = stepwise.train_on_batch(inputs, np.zeros_like(eager))
    np.testing.assert_allclose(loss, np.mean(eager**2), rtol=1e-4)


class OwnCell(layers.Layer):
    """A user's cell that holds one of ours."""

    def __init__(self, cell, **kwargs):
        super().__init__(**kwargs)
        self.cell, self.state_size = cell, cell.state_size

    def build(self, shape):
        self.cell.build(shape)

    def call(self, x, states, training=False):
        return self.cell(x, states, training=training)


HELD = dp.Policy(
    input=dp.drop(0.5, per="sequence"),
    hidden=dp.drop(0.5, per="sequence"),
    output=dp.drop(0.5, per="sequence"),
)


class OwnDecoder(keras.Model):
    def __init__(self, policy, in_scope=True, **more):
        super().__init__()
        cell = dpk.GRUCell(H, policy=policy, seed=2)
        self.rnn, self.in_scope = layers.RNN(OwnCell(cell), return_sequences=True, **more), in_scope

    def call(self, x, training=False):
        if not self.in_scope:
            return self.rnn(x, training=training)
        with dp.sequence(self):
            return self.rnn(x, training=training)


def trained(model, x=None):
    """The loss of a compiled training step that changes nothing."""
    x = data() if x is None else x
    model(x)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model.train_on_batch(x, np.zeros((*x.shape[:2], H), "float32"))


def test_a_cell_in_an_own_cell_of_an_rnn_holds_its_masks():
    model = OwnDecoder(HELD)
    loss = trained(model)
    whole = dpk.GRU(H, policy=HELD, seed=2, return_sequences=True)
    whole.build((B, T, D))
    whole.set_weights(model.get_weights())
    expected = ops.convert_to_numpy(whole(data(), training=True))
    np.testing.assert_allclose(loss, np.mean(expected**2), rtol=1e-4)


def test_masks_per_step_in_kerass_loop_are_refused_where_the_step_is_unknown():
    with pytest.raises(dp.PolicyError, match=r"the number of the step.*unroll=True"):
        trained(OwnDecoder("naive"))
    if BACKEND == "jax":
        with pytest.raises(dp.PolicyError, match=r"every step the same masks.*unroll=True"):
            trained(OwnDecoder("naive", in_scope=False))
    else:  # drawn in each step of the loop, of which Keras runs the first one twice
        model = OwnDecoder("naive", in_scope=False)
        trained(model)
        assert model.rnn.cell.cell.calls == T + 1
    model = OwnDecoder("naive", unroll=True)
    loss = trained(model)
    whole = dpk.GRU(H, policy="naive", seed=2, return_sequences=True)
    whole.build((B, T, D))
    whole.set_weights(model.get_weights())
    expected = ops.convert_to_numpy(whole(data(), training=True))
    np.testing.assert_allclose(loss, np.mean(expected**2), rtol=1e-4)


def test_a_cell_is_saved_with_its_policy(tmp_path):
    inputs = keras.Input((T, D))
    rnn = layers.RNN(dpk.LSTMCell(H, policy="zaremba", rate=0.4, seed=7, stack=(0, 2)))
    model = keras.Model(inputs, rnn(inputs))
    model.save(tmp_path / "model.keras")
    cell = keras.models.load_model(tmp_path / "model.keras").layers[-1].cell
    assert (cell.placement, cell.seed) == (rnn.cell.placement, 7)
    assert cell.placement.policy == dp.zaremba(0.4)
    plain = dpk.LSTMCell.from_config(dpk.LSTMCell(H).get_config())
    assert plain.placement is None


def test_remove_makes_a_cell_the_stock_one():
    cell = dpk.GRUCell(H, policy="zaremba", seed=1)
    steps(cell, data(1))
    dp.remove(cell)
    assert type(cell) is layers.GRUCell
    y, _ = steps(cell, data())
    plain = layers.GRUCell(H)
    plain.build((B, D))
    plain.set_weights(cell.get_weights())
    np.testing.assert_array_equal(numbers(y)[0], numbers(steps(plain, data())[0])[0])
