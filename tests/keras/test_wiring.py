"""Which layers of a model form a stack: every connection is masked once, or `apply` asks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

T, D = 5, 6


def lstm(name, **arguments):
    return layers.LSTM(D, return_sequences=True, name=name, **arguments)


def functional(join):
    """A model of what `join` makes of its input and of layer a's output."""
    start = keras.Input((T, D))
    out = join(start, lstm("a")(start))
    return keras.Model(start, out)


def ends(applied):
    """Each layer that comes in by a stack's first door, and that leaves by its last."""
    touched = [(t.name, t.placement) for t in applied.touched]
    return [[n for n, p in touched if p.first], [n for n, p in touched if p.last]]


@pytest.mark.parametrize(
    "join",
    [
        lambda _, a: lstm("b")(a),
        lambda _, a: lstm("b")(sequences=a),
        lambda start, a: lstm("b")(a + start),
        lambda start, a: lstm("b")(start + a),
        lambda start, a: lstm("b")(layers.Add()([start, a])),
        lambda _, a: lstm("b")(layers.Activation("tanh")(layers.Dropout(0.0)(a))),
        lambda _, a: keras.Sequential([keras.Input((T, D)), lstm("b")], name="inner")(a),
    ],
)
def test_what_comes_in_from_a_layer_is_masked_at_the_next_ones_door(join):
    applied = dp.apply(functional(join), "zaremba")
    assert [(s.layers, s.masked) for s in applied.stacks] == [(2, 3)]
    assert ends(applied) == [["a"], ["b"]]


def test_a_state_that_is_handed_on_is_no_vertical_connection():
    start = keras.Input((T, D))
    _, *state = layers.LSTM(D, return_state=True, name="a")(start)
    applied = dp.apply(keras.Model(start, lstm("b")(start, initial_state=state)), "zaremba")
    assert [(s.layers, s.masked) for s in applied.stacks] == [(1, 2), (1, 2)]


def encoder_decoder(states_of, also=lambda _: None):
    """A functional model whose decoder begins with what `states_of` gives."""
    start, target = keras.Input((T, D)), keras.Input((T, D))
    states = states_of(start)
    decoded = layers.GRU(D, return_sequences=True, name="decoder")(target, initial_state=states)
    outputs = [layers.Dense(2)(decoded), also(states)]
    return keras.Model([start, target], [out for out in outputs if out is not None])


STATES = {
    "the output": lambda x: layers.GRU(D, name="encoder")(x),
    "the output, repeated": lambda x: layers.Activation("tanh")(layers.GRU(D, name="encoder")(x)),
    "a state": lambda x: layers.GRU(D, return_state=True, name="encoder")(x)[1],
    "both directions": lambda x: layers.Add()(
        layers.Bidirectional(layers.GRU(D, return_state=True), name="encoder")(x)[1:]
    ),
}


@pytest.mark.parametrize("way", STATES)
def test_a_state_on_its_way_to_another_layer_stays_whole(way):
    model = encoder_decoder(STATES[way])
    applied = dp.apply(model, "zaremba", 0.5)
    assert [s.layers for s in applied.stacks] == [1, 1]
    encoder, decoder = (model.get_layer(name) for name in ("encoder", "decoder"))
    placement = getattr(encoder, "forward_layer", encoder).placement
    assert placement.last == (way in ("a state", "both directions")), "an output that is not used"
    assert decoder.placement.first
    assert decoder.placement.last
    x = np.random.default_rng(0).standard_normal((3, T, D)).astype("float32")
    part = keras.Model(model.inputs[0], decoder._inbound_nodes[0].arguments.kwargs["initial_state"])
    assert (ops.convert_to_numpy(part(x, training=True)) != 0).all()


