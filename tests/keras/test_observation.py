"""Models with a `call` of their own, seen in a run on an example that leaves no trace."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

B, T, D, H = 3, 5, 4, 6


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def lstm(name, units=H, **more):
    return layers.LSTM(units, return_sequences=True, name=name, **more)


class Model(keras.Model):
    """Layers, and a function that calls them."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, inputs, training=False):
        return self.function(self, inputs, training)


def feeding(wiring):
    """For each layer the layers that feed it."""
    return {use.item.name: [source.item.name for source in use.fed_by] for use in wiring.uses}


def two(between, head=None):
    """A model that puts something between two layers."""
    head = head or layers.Dense(2)

    def call(self, inputs, training):  # noqa: ARG001
        return self.head(self.b(between(inputs, self.a(inputs))))

    return Model(call, a=lstm("a"), b=lstm("b"), head=head)


JOINED = {
    "directly": lambda _, a: a,
    "concatenation": lambda x, a: ops.concatenate([x, a], axis=-1),
    "sum": lambda _, a: a + ops.flip(a, axis=1),
    "activation": lambda _, a: ops.relu(a),
    "pooling": lambda _, a: layers.MaxPooling1D(2)(a),
    "every second step": lambda _, a: a[:, ::2],
    "transposed twice": lambda _, a: ops.transpose(ops.transpose(a, (1, 0, 2)), (1, 0, 2)),
    "last step again": lambda _, a: ops.repeat(a[:, -1:], 4, axis=1),
    "weighted by attention": lambda _, a: ops.matmul(
        ops.softmax(ops.matmul(a, ops.transpose(a, (0, 2, 1)))), a
    ),
}


@pytest.mark.parametrize("way", JOINED)
def test_an_output_is_followed_through_what_has_no_weights(way):
    model = two(JOINED[way])
    applied = dp.apply(model, "zaremba", 0.5, example=x())
    assert [(s.layers, s.masked) for s in applied.stacks] == [(2, 3)]
    assert not model.a.placement.last
    assert not model.b.placement.first


@pytest.mark.parametrize("between", [layers.Dense(H), layers.TimeDistributed(layers.Dense(H))])
def test_weights_between_end_a_stack(between):
    model = two(lambda _, a: between(a))
    model.between = between
    assert feeding(dp.wiring(model, example=x())) == {"a": [], "b": []}
    assert len(dp.apply(model, "zaremba", 0.5, example=x()).stacks) == 2


def test_masks_fall_once_on_a_connection_that_was_seen():
    seen = {}

    class Spy(layers.Layer):
        def call(self, inputs):
            seen["share"] = float((numpy(inputs) == 0).mean())
            return inputs

    spy = Spy()
    model = two(lambda _, a: spy(a))
    # Not the input: where all of the first step is dropped, an LSTM gives zeros.
    policy = dp.Policy(between=dp.drop(0.5), output=dp.drop(0.5))
    dp.apply(model, policy, seed=1, example=x())
    model(x(), training=True)
    assert seen["share"] == 0, "b masks what comes in, and so a leaves it whole"
    assert 0.3 < (numpy(model.b(numpy(model.a(x())), training=True)) == 0).mean() < 0.7


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_states_that_are_handed_over_join_nothing(kind):
    def call(self, inputs, training):  # noqa: ARG001
        _, *state = self.encoder(inputs)
        return self.head(self.decoder(inputs, initial_state=state))

    model = Model(
        call,
        encoder=kind(H, return_state=True, name="encoder"),
        decoder=kind(H, return_sequences=True, name="decoder"),
        head=layers.Dense(2),
    )
    wiring = dp.wiring(model, example=x())
    encoder, decoder = wiring.uses
    assert feeding(wiring) == {"encoder": [], "decoder": []}
    assert list(decoder.initial_state_from) == [encoder]
    assert encoder.state_is_used
    assert not encoder.output_goes
    assert [s.layers for s in dp.apply(model, "zaremba", example=x()).stacks] == [1, 1]


def test_an_output_that_becomes_a_state_stays_whole():
    def call(self, inputs, training):  # noqa: ARG001
        return self.head(self.decoder(inputs, initial_state=self.encoder(inputs)))

    decoder = layers.GRU(H, return_sequences=True, name="decoder")
    model = Model(
        call, encoder=layers.GRU(H, name="encoder"), decoder=decoder, head=layers.Dense(2)
    )
    dp.apply(model, "zaremba", 0.5, example=x())
    assert (numpy(model.encoder(x(), training=True)) != 0).all()

    def also(self, inputs, training):  # noqa: ARG001
        code = self.encoder(inputs)
        return self.head(self.decoder(inputs, initial_state=code)), code

    model = Model(
        also,
        encoder=layers.GRU(H, name="encoder"),
        decoder=layers.GRU(H, return_sequences=True),
        head=layers.Dense(2),
    )
    with pytest.raises(
        dp.PolicyError, match="'encoder' is used as an initial state and in another"
    ):
        dp.apply(model, "zaremba", 0.5, example=x())


