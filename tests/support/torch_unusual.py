"""PyTorch modules that do something unusual in training, for the audit to look into."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def dropped(module, value):
    return nn.functional.dropout(value, 0.4, module.training)


class Around(nn.Module):
    """An LSTM, and what is done to its input and its output in training."""

    def __init__(self, before=lambda x: x, after=lambda y: y, always=False, rnn=None):
        super().__init__()
        self.rnn, self.before = rnn or nn.LSTM(9, 9), before
        self.after, self.always = after, always

    def forward(self, x):
        if not (self.training or self.always):
            return self.rnn(x)[0]
        return self.after(self.rnn(self.before(x))[0])


class ByHand(nn.Module):
    """An LSTM written out, with `pre` for what its gates see."""

    def __init__(self, pre):
        super().__init__()
        self.W, self.U, self.pre = nn.Linear(9, 36), nn.Linear(9, 36), pre

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 9)
        outputs = []
        for step in x:
            i, f, g, o = self.pre(self, step, h).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs)


class Held(nn.Module):
    """An LSTM written out, with a mask for each sequence on its candidate or on its h."""

    def __init__(self, site, scaled=True):
        super().__init__()
        self.gates, self.site, self.scaled = nn.Linear(18, 36), site, scaled

    def forward(self, x):
        zeros = x.new_zeros(1, x.shape[1], 9)
        return self.from_state(x, (zeros, zeros))

    def from_state(self, x, state):
        (h,), (c,) = state
        held = dropped(self, torch.ones_like(h))
        masks = {self.site: held if self.scaled else held.sign()}
        outputs = []
        for step in x:
            i, f, g, o = self.gates(torch.cat([step, h], -1)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh() * masks.get("candidate", 1.0)
            h = o.sigmoid() * c.tanh() * masks.get("state", 1.0)
            outputs.append(h)
        return torch.stack(outputs)


class Decoded(nn.Module):
    """An LSTM and a linear layer behind it."""

    def __init__(self, way, words=20):
        super().__init__()
        self.rnn, self.linear, self.way = nn.LSTM(9, 9), nn.Linear(9, words), way

    def forward(self, x):
        return self.way(self, self.rnn(x)[0])


class Starts(nn.Module):
    """An LSTM that begins from a state of its own."""

    def __init__(self, start):
        super().__init__()
        self.rnn, self.start = nn.LSTM(9, 9), start

    def forward(self, x):
        start = self.start if isinstance(self.start, nn.Parameter) else self.start(9)
        start = start.expand(1, x.shape[1], 9).contiguous()
        return self.rnn(dropped(self, x), (start, start))[0]


class Packed(nn.Module):
    """A module of tensors for who has packed sequences alone, as a layer of longer and shorter
    sequences may be written."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, sequence):
        if not isinstance(sequence, PackedSequence):
            raise LookupError("a PackedSequence is needed")
        x, lengths = pad_packed_sequence(sequence)
        return pack_padded_sequence(self.inner(x), lengths)
