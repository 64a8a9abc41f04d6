"""The audit of convolutional LSTMs: at one position they are plain ones."""

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

CASES = {
    "zaremba": (dpk.ConvLSTM2D, (3, 3, 8), {"padding": "same", "policy": "zaremba"}),
    "zoneout": (
        dpk.ConvLSTM2D,
        (5, 4, 6),
        {"strides": 2, "policy": dp.zoneout(0.5, 0.2).with_shape("channel")},
    ),
    "awd": (dpk.ConvLSTM1D, (6, 4), {"data_format": "channels_first", "policy": "awd"}),
    "variational": (
        dpk.ConvLSTM3D,
        (2, 3, 2, 6),
        {"padding": "same", "dilation_rate": 2, "policy": dp.variational().with_shape("channel")},
    ),
    "none": (layers.ConvLSTM1D, (4, 5), {"padding": "same"}),
}
POLICIES = [
    pytest.param(name, marks=() if name == "zaremba" else pytest.mark.any_backend) for name in CASES
]


def values_of(layer):
    return [ops.convert_to_numpy(v.value).copy() for v in layer.variables]


@pytest.mark.parametrize("name", POLICIES)
def test_a_convolutional_layer_has_its_policy_and_stays_what_it_is(name):
    keras.utils.set_random_seed(3)
    kind, shape, arguments = CASES[name]
    layer = kind(8, 3 if shape[-1] != 4 else 2, **arguments)
    layer.build((None, 4, *shape))
    before, settings = values_of(layer), layer.get_config()
    audit = dp.audit(layer)
    assert audit.policy == name, str(audit)
    assert audit.undecided == ()
    assert all(map(np.array_equal, values_of(layer), before))
    assert layer.get_config() == settings


@pytest.mark.any_backend
def test_the_dropout_of_kerass_own_is_measured():
    keras.utils.set_random_seed(3)
    layer = layers.ConvLSTM1D(8, 3, padding="same", dropout=0.4, recurrent_dropout=0.3)
    layer.build((None, 4, 4, 6))
    audit = dp.audit(layer)
    assert audit.policy is None
    into, hidden, output = (audit.at(site, layer=0) for site in ("input", "hidden", "output"))
    assert into.interval[0] < 0.4 < into.interval[1]
    assert hidden.interval[0] < 0.3 < hidden.interval[1]
    assert "per sequence, untied gates" in into.text()
    assert "per sequence, untied gates" in hidden.text()
    assert output.verdict == "whole"


def stack():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4, 3, 3, 6)),
            layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True, name="low"),
            layers.ConvLSTM2D(8, 2, padding="same", return_sequences=True, name="high"),
        ]
    )
    dp.apply(model, "zaremba", rate=0.4)
    return model


@pytest.mark.any_backend
@pytest.mark.slow
def test_a_stack_has_its_policy():
    assert dp.audit(stack()).policy == "zaremba"


@pytest.mark.any_backend
def test_each_layer_of_a_model_is_audited_where_it_stands():
    each = dp.audit(stack(), example=np.zeros((2, 4, 3, 3, 6), np.float32)).parts
    masked = {
        name: [audit.at(site, layer=0).verdict for site in ("input", "output")]
        for name, audit in each.items()
    }
    assert masked == {"low": ["masked", "whole"], "high": ["masked", "masked"]}


@pytest.mark.any_backend
def test_convolutions_that_are_no_layers_of_kerass_are_refused():
    layer = layers.Conv1D(3, 2)
    layer.build((None, 5, 4))
    with pytest.raises(dp.PolicyError, match=r"no weights that are matrices.*dp\.record\(model\)"):
        dp.audit(layer)