def test_calls_step_by_step_are_one_sequence():
    def call(self, inputs, training):
        state, outputs = None, []
        for t in range(T):
            y, *state = self.low(inputs[:, t : t + 1], initial_state=state)
            outputs.append(self.drop(y, training=training))
        return self.head(self.high(ops.concatenate(outputs, axis=1)))

    model = Model(
        call,
        low=lstm("low", return_state=True),
        drop=layers.Dropout(0.3),
        high=lstm("high"),
        head=layers.Dense(2),
    )
    wiring = dp.wiring(model, example=x())
    low, high = wiring.uses
    assert (low.calls, low.steps, high.calls, high.steps) == (T, T, 1, T)
    assert feeding(wiring) == {"low": [], "high": ["low"]}
    (drop,) = wiring.dropouts
    assert [i.name for i in (*drop.outputs_of, *drop.inputs_of)] == ["low", "high"]


def test_an_output_that_comes_back_later_is_told():
    def call(self, inputs, training):  # noqa: ARG001
        state, y = None, ops.zeros((B, 1, H))
        for t in range(T):
            now = ops.concatenate([inputs[:, t : t + 1], y], axis=-1)
            y, *state = self.low(now, initial_state=state)
        return self.head(y)

    model = Model(call, low=lstm("low", return_state=True), head=layers.Dense(2))
    assert "comes back into low at a later step" in str(dp.wiring(model, example=x()))


class Inputs(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = lstm("a"), lstm("b"), layers.Dense(2)

    def call(self, first, second=None, training=False):  # noqa: ARG002
        second = first if second is None else second
        return self.head(self.b(ops.concatenate([self.a(first), second], axis=-1)))


EXAMPLES = {
    "array": lambda _: x(),
    "tensor": lambda _: ops.convert_to_tensor(x()),
    "several": lambda _: (x(), x()),
    "one in a tuple": lambda _: (x(),),
    "keywords": lambda _: {"second": x(), "first": x()},
    "iterator": lambda _: iter([x()]),
    "function": lambda model: lambda: model(x(), second=x()),
}


@pytest.mark.parametrize("way", EXAMPLES)
def test_an_example_is_what_the_model_takes(way):
    model = Inputs()
    assert feeding(dp.wiring(model, example=EXAMPLES[way](model))) == {"a": [], "b": ["a"]}


@pytest.mark.parametrize("example", [{"one": x(), "two": x()}, [x(), x()]])
def test_a_structure_is_one_input(example):
    def call(self, inputs, training):  # noqa: ARG001
        one, two = inputs.values() if isinstance(inputs, dict) else inputs
        return self.head(self.b(self.a(one)) + self.a(two))

    model = Model(call, a=lstm("a"), b=lstm("b"), head=layers.Dense(2))
    assert feeding(dp.wiring(model, example=example))["b"] == ["a"]


def test_a_model_that_does_not_run_is_refused_with_the_ways_to_say_it():
    model = Inputs()
    with pytest.raises(
        dp.PolicyError, match=r"(?s)Inputs does not run on the example.*example=\(x, y"
    ):
        dp.apply(model, "zaremba", example=np.ones((2, 3, 4, 5), "float32"))
    with pytest.raises(dp.PolicyError, match="nothing left"):
        dp.apply(model, "zaremba", example=iter([]))
    assert type(model.a) is layers.LSTM


class Counting(keras.Model):
    """Everything that a call may change."""

    def __init__(self, stateful=True):
        super().__init__()
        self.low = layers.LSTM(H, return_sequences=True, stateful=stateful, dropout=0.2)
        self.drop, self.norm = layers.Dropout(0.3), layers.BatchNormalization()
        self.high, self.head = layers.LSTM(H), layers.Dense(2, activity_regularizer="l2")
        self.times, self.record, self.noise = 0, [], keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        self.times += 1
        self.last = inputs
        self.record.append(1)
        random.random()
        np.random.random()
        y = self.drop(self.norm(self.low(inputs), training=training), training=training)
        if training:
            y = keras.random.dropout(y, 0.5, seed=self.noise)
        return self.head(self.high(y))


def everything(model):
    return {
        "variables": [numpy(v).tolist() for v in model.variables],
        "states": [numpy(state).tolist() for state in model.low.states],
        "attributes": [sorted(vars(layer)) for layer in model._flatten_layers()],
        "losses": len(model.losses),
        "own": (model.times, list(model.record), hasattr(model, "last")),
        "global": (random.getstate(), str(np.random.get_state())),
        "class": keras.layers.Layer.__call__,
        "function": keras.random.dropout,
    }


def test_a_run_leaves_no_trace():
    model = Counting()
    model(x())
    del model.last
    before = everything(model)
    wiring = dp.wiring(model, example=x())
    assert everything(model) == before
    assert len(wiring.uses) == 2
    with pytest.raises(dp.PolicyError, match="does not run"):
        dp.wiring(model, example=lambda: model(x()) + model.nothing)
    assert everything(model) == before


def test_a_model_that_is_not_built_is_built_and_nothing_else():
    keras.utils.set_random_seed(1)
    first = Counting()
    first(x())
    keras.utils.set_random_seed(1)
    second = Counting()
    dp.wiring(second, example=x())
    assert second.built
    assert all((numpy(state) == 0).all() for state in second.low.states)
    for a, b in zip(first.weights, second.weights, strict=True):
        if a.trainable:
            np.testing.assert_array_equal(numpy(a), numpy(b))


def test_training_is_as_if_nothing_had_been_seen():
    def losses(look):
        keras.utils.set_random_seed(1)
        model = Counting(stateful=False)  # Keras's own stateful layer does not train on torch
        model(x())
        model.compile("sgd", "mse")
        model.fit(x(), np.zeros((B, 2)), verbose=0, batch_size=B)
        if look:
            dp.wiring(model, example=x())
        fit = model.fit(x(), np.zeros((B, 2)), verbose=0, batch_size=B, epochs=2)
        return fit.history["loss"]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-6)