def test_an_output_that_is_a_state_and_more_is_refused_with_the_ways_out():
    model = encoder_decoder(STATES["the output"], layers.Dense(3))
    with pytest.raises(
        dp.PolicyError, match=r"'encoder' is used as an initial state and in another"
    ):
        dp.apply(model, "zaremba", 0.5)
    dp.apply(model, "zaremba", {"output": 0.0})


def test_wiring_shows_what_a_graph_holds():
    text = str(dp.wiring(encoder_decoder(STATES["a state"])))
    assert "2 recurrent layers, read from the model's structure" in text
    assert "initial state from encoder" in text
    model = keras.Sequential(
        [keras.Input((T, D)), lstm("a"), layers.Dropout(0.5, name="drop"), lstm("b")]
    )
    text = str(dp.wiring(model))
    assert (
        "dropout drop (keras.layers.Dropout, rate=0.5): from the output of a to the input" in text
    )
    assert "input from a" in text


def test_a_layer_without_a_config_hides_no_graph():
    class Own(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    start = keras.Input((T, D))
    model = keras.Model(start, lstm("b")(Own(ops.tanh)(lstm("a")(start))))
    assert ends(dp.apply(model, "zaremba")) == [["a"], ["b"]]


class Around(layers.Layer):
    """A layer of its own around a recurrent one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs):
        return inputs + self.inner(inputs)


def test_a_layer_of_ones_own_in_a_graph_is_asked_about():
    start = keras.Input((T, D))
    model = keras.Model(start, lstm("c")(Around(lstm("b"))(lstm("a")(start))))
    with pytest.raises(dp.PolicyError, match=r"These pairs are open: 'a' into 'b', 'b' into 'c'"):
        dp.apply(model, "zaremba")
    assert ends(dp.apply(model, "zaremba", stacks=[["a", "b", "c"]])) == [["a"], ["c"]]


def test_layers_that_may_be_joined_with_something_else_are_told():
    wide = layers.LSTM(4, name="wide")
    wide.build((None, T, 2 * D))
    text = str(dp.apply(Parts(narrow=lstm("narrow"), wide=wide), "zaremba"))
    assert "taken for separate, since their widths differ: 'narrow' into 'wide'" in text


def test_a_model_in_front_of_a_layer_is_looked_into():
    inner = keras.Sequential([keras.Input((T, D)), lstm("a")], name="inner")
    applied = dp.apply(keras.Sequential([keras.Input((T, D)), inner, lstm("b")]), "zaremba")
    assert ends(applied) == [["a"], ["b"]]
    drop = keras.Sequential([keras.Input((T, D)), inner, layers.Dropout(0.5, name="drop")])
    applied.remove()
    with pytest.raises(dp.PolicyError, match=r"drop .*masks the output of 'a'"):
        dp.apply(drop, "zaremba", existing="refuse")


def test_a_fork_masks_each_way_once_and_always_alike():
    def placements():
        start = keras.Input((T, D))
        a = lstm("a")(start)
        applied = dp.apply(keras.Model(start, [lstm("b")(a), lstm("c")(a)]), "zaremba", seed=1)
        assert ends(applied) == [["a"], ["b", "c"]]
        drawn = applied.diagrams()  # a chain would show what is not there
        assert [d.title for d in drawn] == ["zaremba on a", "zaremba on b", "zaremba on c"]
        assert [[r.masked for r in d.rows] for d in drawn] == [
            [True, False, False],
            [True, False, True],
            [True, False, True],
        ]
        assert drawn[0].rows[-1].notes == "masked where it is taken in"
        return [(t.name, t.placement.layer) for t in applied.touched]

    assert placements() == placements() == [("a", 0), ("b", 1), ("c", 2)]


def test_layers_of_one_name_in_two_models_are_two_layers():
    def encoder(name):
        start = keras.Input((T, D))
        return keras.Model(start, lstm("high")(lstm("low")(start)), name=name)

    start = keras.Input((T, D))
    parts = [encoder("e1"), encoder("e2")]
    model = keras.Model(start, layers.Concatenate()([part(start) for part in parts]))
    applied = dp.apply(model, "zaremba")
    names = [[m.name for m in s.members] for s in applied.stacks]
    assert names == [["e1/low", "e1/high"], ["e2/low", "e2/high"]]
    assert [t.placement.layer for t in applied.touched] == [0, 1, 2, 3]
    applied.remove()
    for part in parts:
        assert [type(part.get_layer(n)) for n in ("low", "high")] == [layers.LSTM] * 2


def test_a_layer_that_is_called_twice_is_masked_in_one_way_or_refused():
    start, other = keras.Input((T, D)), keras.Input((T, D))
    a, b = lstm("a"), lstm("b")
    for model in (
        keras.Model(start, a(a(start))),
        keras.Model([start, other], [b(lstm("c")(start)), b(other)]),
    ):
        with pytest.raises(dp.PolicyError, match="is in two places"):
            dp.apply(model, "zaremba")
    shared = keras.Model([start, other], [a(start), a(other)])
    assert [s.masked for s in dp.apply(shared, "zaremba").stacks] == [2]


class Parts(keras.Model):
    """Layers of which only `call` would know how they are joined, in the order given."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        (lambda: Parts(high=layers.LSTM(4, name="high"), low=lstm("low")), "low", "high"),
        (
            lambda: Parts(a=lstm("a"), other=layers.LSTM(9, name="o"), b=layers.LSTM(4, name="b")),
            "a",
            "o",
        ),
        (
            lambda: Parts(enc=keras.Sequential([lstm("a")]), high=layers.LSTM(4, name="b")),
            "a",
            "b",
        ),
    ],
)
def test_layers_that_may_feed_one_another_unseen_must_be_said(model, first, second):
    asked = f"'{first}' may feed '{second}'|'{first}' into '{second}'"
    with pytest.raises(dp.PolicyError, match=asked):
        dp.apply(model(), "zaremba")


