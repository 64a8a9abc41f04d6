"""The audit calls modules that take more than a sequence, as published ones do."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp
from tests.support.torch_unusual import Held, dropped


class Language(nn.Module):
    """A language model that takes an initial state; its steps and samples are one axis."""

    def __init__(self, kind="LSTM", layers=2, words=30):
        super().__init__()
        self.words = nn.Embedding(words, 16)
        self.rnn = getattr(nn, kind)(16, 16, layers, dropout=0.4 * (layers > 1))
        self.decoder = nn.Linear(16, words)

    def forward(self, tokens, hidden):
        y, hidden = self.rnn(dropped(self, self.words(tokens)), hidden)
        scores = self.decoder(dropped(self, y)).flatten(0, 1)
        return scores.log_softmax(-1), hidden


class Layers(nn.Module):
    """Layers of different widths; the module makes a list of their states."""

    def __init__(self, widths=(12, 20, 14)):
        super().__init__()
        self.rnns = nn.ModuleList(nn.LSTM(*pair) for pair in pairwise(widths))

    def init_hidden(self, batch):
        like = next(self.parameters())
        return [(like.new_zeros(1, batch, rnn.hidden_size),) * 2 for rnn in self.rnns]

    def forward(self, x, states):
        assert isinstance(states, list)
        for number, rnn in enumerate(self.rnns):
            x, states[number] = rnn(dropped(self, x), states[number])
        return dropped(self, x), states


class WithLengths(nn.Module):
    """A layer that takes the lengths of its sequences."""

    def __init__(self, batch_first, packed=False, reshape=lambda y: y):
        super().__init__()
        self.gru = nn.GRU(10, 12, batch_first=batch_first)
        self.first, self.packed, self.reshape = batch_first, packed, reshape

    def forward(self, x, x_lengths, hx=None):
        sequence = pack_padded_sequence(dropped(self, x), x_lengths, self.first)
        y, h = self.gru(sequence, hx)
        if not self.packed:
            y = dropped(self, pad_packed_sequence(y, self.first)[0])
        return h, self.reshape(y)


def audited(module):
    torch.manual_seed(0)
    return dp.audit(module)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_required_state_is_made_for_the_layer(kind, layers):
    audit = audited(Language(kind, layers))
    assert (audit.policy, audit.undecided) == ("zaremba", ()), str(audit)


def test_a_state_may_be_required_part_by_part():
    class Parts(nn.LSTM):
        def forward(self, x, h, c):
            return super().forward(dropped(self, x), (h, c))

    audit = audited(Parts(9, 8))
    assert audit.differences == ("output of layer 1 is whole",), str(audit)


def test_states_are_made_by_the_modules_own_method():
    audit = audited(Layers())
    assert (audit.policy, audit.undecided) == ("zaremba", ()), str(audit)
    assert audit.connections == (3, 3)


@pytest.mark.parametrize("batch_first", [True, False])
def test_required_lengths_are_given(batch_first):
    audit = audited(WithLengths(batch_first))
    assert (audit.policy, audit.undecided) == ("zaremba", ()), str(audit)


@pytest.mark.parametrize("batch_first", [True, False])
def test_with_lengths_the_output_may_be_packed(batch_first):
    audit = audited(WithLengths(batch_first, packed=True))
    assert audit.differences == ("output of layer 1 is whole",), str(audit)


def test_an_initial_state_is_found_after_lengths():
    """Without one, several sites would be the same noise."""

    class Resumed(Held):
        def forward(self, x, x_lengths, state=None):
            assert len(x_lengths) == x.shape[1]
            zeros = x.new_zeros(1, x.shape[1], 9)
            return self.from_state(x, state or (zeros, zeros))

    audit = audited(Resumed("candidate", scaled=False))
    masked = [(f.site.value, f.per, f.scaled) for f in audit.findings if f.verdict == "masked"]
    assert masked == [("candidate", "sequence", False)], str(audit)


def test_a_state_that_one_direction_ignores_is_not_given():
    """A long sequence in windows: only the forward direction continues from one to the next."""

    class Windows(nn.GRU):
        def forward(self, x, h=None):
            if h is not None:
                h = torch.stack([h[0], torch.zeros_like(h[1])])
            return super().forward(dropped(self, x), h)

    audit = audited(Windows(9, 8, bidirectional=True))
    assert audit.undecided == (), str(audit)
    assert [f.site.value for f in audit.findings if f.verdict == "masked"] == ["input"] * 2


def test_samples_before_steps_in_one_axis_are_refused():
    samples_first = lambda y: y.transpose(0, 1).reshape(-1, 12)  # noqa: E731
    with pytest.raises(dp.PolicyError, match="never affects a later output"):
        audited(WithLengths(False, reshape=samples_first))


def test_an_argument_that_cannot_be_made_is_named():
    class Encoded(nn.LSTM):
        def forward(self, x, memory):
            return super().forward(x * memory[..., 0])

    with pytest.raises(dp.PolicyError, match=r"8 or 32 .* features and memory: .*layer alone"):
        audited(Encoded(8, 8))


def test_one_matrix_for_x_and_h_may_be_transposed():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9 + 8, 4 * 8))
            self.bias = nn.Parameter(torch.zeros(4 * 8))

        def forward(self, x):
            h = c = x.new_zeros(x.shape[1], 8)
            outputs = []
            for step in nn.functional.dropout(x, 0.4, self.training):
                gates = torch.cat([step, h], -1) @ self.weight + self.bias
                i, f, g, o = gates.chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                outputs.append(h)
            return torch.stack(outputs)

    torch.manual_seed(0)
    audit = dp.audit(Joined())
    assert [f.site.value for f in audit.findings if f.verdict == "masked"] == ["input"]
    assert audit.undecided == ()