def test_a_layer_with_a_call_of_its_own_in_a_functional_model_is_looked_into():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.rnn, self.drop = lstm("inner", D), layers.Dropout(0.4, name="drop")

        def call(self, inputs, training=False):
            return inputs + self.rnn(self.drop(inputs, training=training))

    start = keras.Input((T, D))
    model = keras.Model(start, layers.Dense(2)(lstm("top")(Block()(lstm("low", D)(start)))))
    assert feeding(dp.wiring(model, example=x())) == {
        "low": [],
        "inner": ["low"],
        "top": ["low", "inner"],
    }
    with pytest.raises(dp.PolicyError, match="'low' into 'inner', 'inner' into 'top'"):
        dp.apply(model, "zaremba")
    text = str(dp.apply(model, "zaremba", example=x()))
    assert "drop (keras.layers.Dropout, rate=0.4), which masked what goes from 'low' into" in text


def test_models_that_can_be_read_do_not_run():
    start = keras.Input((T, D))
    model = keras.Model(start, lstm("b")(layers.Activation("tanh")(lstm("a")(start))))
    wiring = dp.wiring(model, example="nothing that the model could take")
    assert not wiring.observed
    assert feeding(wiring) == {"a": [], "b": ["a"]}


def test_code_that_depends_on_values_is_told():
    def call(self, inputs, training):  # noqa: ARG001
        y = self.a(inputs)
        if float(ops.max(ops.abs(y))) > 1:  # which no LSTM gives
            raise ValueError("cannot be")
        return self.head(self.b(y))

    model = Model(call, a=lstm("a"), b=lstm("b"), head=layers.Dense(2))
    assert "depends on values, and was seen only in part" in str(dp.wiring(model, example=x()))


def test_what_is_random_in_every_call_is_told():
    generator = np.random.RandomState(1)  # which no run can know of

    def call(self, inputs, training):  # noqa: ARG001
        noise = generator.standard_normal((B, T, H)).astype("float32")
        return self.head(self.b(self.a(inputs) + noise))

    model = Model(call, a=lstm("a"), b=lstm("b"), head=layers.Dense(2))
    assert "what comes into b" in str(dp.wiring(model, example=x()))


def test_weights_that_code_uses_itself_are_told():
    class Scores(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = lstm("a"), lstm("b")
            self.weight = self.add_weight(shape=(H, H), name="weight")

        def call(self, inputs):
            return self.b(ops.matmul(self.a(inputs), self.weight))

    wiring = dp.wiring(Scores(), example=x())
    assert feeding(wiring) == {"a": [], "b": ["a"]}
    assert "has weights of its own" in str(wiring)


def test_code_that_calls_layers_otherwise_in_training_is_told():
    def call(self, inputs, training):
        y = self.a(inputs)
        return self.head(self.b(y) if training else y)

    model = Model(call, a=lstm("a"), b=lstm("b"), head=layers.Dense(2))
    assert "in training, the code calls its layers in another way" in str(
        dp.wiring(model, example=x())
    )


def test_wiring_changes_nothing_and_can_be_drawn():
    model = two(JOINED["concatenation"])
    wiring = dp.wiring(model, example=x())
    assert type(model.a) is layers.LSTM
    assert "b (keras.layers.LSTM): one call over 5 steps\n    input from a" in str(wiring)
    assert wiring.svg().startswith("<svg")
    with pytest.raises(dp.PolicyError, match="no recurrent layer"):
        dp.wiring(keras.Sequential([keras.Input((T, D)), layers.Dense(2)]))