def test_dropout_that_only_call_knows_is_reported():
    model = Parts(low=lstm("low"), drop=layers.Dropout(0.5, name="drop"))
    text = str(dp.apply(model, "zaremba"))
    assert "skipped drop (keras.layers.Dropout): rate=0.5; still on, and it may mask" in text
    assert "example=" in text


def test_dropout_on_a_connection_that_the_policy_leaves_whole_is_allowed():
    parts = [keras.Input((T, D)), lstm("a"), layers.Dropout(0.5)]
    dp.apply(keras.Sequential(parts), dp.Policy(input=dp.drop(0.5)))


def test_an_applied_bidirectional_trains_as_the_drop_in_one():
    """Both halves are masked, and keyed."""
    from dropout_policies_keras import LSTM

    x = np.random.default_rng(0).standard_normal((3, T, D)).astype("float32")
    stock = layers.Bidirectional(lstm("inner"))
    ours = layers.Bidirectional(LSTM(D, return_sequences=True, policy="naive", seed=5))
    stock.build(x.shape)
    ours.build(x.shape)
    ours.set_weights(stock.get_weights())
    dp.apply(keras.Sequential([keras.Input((T, D)), stock]), "naive", seed=5)
    got, expected = (ops.convert_to_numpy(layer(x, training=True)) for layer in (stock, ours))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert [half.calls for half in (stock.forward_layer, stock.backward_layer)] == [1, 1]


def test_a_policy_can_come_and_go_between_the_epochs_of_a_fit():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((T, D)), lstm("a")])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    applied = []

    class Switch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
            if epoch == 1:
                applied.append(dp.apply(model, "zaremba", seed=1))
            if epoch == 2:
                applied[0].remove()

    x = np.random.default_rng(0).standard_normal((4, T, D)).astype("float32")
    losses = model.fit(x, x, epochs=3, verbose=0, callbacks=[Switch()]).history["loss"]
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[1] != pytest.approx(losses[0], rel=1e-4)
