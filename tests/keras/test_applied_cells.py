"""`apply` on cells that a model's code calls step by step."""

import warnings

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

B, T, D, H = 3, 5, 4, 6
KINDS = {"LSTM": layers.LSTMCell, "GRU": layers.GRUCell, "RNN": layers.SimpleRNNCell}


def data(steps=T):
    return np.random.default_rng(0).standard_normal((B, steps, D)).astype("float32")


class Stepper(keras.Model):
    """Two cells, one on the other, which its code calls step by step in a scope."""

    def __init__(self, kind=layers.LSTMCell, **more):
        super().__init__()
        self.low, self.high = kind(H, name="low", **more), kind(H, name="high", **more)
        self.drop = layers.Dropout(0.2, name="drop")

    def call(self, x, training=False):
        states = [cell.get_initial_state(batch_size=B) for cell in (self.low, self.high)]
        outputs = []
        with dp.sequence(self):
            for t in range(x.shape[1]):
                y, states[0] = self.low(x[:, t], states[0], training=training)
                y = self.drop(y, training=training)
                y, states[1] = self.high(y, states[1], training=training)
                outputs.append(y)
        return ops.stack(outputs, axis=1)


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["zaremba", "variational"])
def test_cells_that_are_stepped_get_the_masks_of_the_stack(kind, policy):
    model = Stepper(KINDS[kind])
    model(data())
    stack = dpk.RNN(
        [KINDS[kind](H), KINDS[kind](H)], policy=policy, rate=0.5, seed=7, return_sequences=True
    )
    stack(data())
    stack.set_weights([*model.low.get_weights(), *model.high.get_weights()])
    paths = [variable.path for variable in model.variables]
    with dp.apply(model, policy, rate=0.5, seed=7, example=data()) as applied:
        assert [(t.name, t.layers) for t in applied.touched] == [("low", 1), ("high", 1)]
        assert (
            "low is called 5 times over one sequence, each from the state that the call before "
            "left, inside dp.sequence\n" in str(applied)
        )
        for _ in range(2):
            ours = model(data(), training=True)
            expected = numbers(stack(data(), training=True))
            np.testing.assert_allclose(numbers(ours), expected, atol=1e-5)
        assert model.low.calls == model.high.calls == 2
        assert [variable.path for variable in model.variables] == paths
    assert type(model.low) is type(model.high) is KINDS[kind]
    assert model.drop.rate == 0.2


def test_a_model_of_applied_cells_trains_compiled_and_evaluates_as_without():
    model = Stepper()
    plain = numbers(model(data()))
    with dp.apply(model, "variational", rate=0.5, seed=7, example=data()):
        np.testing.assert_array_equal(numbers(model(data())), plain)
        model.compile("sgd", "mse")
        model.fit(data(), np.zeros((B, T, H)), batch_size=B, epochs=2, verbose=0)
        assert model.low.calls == model.high.calls == 2
    # The scope in its code does not mind that there is no policy any more.
    model.fit(data(), np.zeros((B, T, H)), batch_size=B, verbose=0)


def test_a_cells_own_dropout_is_taken_over_and_comes_back():
    for cell in (layers.LSTMCell, dpk.LSTMCell):
        model = Stepper(cell, dropout=0.3, recurrent_dropout=0.1)
        model(data())
        with dp.apply(model, "zaremba", rate=0.5, example=data()) as applied:
            assert "dropout=0.3, recurrent_dropout=0.1" in str(applied)
            assert (model.low.dropout, model.low.recurrent_dropout) == (0.0, 0.0)
        assert (model.low.dropout, model.low.recurrent_dropout) == (0.3, 0.1)
        dp.apply(model, "zaremba", rate=0.5, example=data())
        dp.remove(model)
        assert (model.low.dropout, model.high.recurrent_dropout) == (0.3, 0.1)


def functional(cell=layers.GRUCell):
    start, state = keras.Input((D,)), keras.Input((H,))
    y, [h] = cell(H, name="low", dropout=0.2)(start, [state])
    z, _ = cell(H, name="high")(y, [h])
    return keras.Model([start, state], [z, h])


def test_the_structure_of_a_functional_model_shows_how_cells_are_joined():
    applied = dp.apply(functional(), "zaremba", rate=0.5)
    assert [stack.layers for stack in applied.stacks] == [2]
    assert "high starts from the state of low, which stays whole" in str(applied)


def test_applied_cells_are_saved_with_their_policy(tmp_path):
    model, inputs = functional(), [data()[:, 0], np.zeros((B, H), "float32")]
    dp.apply(model, "zaremba", rate=0.5, seed=7)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for a, b in zip(model(inputs, training=True), loaded(inputs, training=True), strict=True):
        np.testing.assert_array_equal(numbers(a), numbers(b))
    dp.remove(loaded)
    assert type(loaded.get_layer("low")) is layers.GRUCell
    assert loaded.get_layer("low").dropout == 0.2


