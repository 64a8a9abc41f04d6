"""What a user of Keras reads who passes something else than a model, a policy or a rate."""

import functools

import keras
import pytest
from dropout_policies_keras import (
    GRU,
    LSTM,
    RNN,
    ConvLSTM1D,
    Embedding,
    LSTMCell,
    SimpleRNN,
)

import dropout_policies as dp
from tests.core.test_messages import POLICIES, RATES

pytestmark = pytest.mark.any_backend


def make_model():
    return keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, return_sequences=True)])


MODELS = [
    (lambda: keras.layers.LSTM, r"the class LSTM; create the model first: model = LSTM\(\.\.\.\)"),
    (lambda: keras.Sequential, r"the class Sequential; create the model first"),
    (lambda: [make_model(), make_model()], r"a list of 2 items \(Sequential\); pass one model at"),
    (lambda: make_model().layers, r"a list of 1 item \(LSTM\); .* parts of one model, pass that"),
    (lambda: make_model().get_weights(), r"if these are weights, load them into a model"),
    (lambda: make_model().get_config(), r"a dict of \d items|with the keys"),
    (lambda: make_model, r"the function make_model; call it .*: model = make_model\(\)"),
    (lambda: functools.partial(keras.layers.LSTM, 4), r"a functools\.partial of LSTM; call it"),
    (lambda: make_model().fit, r"pass the model itself, and not its method fit"),
    (lambda: "model.keras", r"model='model\.keras'; load the model first"),
]


@pytest.mark.parametrize(("make", "words"), MODELS)
def test_a_wrong_model_is_described(make, words):
    for function in (dp.apply, dp.remove, dp.wiring, dp.audit):
        with pytest.raises(dp.PolicyError, match=words):
            function(make())


LAYERS = {
    "LSTM": lambda **arguments: LSTM(4, **arguments),
    "GRU": lambda **arguments: GRU(4, **arguments),
    "SimpleRNN": lambda **arguments: SimpleRNN(4, **arguments),
    "RNN": lambda **arguments: RNN(keras.layers.GRUCell(4), **arguments),
    "ConvLSTM1D": lambda **arguments: ConvLSTM1D(4, 3, **arguments),
    "LSTMCell": lambda **arguments: LSTMCell(4, **arguments),
    "Embedding": lambda **arguments: Embedding(3, 4, **arguments),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_describes_a_wrong_argument_as_apply_does(layer):
    for policy, words in POLICIES:
        with pytest.raises(dp.PolicyError, match=words):
            LAYERS[layer](policy=policy)
    for rate, words in RATES:
        with pytest.raises(dp.PolicyError, match=words):
            LAYERS[layer](policy="zaremba", rate=rate)
    with pytest.raises(dp.PolicyError, match=r"goes with a policy.* policy='zaremba', rate=0\.3"):
        LAYERS[layer](rate=0.1 + 0.2)
    for seed in (-3, 3.5, "3"):
        with pytest.raises(dp.PolicyError, match=r"Received: seed=.*; write: seed=3, or leave"):
            LAYERS[layer](policy="awd", seed=seed)


def test_numbers_of_a_report_are_those_that_were_typed():
    layer = keras.layers.LSTM(4, return_sequences=True, dropout=0.1 + 0.2)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    assert "dropout=0.3" in str(dp.apply(model, "zaremba")).split()
    with pytest.raises(dp.PolicyError, match=r"dropout=0\.3, policy='zaremba'"):
        layer.cell.dropout = 0.1 + 0.2
