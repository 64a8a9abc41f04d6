"""The drop-in layers list Keras's arguments, with Keras's defaults, and hand each one on."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from keras.src.testing import test_case

import dropout_policies as dp

any_backend = pytest.mark.any_backend
CELLS = ["LSTMCell", "GRUCell", "SimpleRNNCell"]
CONVOLUTIONAL = ["ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"]
EMBEDDINGS = ["Embedding", "ReversibleEmbedding"]
NAMES = ["LSTM", "GRU", "SimpleRNN", "RNN", *EMBEDDINGS, *CELLS, *CONVOLUTIONAL]
OURS = {
    "LSTM": ["policy", "rate", "stack"],
    "GRU": ["policy", "rate", "stack"],
    "SimpleRNN": ["policy", "rate", "stack"],
    "RNN": ["policy", "rate", "seed", "stack"],
    "Embedding": ["policy", "rate", "seed"],
    "ReversibleEmbedding": ["policy", "rate", "seed"],
} | {name: ["policy", "rate", "stack"] for name in (*CELLS, *CONVOLUTIONAL)}
"""Each layer's own arguments; those without `seed` have Keras's."""
NOT_IN_KERAS_3_12 = {"quantization_config"}
WIDTH = 3


def parameters(kind):
    found = inspect.signature(kind).parameters.values()
    return {p.name: (p.kind, p.default) for p in found}


@any_backend
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_has_kerass_arguments_in_kerass_order_and_its_own(name):
    ours, stock = parameters(getattr(dpk, name)), parameters(getattr(keras.layers, name))
    assert {x: ours[x] for x in stock} == stock
    missing = [x for x in ours if x not in stock and x in NOT_IN_KERAS_3_12]
    *named, rest = stock
    assert list(ours) == [*named, *missing, *OURS[name], rest]
    assert {ours[x] for x in OURS[name]} == {(inspect.Parameter.KEYWORD_ONLY, None)}


@any_backend
@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_explains_each_argument(name):
    kind = getattr(dpk, name)
    text = inspect.getdoc(kind)
    arguments = re.search(r"^Args:\n(.*?)\n\n", text, re.S | re.M).group(1)
    explained = re.findall(r"^    \**(\w+): ", arguments, re.M)
    assert explained == list(parameters(kind))
    assert re.search(r"^Raises:\n    PolicyError: ", text, re.M)


UNUSUAL = {
    "units": 4,
    "filters": 4,
    "kernel_size": 3,
    "strides": 2,
    "padding": "same",
    "data_format": "channels_first",
    "dilation_rate": 1,
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "recurrent_initializer": "glorot_normal",
    "bias_initializer": "ones",
    "unit_forget_bias": False,
    "kernel_regularizer": keras.regularizers.L1(0.1),
    "recurrent_regularizer": keras.regularizers.L1(0.2),
    "bias_regularizer": keras.regularizers.L1(0.3),
    "activity_regularizer": keras.regularizers.L1(0.4),
    "kernel_constraint": keras.constraints.MaxNorm(1),
    "recurrent_constraint": keras.constraints.MaxNorm(2),
    "bias_constraint": keras.constraints.MaxNorm(3),
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "seed": 5,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "reset_after": False,
    "use_cudnn": False,
    "zero_output_for_mask": True,
    "input_dim": 7,
    "output_dim": 4,
    "embeddings_initializer": "ones",
    "embeddings_regularizer": keras.regularizers.L1(0.1),
    "embeddings_constraint": None,  # LoRA allows none
    "mask_zero": True,
    "tie_weights": False,
    "reverse_dtype": "float32",
    "logit_soft_cap": 3.0,
    "weights": None,  # LoRA's own would be among them
    "lora_rank": 2,
    "lora_alpha": 3,
    "quantization_config": None,  # of LoRA layers alone; and it is no argument of Keras 3.12
}
"""A value beside the default for each argument of Keras's."""


def given(name):
    """An unusual value for each of a stock layer's arguments, in order."""
    own = {"cell": keras.layers.LSTMCell(4)}
    return {x: (UNUSUAL | own)[x] for x in parameters(getattr(keras.layers, name)) if x != "kwargs"}


def config(layer):
    found = layer.get_config()
    found.pop("name")
    found.get("cell", {}).get("config", {}).pop("name", None)
    return found | {x: getattr(layer, x, None) for x in ("use_cudnn", "lora_alpha")}


@any_backend
@pytest.mark.parametrize("name", NAMES)
def test_each_argument_reaches_keras_by_name_and_by_position(name):
    expected = config(getattr(keras.layers, name)(**given(name), dtype="float16", trainable=False))
    kind = getattr(dpk, name)
    assert config(kind(**given(name), dtype="float16", trainable=False)) == expected
    assert config(kind(*given(name).values(), dtype="float16", trainable=False)) == expected


@any_backend
def test_an_embedding_hands_on_what_does_not_go_with_lora():
    constrained = {"embeddings_constraint": "non_neg"}
    expected = config(keras.layers.Embedding(7, 4, **constrained))
    assert config(dpk.Embedding(7, 4, **constrained)) == expected
    rows = np.random.default_rng(0).random((7, 4), "float32")
    np.testing.assert_array_equal(dpk.Embedding(7, 4, weights=[rows]).get_weights()[0], rows)
    if "quantization_config" in parameters(keras.layers.Embedding):
        asked = {"quantization_config": keras.quantizers.Int8QuantizationConfig()}
        expected = config(keras.layers.Embedding(7, 4, **asked))
        assert config(dpk.Embedding(7, 4, **asked)) == expected
        assert expected["quantization_config"] is not None
    else:
        with pytest.raises(ValueError, match="quantization_config"):
            dpk.Embedding(7, 4, quantization_config=object())