@keras.saving.register_keras_serializable(package="test_applied_cells")
class Clipped(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(ops.clip(inputs, -1, 1), states, training=training)


class Rewritten(layers.LSTMCell):
    def call(self, inputs, states):
        return inputs, states


def test_a_cell_derived_from_keras_own_is_masked_where_it_calls_it():
    model = Stepper(Clipped)
    plain = Stepper()
    x = np.clip(data(), -1, 1)
    for each in (model, plain):
        each(x)
    plain.set_weights(model.get_weights())
    for each in (model, plain):
        dp.apply(each, "locked", rate=0.5, seed=7, example=x)
    ours, stock = numbers(model(x, training=True)), numbers(plain(x, training=True))
    # The mask scales the input up, and clipping comes before it.
    np.testing.assert_allclose(ours[:, 0], stock[:, 0], atol=1e-6)
    assert isinstance(model.low, Clipped)
    with pytest.raises(dp.PolicyError, match=r"its call does not call super\(\).call\(\)"):
        dp.apply(Stepper(Rewritten), "locked")


class StackedStepper(keras.Model):
    """Keras's stack of cells, which its code calls step by step."""

    def __init__(self):
        super().__init__()
        self.cells = layers.StackedRNNCells([layers.LSTMCell(H, name=n) for n in ("low", "high")])

    def call(self, x, training=False):
        state, outputs = self.cells.get_initial_state(batch_size=B), []
        for t in range(x.shape[1]):
            y, state = self.cells(x[:, t], state, training=training)
            outputs.append(y)
        return ops.stack(outputs, axis=1)


def test_the_cells_of_a_stack_that_is_stepped_are_one_stack():
    model = StackedStepper()
    applied = dp.apply(model, "zaremba", rate=0.5, seed=7, example=data())
    assert [[t.name for t in s.members] for s in applied.stacks] == [["low", "high"]]
    model(data(), training=True)
    assert [cell.calls for cell in model.cells.cells] == [T, T]


class Forecaster(keras.Model):
    """Warms a cell up in `RNN`, and then steps it, as TensorFlow's tutorial on time series does."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.rnn = layers.RNN(cell, return_state=True, name="rnn")
        self.head = layers.Dense(D)

    def call(self, x, training=False):
        y, *state = self.rnn(x, training=training)
        outputs = [self.head(y)]
        for _ in range(3):
            y, state = self.cell(outputs[-1], states=state, training=training)
            outputs.append(self.head(y))
        return ops.stack(outputs, axis=1)


def test_a_cell_of_a_layer_under_a_policy_says_where_nothing_is_masked():
    model = Forecaster(layers.LSTMCell(H, name="cell"))
    model(data())
    with dp.apply(model, "zaremba", rate=0.5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(data())
            model.rnn(data(), training=True)
        with pytest.warns(
            dp.PolicyWarning,
            match=r"cell is called by itself, where policy 'zaremba' of its layer rnn masks nothing"
            r".*dropout_policies_keras.LSTMCell\(units, policy='zaremba'\), and leave rnn without",
        ) as caught:
            model(data(), training=True)
        assert len([w for w in caught if w.category is dp.PolicyWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", dp.PolicyWarning)
        model(data(), training=True)
        with dp.apply(model, "zaremba", rate=0.0):
            model.rnn(data(), training=True)


def test_a_cell_with_the_policy_is_masked_in_its_layer_and_by_itself():
    policy = dp.Policy(hidden=dp.drop(0.5, per="sequence"))
    model = Forecaster(dpk.LSTMCell(H, policy=policy, seed=7))
    with dp.sequence(model):
        model(data(), training=True)
    assert model.cell.calls == 1


def test_a_model_that_is_built_in_a_scope_has_the_masks_of_one_built_before():
    """Keras may first run the call for the shapes alone, which is no call of the sequence."""
    policy, found = dp.Policy(hidden=dp.drop(0.5, per="sequence")), []
    for is_built in (True, False):
        keras.utils.set_random_seed(1)
        model = Forecaster(dpk.LSTMCell(H, policy=policy, seed=7))
        if is_built:
            model(data())
        with dp.sequence(model):
            found.append(ops.convert_to_numpy(model(data(), training=True)))
        assert model.cell.calls == 1
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


class Averaging(keras.layers.Layer):
    state_size = output_size = D

    def call(self, inputs, states):
        return inputs, [(inputs + states[0]) / 2]


class WithOwnCell(Stepper):
    def __init__(self):
        super().__init__()
        self.own = Averaging(name="own")


def test_a_cell_of_the_users_own_is_left_out_with_the_reason():
    applied = dp.apply(WithOwnCell(), "zaremba", rate=0.5, stacks=[["low", "high"]])
    assert "own" in str(applied)
    assert "a cell of your own that your code calls step by step cannot have a policy" in str(
        applied
    )
