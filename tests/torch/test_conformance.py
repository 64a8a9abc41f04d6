"""Every layer of PyTorch's under every policy: the oracle's outputs, states and gradients."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

import dropout_policies as dp
from tests.support import conformance, torch_subject
from tests.support.conformance import Layer

EXACT = 1e-10

LAYERS = [
    Layer("torch.nn.LSTM", "lstm", torch_subject.run, projections=True),
    Layer("torch.nn.GRU", "gru", torch_subject.run),
    Layer("torch.nn.RNN (tanh)", "rnn_tanh", torch_subject.run),
    Layer("torch.nn.RNN (relu)", "rnn_relu", torch_subject.run),
    Layer("torch.nn.LSTMCell", "lstm", torch_subject.run_cells, ((0,),), by_step=True),
    Layer("torch.nn.GRUCell", "gru", torch_subject.run_cells, ((0,),), by_step=True),
    Layer("torch.nn.RNNCell (tanh)", "rnn_tanh", torch_subject.run_cells, ((0,),), by_step=True),
    Layer("torch.nn.RNNCell (relu)", "rnn_relu", torch_subject.run_cells, ((0,),), by_step=True),
    Layer("Unrolled (custom cell)", "own_lstm", torch_subject.run_unrolled, ((0,),)),
    Layer(
        "Unrolled (custom convolutional cell)",
        "own_conv_lstm",
        torch_subject.run_unrolled,
        ((0,),),
        spatial_axes=(1, 2, 3),
    ),
]


@pytest.mark.parametrize(("layer", "policy"), conformance.pairs(LAYERS))
def test_a_layer_under_a_policy_is_the_oracles(layer, policy):
    conformance.check("torch", layer, policy, EXACT, examples=25)


def wrong(case, given=None):
    """An adapter that forgets to mask what leaves."""
    rest = {s.value: rule for s, rule in case.policy.items() if s is not dp.Site.OUTPUT}
    return torch_subject.run(replace(case, policy=dp.Policy(**rest)), given)


@pytest.mark.parametrize(
    ("run", "gap", "holds"),
    [
        (torch_subject.run, False, True),
        (torch_subject.run, True, False),  # a gap that has been closed
        (wrong, False, False),  # a gap that nobody wrote down
        (wrong, True, True),
    ],
)
def test_gaps_are_those_in_the_table(run, gap, holds, monkeypatch, tmp_path):
    layer = Layer("torch.nn.LSTM", "lstm", run)
    monkeypatch.setattr(conformance, "FOLDER", tmp_path)
    if gap:
        monkeypatch.setitem(conformance.GAPS, ("torch", layer.name, "zaremba"), "why")
    expected = nullcontext() if holds else pytest.raises((AssertionError, pytest.fail.Exception))
    with expected:
        conformance.check("torch", layer, "zaremba", EXACT, examples=25)
    written = list(tmp_path.glob("*.json"))
    assert len(written) == holds
    if holds:
        line = json.loads(written[0].read_text(encoding="utf-8"))
        assert line["gap"] == ("why" if gap else "")
        assert gap or line["cases"] >= 25
