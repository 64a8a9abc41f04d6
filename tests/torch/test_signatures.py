"""The layers' constructors: PyTorch's own arguments in PyTorch's order, and ours after them."""

import inspect

import dropout_policies_torch as dpt
import pytest
import torch
from torch import nn

OURS = {
    "LSTM": ("policy", "rate", "seed", "stack"),
    "GRU": ("policy", "rate", "seed", "stack"),
    "RNN": ("policy", "rate", "seed", "stack"),
    "LSTMCell": ("policy", "rate", "seed", "stack"),
    "GRUCell": ("policy", "rate", "seed", "stack"),
    "RNNCell": ("policy", "rate", "seed", "stack"),
    "Embedding": ("policy", "rate", "seed", "batch_first"),
}


def stock_parameters(name):
    """Names and defaults of the stock layer's constructor; those of `nn.RNNBase` where it takes
    `*args`."""
    if name not in ("LSTM", "GRU", "RNN"):
        return parameters(getattr(nn, name))
    of_base = [each for each in parameters(nn.RNNBase) if each[0] != "mode"]
    if name != "LSTM":
        of_base = [each for each in of_base if each[0] != "proj_size"]
    if name == "RNN":
        of_base.insert(3, ("nonlinearity", "tanh"))
    return of_base


def parameters(cls):
    signature = inspect.signature(cls)
    return [(p.name, p.default) for p in signature.parameters.values()]


@pytest.mark.parametrize("name", OURS)
def test_arguments_are_pytorchs_and_then_ours(name):
    count = len(OURS[name])
    given = parameters(getattr(dpt, name))
    assert given[:-count] == stock_parameters(name)
    assert tuple(argument for argument, _ in given[-count:]) == OURS[name]
    kinds = {p.kind for p in inspect.signature(getattr(dpt, name)).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", OURS)
def test_every_argument_is_in_the_docstring(name):
    cls = getattr(dpt, name)
    text = inspect.getdoc(cls)
    hidden = ("_weight", "_freeze")  # PyTorch's own, for from_pretrained
    for argument in inspect.signature(cls).parameters:
        assert argument in hidden or f"\n    {argument}: " in text, argument


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("LSTM", (3, 4, 2, False, True, 0.0, True, 2, "cpu", torch.float64)),
        ("GRU", (3, 4, 2, False, True, 0.0, True)),
        ("RNN", (3, 4, 2, "relu", False, True, 0.0, True)),
        ("LSTMCell", (3, 4, False, "cpu", torch.float64)),
        ("GRUCell", (3, 4, False)),
        ("RNNCell", (3, 4, False, "relu")),
        ("Embedding", (5, 4, 1, 2.0, 1.0, True, False)),
    ],
)
def test_every_argument_reaches_the_stock_layer(name, arguments):
    ours, stock = getattr(dpt, name)(*arguments), getattr(nn, name)(*arguments)
    assert repr(ours) == repr(stock)
    assert {k: (v.shape, v.dtype) for k, v in ours.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in stock.state_dict().items()
    }
    by_name = dict(zip(inspect.signature(type(ours)).parameters, arguments, strict=False))
    assert repr(getattr(dpt, name)(**by_name, policy=None)) == repr(stock)


def test_pretrained_rows_make_an_embedding():
    rows = torch.randn(5, 4)
    torch.testing.assert_close(dpt.Embedding.from_pretrained(rows).weight, rows)
    assert not dpt.Embedding.from_pretrained(rows).weight.requires_grad


@pytest.mark.parametrize("name", OURS)
def test_an_unknown_argument_is_pythons_error(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'polcy'"):
        getattr(dpt, name)(3, 4, polcy="zaremba")


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (dpt.LSTM(3, 4, policy="zaremba"), "LSTM(3, 4, policy='zaremba', rate=0.5)"),
        (dpt.GRU(3, 4, policy="zaremba", rate=[0.2]), "GRU(3, 4, policy='zaremba', rate=[0.2])"),
        (
            dpt.RNN(3, 4, policy="variational", rate={"hidden": 0.1, "embedding": 0.0}, seed=3),
            "RNN(3, 4, policy='variational', rate={'embedding': 0, 'input': 0.5, 'between': 0.5, "
            "'output': 0.5, 'hidden': 0.1}, seed=3)",
        ),
        (dpt.LSTMCell(3, 4, policy="naive"), "LSTMCell(3, 4, policy='naive', rate=0.5)"),
        (dpt.LSTM(3, 4, policy="none"), "LSTM(3, 4, policy='none')"),
        (dpt.LSTM(3, 4), "LSTM(3, 4)"),
    ],
)
def test_reprs_show_policy_and_rates(layer, text):
    assert repr(layer) == text
