"""What the noise of PyTorch modules depends on is restored: generators, counters, buffers."""

import numpy as np
import pytest
import torch
from torch import nn

import dropout_policies as dp
from tests.support.torch_unusual import Around, Starts, dropped


def test_the_same_mask_at_every_call_is_frozen():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(9, 8)
            self.mask = (torch.rand(4, 3, 9) < 0.5).float() * 2

        def forward(self, x):
            held = self.mask[: len(x), : x.shape[1]]
            return self.rnn(x * held if self.training and held.shape == x.shape else x)[0]

    torch.manual_seed(0)
    found = dp.audit(Frozen()).at("input")
    assert found.verdict == "masked"
    assert found.frozen


def test_masks_that_a_counter_numbers_are_not_frozen():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.calls = nn.LSTM(9, 8), 5

        def forward(self, x):
            if self.training:
                self.calls += 1
                own = torch.Generator().manual_seed(self.calls)
                x = x * (torch.rand(x.shape, generator=own) < 0.6) / 0.6
            return self.rnn(x)[0]

    torch.manual_seed(0)
    module = Numbered()
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    assert module.calls == 5


def test_a_batch_size_is_restored_with_its_state():
    """A layer that continues from its last state, or from zeros if the batch has another size."""

    class Windows(nn.LSTM):
        def __init__(self):
            super().__init__(9, 8)
            self.size, self.state = 1, (torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))

        def forward(self, x):
            if x.shape[1] != self.size:
                self.size = x.shape[1]
                self.state = (x.new_zeros(1, self.size, 8), x.new_zeros(1, self.size, 8))
            y, self.state = super().forward(dropped(self, x), self.state)
            return y

    torch.manual_seed(0)
    module = Windows()
    assert dp.audit(module).differences == ("output of layer 1 is whole",)
    assert (module.size, module.state[0].shape) == (1, (1, 1, 8))


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_an_object_with_a_generator_is_restored(kind):
    class Noise:
        def __init__(self):
            self.random = kind(3)

        def __call__(self, x):
            return x * torch.from_numpy(self.random.random(x.shape) < 0.6).to(x) / 0.6

    torch.manual_seed(0)
    module = Around(Noise())
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    other = Noise()
    assert torch.equal(module.before(torch.ones(99)), other(torch.ones(99)))


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 9), (9,)])
def test_a_learned_state_is_no_weight_of_a_cell(shape):
    torch.manual_seed(0)
    start = nn.Parameter(torch.randn(shape))
    module = Starts(start)
    before = start.detach().clone()
    audit = dp.audit(module)
    assert audit.differences == ("output of layer 1 is whole",)
    assert not audit.undecided
    assert torch.equal(start, before)


class Counts(nn.Module):
    """An LSTM that counts its calls and keeps its masks."""

    def __init__(self):
        super().__init__()
        self.rnn, self.state = nn.LSTM(9, 8), {"calls": 0, "masks": []}
        self.calls = 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.state["calls"] += 1
            self.state["last"] = x.shape
            mask = (torch.rand(x.shape) < 0.6) / 0.6
            self.state["masks"].append(mask)
            x = x * mask
        return self.rnn(x)[0]


def test_a_dictionary_of_a_module_is_restored():
    module = Counts()
    module(torch.ones(2, 3, 9))
    masks = list(module.state["masks"])
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    assert module.calls == module.state["calls"] == 1
    assert module.state["last"] == (2, 3, 9)
    assert len(module.state["masks"]) == len(masks) == 1
    assert module.state["masks"][0] is masks[0]


def test_a_buffer_that_training_replaces_is_restored():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(9, 8)
            self.register_buffer("mask", torch.ones(1, 9))

        def forward(self, x):
            if self.training:
                self.mask = nn.functional.dropout(torch.ones(x.shape[1], 9), 0.4)
            return self.rnn(x * self.mask if self.training else x)[0]

    module = Kept()
    mask = module.mask
    audit = dp.audit(module)
    assert audit.at("input").per == "sequence"
    assert module.mask is mask
    assert torch.equal(mask, torch.ones(1, 9))
