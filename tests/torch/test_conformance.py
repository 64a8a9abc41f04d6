"""Every layer of PyTorch's under every policy: the oracle's outputs, states and gradients."""

import pytest

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
    Layer("Unrolled (a cell of one's own)", "own_lstm", torch_subject.run_unrolled, ((0,),)),
]


@pytest.mark.parametrize(("layer", "policy"), conformance.pairs(LAYERS))
def test_a_layer_under_a_policy_is_the_oracles(layer, policy):
    conformance.check("torch", layer, policy, EXACT, examples=25)
