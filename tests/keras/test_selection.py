"""`apply` on some layers, several policies on one model, policies by name on any kind of layer; and
`remove` on loaded models."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, Embedding, SimpleRNN
from keras import layers, ops

import dropout_policies as dp

T, D, H = 6, 16, 16
X = np.random.default_rng(0).standard_normal((20, T, D)).astype("float32")


def two():
    return keras.Sequential(
        [
            keras.Input((T, D)),
            layers.LSTM(H, return_sequences=True, name="encoder_low"),
            layers.LSTM(H, return_sequences=True, name="encoder_high"),
            layers.GRU(H, return_sequences=True, name="decoder"),
        ]
    )


def kinds(model):
    return [type(layer) for layer in model.layers]


def dropped(model, name):
    part = keras.Model(model.inputs, model.get_layer(name).output)
    return (ops.convert_to_numpy(part(X, training=True)) == 0).mean()


def predicted(model):
    return ops.convert_to_numpy(model(X))


@pytest.mark.parametrize(
    "chosen",
    [
        {"only": "encoder_*"},
        {"only": ["encoder_low", "encoder_high"]},
        {"skip": "decoder"},
        {"skip": lambda _, layer: isinstance(layer, layers.GRU)},
    ],
)
def test_some_layers_get_the_policy_and_the_others_stay_stock(chosen):
    model = two()
    before = predicted(model)
    applied = dp.apply(model, "zaremba", 0.5, **chosen)
    assert kinds(model) == [LSTM, LSTM, layers.GRU]
    assert 0.4 < dropped(model, "encoder_high") < 0.6
    assert dropped(model, "decoder") == 0
    assert "skipped decoder (keras.layers.GRU)" in str(applied)
    applied.remove()
    assert kinds(model) == [layers.LSTM, layers.LSTM, layers.GRU]
    np.testing.assert_array_equal(predicted(model), before)


def test_a_wrong_pattern_changes_nothing():
    model = two()
    with pytest.raises(dp.PolicyError, match=r"only names 'encodr_\*'.*'encoder_"):
        dp.apply(model, "zaremba", only="encodr_*")
    with pytest.raises(dp.PolicyError, match="leave no layer"):
        dp.apply(model, "zaremba", skip=["encoder_*", "decoder"])
    assert kinds(model) == [layers.LSTM, layers.LSTM, layers.GRU]


def test_a_connection_between_two_policies_is_masked_by_the_layer_that_takes_it_in():
    model = two()
    applied = dp.apply(model, {"encoder_*": dp.zaremba(0.5), "decoder": dp.locked(0.25)})
    (stack,) = applied.stacks
    assert (stack.masked, stack.connections) == (4, 4)
    assert [member.sites() for member in stack.members] == [
        "input 0.5 per step",
        "between 0.5 per step",
        "between, output 0.25 per sequence",
    ]
    assert dropped(model, "encoder_high") == 0, "its output is masked where the decoder takes it in"
    assert 0.1 < dropped(model, "decoder") < 0.4


@pytest.mark.parametrize("kind", [GRU, SimpleRNN])
def test_zoneout_by_name_goes_on_layers_without_a_cell_state(kind):
    stock = getattr(layers, kind.__name__)
    (touched,) = dp.apply(keras.Sequential([keras.Input((T, D)), stock(H)]), "zoneout").touched
    assert touched.sites() == "hidden_update 0.025 per step"
    made = kind(H, policy="zoneout", rate={"hidden_update": 0.5})
    assert set(made.placement.policy) == {dp.Site.HIDDEN_UPDATE}
    once, twice = (ops.convert_to_numpy(made(X, training=True)) for _ in range(2))
    assert not np.array_equal(once, twice)
    with pytest.raises(dp.PolicyError, match="no site 'cell_update'"):
        dp.apply(keras.Sequential([keras.Input((T, D)), stock(H)]), dp.zoneout())


def test_zoneout_by_name_on_a_mixed_model():
    low, high, decoder = dp.apply(two(), "zoneout", {"cell_update": 0.2}).touched
    assert low.sites() == high.sites() == "hidden_update 0.025 per step; cell_update 0.2 per step"
    assert decoder.sites() == "hidden_update 0.025 per step"
    gru = keras.Sequential([keras.Input((T, D)), layers.GRU(H)])
    with pytest.raises(dp.PolicyError, match="The rate for 'cell_update' of policy 'zoneout'"):
        dp.apply(gru, "zoneout", {"cell_update": 0.2})


def test_a_policy_for_word_types_says_that_there_are_none():
    model = two()
    with pytest.raises(dp.PolicyError, match="The rate for 'embedding' of policy 'variational'"):
        dp.apply(model, "variational", {"embedding": 0.9})
    assert "no embedding was found" in str(dp.apply(model, "variational"))


def test_a_model_is_freed_without_the_report():
    model = keras.Sequential([keras.Input((T, D)), layers.LSTM(H, dropout=0.2, name="rnn")])
    applied = dp.apply(model, "zaremba")
    with pytest.raises(dp.PolicyError, match=r"is under policy 'zaremba' already.*remove"):
        dp.apply(model, "locked")
    dp.remove(model)
    rnn = model.get_layer("rnn")
    assert (type(rnn), rnn.dropout) == (layers.LSTM, 0.2)
    assert type(rnn.cell) is layers.LSTMCell
    applied.remove()
    assert rnn.dropout == 0.2
    dp.apply(model, "locked").remove()
    with pytest.raises(dp.PolicyError, match="no layer under a policy"):
        dp.remove(model)


def test_a_loaded_model_and_one_made_with_a_policy_become_stock_models(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((T,), dtype="int32"),
            Embedding(9, D, policy="awd", seed=1),
            LSTM(H, return_sequences=True, policy="awd", seed=1),
            RNN([layers.GRUCell(H), layers.GRUCell(H)], policy="naive", stack=(0, 2)),
        ]
    )
    tokens = np.random.default_rng(0).integers(0, 9, (5, T))
    before = ops.convert_to_numpy(model(tokens))
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        dp.remove(each)
        assert kinds(each) == [layers.Embedding, layers.LSTM, layers.RNN]
        assert type(each.layers[1].cell) is layers.LSTMCell
        np.testing.assert_allclose(ops.convert_to_numpy(each(tokens)), before, atol=1e-6)
        once, twice = (ops.convert_to_numpy(each(tokens, training=True)) for _ in range(2))
        np.testing.assert_array_equal(once, twice)
        with dp.apply(each, "locked", 0.5):
            once, twice = (ops.convert_to_numpy(each(tokens, training=True)) for _ in range(2))
            assert not np.array_equal(once, twice)
