"""apply and remove on existing models: what is found, what is refused, and the way back."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM
from dropout_policies_keras.swapped_layer import CALL_SIGNATURE, POLICY_ATTRIBUTES
from keras import layers, ops

import dropout_policies as dp
from tests.support.keras_subject import OwnLSTMCell

B, T, D = 4, 5, 6


def x():
    return np.random.default_rng(0).standard_normal((B, T, D)).astype("float32")


def y():
    return np.random.default_rng(1).standard_normal((B, 2)).astype("float32")


def sequential():
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.LSTM(D, return_sequences=True, dropout=0.3, name="low"),
            layers.Activation("tanh"),
            layers.LSTM(D, recurrent_dropout=0.2, name="high"),
            layers.Dense(2),
        ]
    )


def functional():
    start = keras.Input((T, D))
    low = layers.LSTM(D, return_sequences=True, name="low")(start)
    high, h, _ = layers.LSTM(D, return_state=True, name="high")(layers.Activation("tanh")(low))
    side = layers.GlobalAveragePooling1D()(low)
    return keras.Model(start, layers.Dense(2)(layers.Concatenate()([high, h, side])))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.low = layers.LSTM(D, return_sequences=True, name="low")
        self.high = layers.LSTM(D, name="high")
        self.head = layers.Dense(2)

    def call(self, inputs, training=False):
        return self.head(self.high(self.low(inputs, training=training), training=training))


def subclassed():
    model = Subclassed()
    model(x())
    return model


def bidirectional():
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.Bidirectional(layers.LSTM(D, return_sequences=True), name="low"),
            layers.Bidirectional(layers.LSTM(D), name="high"),
            layers.Dense(2),
        ]
    )


MODELS = {
    "sequential": (sequential, None),
    "functional": (functional, None),
    "subclassed": (subclassed, [["low", "high"]]),
    "bidirectional": (bidirectional, None),
}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def state_of(model):
    """What must come back: classes, rates, seeds and the states of generators."""
    found = []
    for layer in model._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        found.append(
            (
                type(layer),
                [getattr(layer, name, None) for name in ("dropout", "recurrent_dropout", "seed")],
                None if generator is None else numpy(generator.state).tolist(),
                sorted(set(vars(layer)) & {*POLICY_ATTRIBUTES}),
                [str(vars(layer).get(name)) for name in CALL_SIGNATURE],
            )
        )
    return found


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", [None, 2**32 - 1])
def test_apply_masks_in_training_and_remove_brings_back_everything(kind, seed):
    make, stacks = MODELS[kind]
    model = make()
    expected = model.predict(x(), verbose=0)
    before, paths = state_of(model), [v.path for v in model.variables]

    applied = dp.apply(model, "zaremba", rate=0.5, seed=seed, stacks=stacks)
    assert [(s.layers, s.masked) for s in applied.stacks] == [(2, 3)]
    np.testing.assert_array_equal(model.predict(x(), verbose=0), expected)
    assert [v.path for v in model.variables] == paths
    first, second = (numpy(model(x(), training=True)) for _ in range(2))
    assert not np.array_equal(first, second)

    applied.remove()
    assert state_of(model) == before
    np.testing.assert_array_equal(model.predict(x(), verbose=0), expected)


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
def test_a_compiled_and_trained_model_is_retraced(kind):
    """Policies take effect on a step that was traced before them, and end with remove()."""
    make, stacks = MODELS[kind]
    model = make()
    for name in ("low", "high"):
        cell = model.get_layer(name).cell
        cell.dropout = cell.recurrent_dropout = 0.0
    model.compile(optimizer=keras.optimizers.Adam(0.0), loss="mse")

    def loss(of_batch):
        model.reset_metrics()  # before Keras 3.15 the mean of all batches is returned
        return float(of_batch(x(), y()))

    def losses():
        return [loss(model.train_on_batch) for _ in range(3)]

    model.fit(x(), y(), verbose=0)
    plain = losses()
    assert len(set(plain)) == 1
    slots = [(v.path, numpy(v)) for v in model.optimizer.variables]
    with dp.apply(model, "zaremba", stacks=stacks):
        masked = losses()
        assert len({*masked, plain[0]}) == 4
        assert loss(model.test_on_batch) == pytest.approx(plain[0], rel=1e-6)
        model.fit(x(), y(), verbose=0)
    assert losses() == plain
    for (path, value), variable in zip(slots, model.optimizer.variables, strict=True):
        assert variable.path == path
        assert numpy(variable).shape == value.shape


def test_what_apply_does_equals_the_drop_in_layers():
    model = functional()
    dp.apply(model, "naive", seed=3)
    low, high = model.get_layer("low"), model.get_layer("high")
    ours = LSTM(D, return_sequences=True, policy="naive", seed=3, stack=(0, 2))
    top = LSTM(D, policy="naive", seed=3, stack=(1, 2))
    top(ours(x()))
    ours.set_weights(low.get_weights())
    top.set_weights(high.get_weights())
    expected = top(ops.tanh(ours(x(), training=True)), training=True)
    got = high(ops.tanh(low(x(), training=True)), training=True)[0]
    np.testing.assert_array_equal(numpy(got), numpy(expected))


def test_native_dropout_is_taken_over_reported_and_comes_back():
    model = sequential()
    applied = dp.apply(model, "zaremba")
    low, high = model.get_layer("low"), model.get_layer("high")
    assert (low.dropout, high.recurrent_dropout) == (0.0, 0.0)
    assert "taken over, back on remove(): dropout=0.3" in str(applied)
    assert "taken over, back on remove(): recurrent_dropout=0.2" in str(applied)
    applied.remove()
    assert (low.dropout, high.recurrent_dropout) == (0.3, 0.2)


def test_stacks_are_told_apart():
    start = keras.Input((T, D))
    a = layers.LSTM(D, return_sequences=True, name="a")(start)
    b = layers.LSTM(D, return_sequences=True, name="b")(layers.Dense(D)(a))
    c = layers.LSTM(D, name="c")(layers.Add()([a, b]))
    applied = dp.apply(keras.Model(start, c), "zaremba")
    assert [[m.name for m in s.members] for s in applied.stacks] == [["a", "b", "c"]]
    assert [m.placement.layer for m in applied.touched] == [0, 1, 2]
    # What leaves a and b comes in by c's door, and b's own door lies behind weights.
    assert [m.placement.first for m in applied.touched] == [True, True, False]
    assert [m.placement.last for m in applied.touched] == [False, False, True]


def test_a_branch_does_not_break_a_stack():
    applied = dp.apply(functional(), "zaremba")
    assert [[m.name for m in s.members] for s in applied.stacks] == [["low", "high"]]


def test_a_model_in_a_model_is_reached():
    start = keras.Input((T, D))
    outer = keras.Model(start, sequential()(start))
    outer.compile(optimizer="sgd", loss="mse")
    outer.train_on_batch(x(), y())
    applied = dp.apply(outer, "zaremba")
    assert [s.masked for s in applied.stacks] == [3]


def test_unseen_wiring_must_be_said():
    for model in (subclassed(), Subclassed()):
        before = state_of(model)
        with pytest.raises(dp.PolicyError, match=r"stacks=\[\['low', 'high'\]\]"):
            dp.apply(model, "zaremba")
        assert state_of(model) == before
    model = Subclassed()
    model.low.return_sequences = False
    assert len(dp.apply(model, "zaremba").stacks) == 2


def test_a_second_policy_is_refused_and_changes_nothing():
    model = sequential()
    dp.apply(model, "zaremba")
    before = state_of(model)
    with pytest.raises(dp.PolicyError, match=r"low .*under policy 'zaremba' already"):
        dp.apply(model, "naive")
    assert state_of(model) == before


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(dp.PolicyError, match="no recurrent layer"):
        dp.apply(keras.Sequential([keras.Input((T, D)), layers.Dense(2)]), "zaremba")


def test_a_model_of_embeddings_alone_is_refused():
    model = keras.Sequential([keras.Input((T,)), layers.Embedding(9, D)])
    with pytest.raises(dp.PolicyError, match="no recurrent layer"):
        dp.apply(model, "variational")


def gru():
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.GRU(D, return_sequences=True, recurrent_dropout=0.1, name="low"),
            layers.Bidirectional(layers.GRU(D, reset_after=False), name="high"),
            layers.Dense(2),
        ]
    )


def simple():
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.SimpleRNN(D, return_sequences=True, dropout=0.1, name="low"),
            layers.SimpleRNN(D, name="high"),
            layers.Dense(2),
        ]
    )


def stacked():
    cells = [layers.LSTMCell(4, dropout=0.1), layers.GRUCell(5), layers.SimpleRNNCell(D)]
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.RNN(layers.StackedRNNCells(cells), return_sequences=True, name="low"),
            layers.RNN(OwnLSTMCell(D), name="high"),
            layers.Dense(2),
        ]
    )


@pytest.mark.parametrize(
    ("make", "policy", "count"),
    [
        (gru, "naive", 2),
        (gru, "variational", 2),
        (gru, "weight_drop", 2),
        (gru, dp.zoneout(0.0, 0.3), 2),
        (simple, "naive", 2),
        (simple, "awd", 2),
        (stacked, "naive", 4),
        (stacked, "variational", 4),
        (stacked, dp.zoneout(0.0, 0.3) | dp.locked(), 4),
    ],
)
@pytest.mark.parametrize("seed", [None, 7])
def test_every_kind_of_layer_is_masked_trained_and_brought_back(make, policy, count, seed):
    model = make()
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    expected = model.predict(x(), verbose=0)
    before, paths = state_of(model), [v.path for v in model.variables]
    weights = [v.path for v in model.weights]
    applied = dp.apply(model, policy, seed=seed)
    assert [s.layers for s in applied.stacks] == [count]
    assert [v.path for v in model.weights] == weights
    if applied.policy.evaluation == "identity":
        np.testing.assert_array_equal(model.predict(x(), verbose=0), expected)
    losses = {float(model.train_on_batch(x(), y())) for _ in range(3)}
    assert len(losses) == 3
    applied.remove()
    assert [v.path for v in model.variables] == paths
    assert state_of(model) == before
    np.testing.assert_array_equal(model.predict(x(), verbose=0), expected)


def test_a_site_that_the_layer_cannot_have_is_refused():
    for make, policy, message in (
        (gru, "rnndrop", r"low \(keras.layers.GRU\) has no site 'cell'"),
        (simple, "semeniuta", r"low \(keras.layers.SimpleRNN\) has no site 'candidate'"),
        (stacked, "semeniuta", r"low \(keras.layers.RNN\): SimpleRNNCell has no site 'candidate'"),
        (stacked, "weight_drop", r"high .*no site 'recurrent_weight'.*It has: input, between"),
        (stacked, dp.variational(gates="untied"), "high .*cannot be masked inside"),
    ):
        model = make()
        before = state_of(model)
        with pytest.raises(dp.PolicyError, match=message):
            dp.apply(model, policy)
        assert state_of(model) == before


@keras.saving.register_keras_serializable(package="tests")
class Special(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):  # noqa: ARG002
        return ops.mean(sequences, axis=1)


def test_what_cannot_be_touched_is_skipped_with_the_reason():
    start = keras.Input((T, D))
    outs = [
        layers.LSTM(D, name="lstm")(start),
        layers.Bidirectional(Special(D), name="both")(start),
        Special(D, name="own")(start),
    ]
    model = keras.Model(start, outs)
    applied = dp.apply(model, "zaremba")
    assert [t.name for t in applied.touched] == ["lstm"]
    assert {s.name for s in applied.skipped} == {"both", "own"}
    assert type(model.get_layer("own")) is Special


def test_a_layer_that_runs_once_a_step_is_skipped():
    model = Subclassed()
    model.each = layers.TimeDistributed(layers.LSTM(D), name="each")
    applied = dp.apply(model, "zaremba", stacks=[["low", "high"]])
    assert [t.name for t in applied.touched] == ["low", "high"]
    assert "skipped each (keras.layers.TimeDistributed): a recurrent layer inside" in str(applied)


def test_the_policy_of_an_applied_model_trains():
    model = sequential()
    model.compile(optimizer="sgd", loss="mse")
    dp.apply(model, "naive", seed=1)
    history = model.fit(x(), y(), epochs=2, batch_size=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert model.get_layer("low").calls == 4
