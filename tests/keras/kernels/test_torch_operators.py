"""Keras's cells in PyTorch's operators: when they run, and that they compute what the loop does."""

import dropout_policies_keras as dpk
import keras
import numpy as np
import pytest
from dropout_policies_keras import torch_operators

import dropout_policies as dp

if keras.backend.backend() != "torch":
    pytest.skip("operators run on Keras's torch backend alone", allow_module_level=True)

import torch
from dropout_policies_kernels import operators

B, T, D, H = 4, 9, 5, 8
LAYERS = {
    "LSTM": (dpk.LSTM, {}),
    "LSTM, no bias": (dpk.LSTM, {"use_bias": False}),
    "LSTM, backwards": (dpk.LSTM, {"go_backwards": True}),
    "GRU": (dpk.GRU, {}),
    "GRU, no bias": (dpk.GRU, {"use_bias": False}),
    "RNN": (dpk.SimpleRNN, {}),
    "RNN, relu": (dpk.SimpleRNN, {"activation": "relu"}),
    "LSTM, float64": (dpk.LSTM, {"dtype": "float64"}),
}
POLICIES = {
    "zaremba": dp.zaremba(0.4),
    "variational": dp.variational(),
    "untied": dp.variational(gates="untied"),
    "state and candidate": dp.Policy(state=dp.drop(0.3), candidate=dp.drop(0.3)),
    "zoneout": dp.Policy(hidden_update=dp.zoneout()["hidden_update"]),
    "weights": dp.weight_drop(0.4) | dp.locked(0.4),
}
POLICIES["no gates"] = dp.Policy(input=dp.drop(0.4), hidden=dp.drop(0.3))


@pytest.fixture
def ran(monkeypatch):
    """For each cell that ran, whether it ran in an operator."""
    found, original = [], torch_operators.run_sequence

    def counting(*args):
        result = original(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(torch_operators, "run_sequence", counting)
    return found


def noise(dtype="float32", steps=T):
    values = np.random.default_rng(0).standard_normal((B, steps, D)).astype(dtype)
    return torch.tensor(values, requires_grad=True)


def outputs_and_gradients(kind, policy, options, x, **call):
    """What a layer returns and the gradients of its input and weights, always the same."""
    keras.utils.set_random_seed(1)
    layer = kind(H, policy=policy, seed=3, return_state=True, **options)
    outputs = layer(x, training=True, **call)
    weighted = [
        (y * torch.linspace(0.1, 1.0, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()
        for y in outputs
    ]
    weights = [weight.value for weight in layer.trainable_weights]
    return [*outputs, *torch.autograd.grad(sum(weighted), [x, *weights])]


@pytest.mark.parametrize("sequences", [True, False], ids=["sequences", "last"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_an_operator_computes_what_the_loop_does(layer, policy, sequences, ran, monkeypatch):
    kind, options = layer
    if kind is dpk.SimpleRNN and "candidate" in policy:
        policy = dp.Policy(state=dp.drop(0.3))
    options = {**options, "return_sequences": sequences}
    x = noise(options.get("dtype", "float32"))
    by_operator = outputs_and_gradients(kind, policy, options, x)
    assert ran == [True]
    monkeypatch.setattr(torch_operators, "run_sequence", lambda *_: None)
    by_loop = outputs_and_gradients(kind, policy, options, x)
    for one, other in zip(by_operator, by_loop, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", [dpk.LSTM, dpk.GRU], ids=["LSTM", "GRU"])
def test_gates_in_another_order_are_seen(cell, monkeypatch):
    """That comparison can fail."""
    x, policy = noise(), POLICIES["untied"]
    right = outputs_and_gradients(cell, policy, {}, x)
    order = (2, 1, 0, *range(3, 4 if cell is dpk.LSTM else 3))
    original = torch_operators._in_torch_layout
    monkeypatch.setattr(torch_operators, "_in_torch_layout", lambda w, _: original(w, order))
    wrong = outputs_and_gradients(cell, policy, {}, x)
    assert not torch.allclose(right[0], wrong[0], atol=1e-3)


LOOPS = {
    "a GRU that resets before": (dpk.GRU, {"reset_after": False}, {}),
    "another activation": (dpk.LSTM, {"activation": "relu"}, {}),
    "another activation of gates": (dpk.GRU, {"recurrent_activation": "hard_sigmoid"}, {}),
    "half precision": (dpk.LSTM, {"dtype": "mixed_bfloat16"}, {}),
    "padding": (dpk.LSTM, {}, {"mask": torch.tensor([[True] * T] * (B - 1) + [[False] * T])}),
}


@pytest.mark.parametrize(("kind", "options", "call"), LOOPS.values(), ids=LOOPS)
def test_what_an_operator_does_not_compute_runs_in_the_loop(kind, options, call, ran):
    layer = kind(H, policy="zaremba", return_sequences=True, **options)
    layer(noise(), training=True, **call)
    assert not any(ran)


def test_a_few_steps_run_in_the_loop(ran, monkeypatch):
    monkeypatch.setattr(operators, "MAX_LOOP_STEPS", 3)
    layer = dpk.LSTM(H, policy="zaremba")
    layer(noise(steps=3), training=True)
    layer(noise(steps=4), training=True)
    assert ran == [False, True]


def test_evaluation_under_zoneout_runs_in_an_operator(ran, monkeypatch):
    layer = dpk.LSTM(H, policy="zoneout", return_sequences=True)
    x = noise()
    by_operator = layer(x, training=False)
    assert ran == [True]
    monkeypatch.setattr(torch_operators, "run_sequence", lambda *_: None)
    torch.testing.assert_close(by_operator, layer(x, training=False), rtol=1e-5, atol=1e-5)