def message(kind, *args, **kwargs):
    with pytest.raises((TypeError, ValueError)) as caught:
        kind(*args, **kwargs)
    return type(caught.value), str(caught.value)


@any_backend
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", [{}, {"policy": "variational"}])
def test_wrong_arguments_get_kerass_own_errors(name, policy):
    ours, stock = getattr(dpk, name), getattr(keras.layers, name)
    required = 2 if name in (*EMBEDDINGS, *CONVOLUTIONAL) else 1
    first = {x: given(name)[x] for x in [*given(name)][:required]}
    wrong = message(ours, **first, **policy, polcy="zaremba")
    assert wrong == message(stock, **first, polcy="zaremba")
    assert "polcy" in wrong[1]
    kind, text = message(ours, **policy)  # of convolutional layers one `__init__` serves all
    assert (kind, text.replace("ConvLSTM.", f"{name}.")) == message(stock)
    many = [*given(name).values(), 1, 1]
    assert message(ours, *many, **policy)[0] is message(stock, *many)[0] is TypeError


@any_backend
def test_a_seed_without_a_policy_is_kerass():
    assert dpk.LSTM(WIDTH, seed=3).cell.seed == 3
    assert dpk.LSTM(WIDTH, seed=3, policy="zaremba").cell.seed is None
    error = message(dpk.RNN, keras.layers.LSTMCell(WIDTH), seed=3)
    assert error == message(keras.layers.RNN, keras.layers.LSTMCell(WIDTH), seed=3)


PROGRAM = """
from dropout_policies_keras import GRU, LSTM, RNN, Embedding, GRUCell, SimpleRNN

LSTM(5, policy="zaremba", rate=0.5, seed=3, stack=(0, 2), name="a", implementation=1)
GRU(5, reset_after=False, policy=None, zero_output_for_mask=True, dtype="float32")
SimpleRNN(5, kernel_initializer={"class_name": "Zeros"}, kernel_regularizer="l2")
RNN([], policy="zaremba", seed=1, return_state=True, activity_regularizer="l2")
Embedding(5, 3, mask_zero=True, policy="awd", rate={"embedding": 0.1}, trainable=False)
GRUCell(5, reset_after=False, policy="naive", stack=(0, 2), name="b", implementation=1)

LSTM(5, polcy="zaremba")  # wrong
GRU(5, retrun_sequences=True)  # wrong
SimpleRNN(5, recurrent_activation="tanh")  # wrong
RNN([], unrol=True)  # wrong
Embedding(5, 3, stack=(0, 2))  # wrong
LSTM("5")  # wrong
GRUCell(5, return_sequences=True)  # wrong
GRU(5, stack=3)  # wrong
SimpleRNN(5, policy="zaremba", rate="half")  # wrong
"""
CHECKERS = {
    "mypy": (["-m", "mypy", "--hide-error-context"], r":(\d+): error:"),
    "pyright": (["-m", "pyright", "--pythonpath", sys.executable], r":(\d+):\d+ - error:"),
}


@any_backend
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_mistakes_and_nothing_else(tmp_path, checker):
    command, error = CHECKERS[checker]
    root = Path(__file__).parents[2]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # A user's own configuration, with this tree's packages.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-keras.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    paths = f'["{root.as_posix()}", "{(root / "adapters").as_posix()}"]'
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": {paths}}}')
    done = subprocess.run(
        [sys.executable, *command, str(program)],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": f"{root}{os.pathsep}{root / 'adapters'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(number) for number in re.findall(rf"program\.py{error}", done.stdout)}
    lines = PROGRAM.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr


CHECKED = {
    "LSTM": (dpk.LSTM, {"units": WIDTH}),
    "GRU": (dpk.GRU, {"units": WIDTH}),
    "SimpleRNN": (dpk.SimpleRNN, {"units": WIDTH}),
    "RNN of one cell": (dpk.RNN, {"cell": keras.layers.LSTMCell(WIDTH)}),
    "RNN of two cells": (
        dpk.RNN,
        {"cell": [keras.layers.GRUCell(WIDTH), keras.layers.LSTMCell(WIDTH)]},
    ),
    "Embedding": (dpk.Embedding, {"input_dim": 7, "output_dim": WIDTH}),
}
POLICIES = {
    "no policy": {},
    "a name": {"policy": "variational"},
    "a name, a rate and a seed": {"policy": "variational", "rate": 0.3, "seed": 3},
    "a Policy": {"policy": dp.variational(0.3, dp.schedule({0: 0.1, 3: 0.5}))},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CHECKED)
def test_kerass_own_check_of_a_layer_passes(name, policy):
    kind, arguments = CHECKED[name]
    tokens = kind is dpk.Embedding
    test_case.TestCase().run_layer_test(
        kind,
        {**arguments, **POLICIES[policy]},
        input_shape=(3, 2) if tokens else (3, 2, 4),
        input_dtype="int32" if tokens else "float32",
        expected_output_shape=(3, 2, WIDTH) if tokens else (3, WIDTH),
        supports_masking=not tokens,
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CHECKED)
def test_kerass_own_check_of_saving_passes_on_a_layer_that_was_called(name, policy):
    kind, arguments = CHECKED[name]
    layer = kind(**arguments, **POLICIES[policy], name="layer")
    layer(np.zeros((3, 2), "int32") if kind is dpk.Embedding else np.zeros((3, 2, 4)))
    again = test_case.TestCase().run_class_serialization_test(kind.from_config(layer.get_config()))
    assert (again.placement, again.seed) == (layer.placement, layer.seed)
