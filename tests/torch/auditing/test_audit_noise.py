"""Noise that no policy has: the audit names no policy, and says nothing false."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropout_policies as dp
from tests.support.stacks import kept

D, H = 9, 8


class Around(nn.Module):
    """An LSTM between two noises, given x `[T, B, F]`."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.lstm, self.before, self.after = nn.LSTM(D, H), before, after

    def forward(self, x):
        y = self.lstm(self.before(x) if self.training and self.before else x)[0]
        return self.after(y) if self.training and self.after else y


def held_and_not(x):
    return x * kept(0.3, 1, *x.shape[1:]) * kept(0.3, *x.shape)


def words_and_held(x):
    return x * kept(0.05, *x.shape[:2], 1) * kept(0.5, 1, *x.shape[1:])


def by_two_steps(x):
    return x * kept(0.4, len(x), *x.shape[1:]).repeat_interleave(2, dim=0)[: len(x)]


def by_pairs_of_features(x):
    half = kept(0.4, *x.shape[:2], (x.shape[-1] + 1) // 2)
    return x * half.repeat_interleave(2, dim=-1)[..., : x.shape[-1]]


def partly_for_the_batch(x):
    return x * kept(0.3, len(x), 1, x.shape[-1]) * kept(0.3, *x.shape)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (held_and_not, "steps"),
        (words_and_held, "steps"),
        (by_two_steps, "steps"),
        (by_pairs_of_features, "units"),
        (partly_for_the_batch, "samples"),
    ],
)
def test_partly_shared_masks_are_noted(noise, words, seed):
    torch.manual_seed(seed)
    audit = dp.audit(Around(noise, noise))
    assert audit.policy is None, str(audit)
    for found in (audit.at("input"), audit.at("output")):
        assert found.verdict == "masked"
        assert found.note == f"{words} are dropped together more often than by chance"
        assert found.per is None or words != "steps"


def test_a_rate_that_changes_with_every_call_is_noted():
    torch.manual_seed(0)
    audit = dp.audit(Around(lambda x: x * kept(0.6 * torch.rand(()).item(), *x.shape)))
    assert audit.at("input").note == "the rate is not that of every call"


@pytest.mark.parametrize("steps", [5, 9])
def test_masks_held_for_some_steps_have_no_lifetime(steps):
    def by_blocks(x):
        blocks = kept(0.4, -(-len(x) // steps), *x.shape[1:])
        return x * blocks.repeat_interleave(steps, dim=0)[: len(x)]

    torch.manual_seed(0)
    audit = dp.audit(Around(by_blocks, by_blocks))
    assert audit.policy is None, str(audit)
    assert audit.at("input").text().endswith("lifetime undecided")
    assert "masks that are the same for 4 steps change within 24" in audit.differences


def test_cells_that_cannot_forget_do_not_look_like_changing_masks():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(D, H, bias=False)

        def forward(self, x):
            return self.lstm(x * kept(0.4, 1, *x.shape[1:]) if self.training else x)[0]

    torch.manual_seed(0)
    audit = dp.audit(Held())
    assert audit.at("input").per == "sequence", str(audit)
    assert audit.notes == ()


class RandomlyKept(nn.Module):
    """An LSTM that sometimes keeps both parts of its state, for whole samples."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(D, H)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], H)
        outputs = []
        for step in x:
            stays = (torch.rand(len(h), 1) < 0.3) & self.training
            new = self.cell(step, (h, c))
            h, c = (torch.where(stays, *pair) for pair in zip((h, c), new, strict=True))
            outputs.append(h)
        return torch.stack(outputs)


@pytest.mark.parametrize("seed", range(3))
def test_sites_that_have_one_mask_have_one_rate(seed):
    torch.manual_seed(seed)
    audit = dp.audit(RandomlyKept())
    stays = [audit.at("hidden_update"), audit.at("cell_update")]
    assert stays[0].interval == stays[1].interval, str(audit)
    assert stays[0].interval[0] < 0.3 < stays[0].interval[1]
    assert "hidden_update of layer 1 and cell_update of layer 1 have one mask" in audit.notes


class Cells(nn.Module):
    """An LSTM step by step, with functions for h as each gate sees it, and for the carried c."""

    def __init__(self, h_of=None, c_of=None, x_rate=0.3):
        super().__init__()
        self.W, self.U = nn.Linear(D, 4 * H), nn.Linear(H, 4 * H)
        self.h_of, self.c_of, self.x_rate = h_of, c_of, x_rate

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], H)
        outputs = []
        for step in functional.dropout(x, self.x_rate, self.training):
            into, weights = self.W(step).chunk(4, -1), self.U.weight.chunk(4)
            hidden = self.h_of(h) if self.training and self.h_of else [h] * 4
            back = [s @ w.T for s, w in zip(hidden, weights, strict=True)]
            bias = self.U.bias.chunk(4)
            i, f, g, o = (a + b + d for a, b, d in zip(into, back, bias, strict=True))
            c = self.c_of(c) if self.training and self.c_of else c
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)


def all_but_the_candidate(h):
    i, f, o = (functional.dropout(h, 0.4) for _ in range(3))
    return [i, f, h, o]


def the_candidate_alone(h):
    return [h, h, functional.dropout(h, 0.4), h]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("h_of", [all_but_the_candidate, the_candidate_alone])
def test_a_mask_that_some_gates_do_not_see_leaves_the_site_undecided(h_of, seed):
    torch.manual_seed(seed)
    audit = dp.audit(Cells(h_of))
    assert audit.policy is None, str(audit)
    assert audit.at("input").verdict == "masked"
    for site in ("hidden", "recurrent_weight"):
        assert audit.at(site).text() == "undecided: some gates see more of it than others"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mask_for_each_gate_is_untied(seed):
    torch.manual_seed(seed)
    audit = dp.audit(Cells(lambda h: [functional.dropout(h, 0.4) for _ in range(4)]))
    assert audit.at("hidden").gates == "untied"
    assert audit.at("hidden").verdict == "masked"


def test_no_policy_is_named_if_the_state_is_unexplained():
    torch.manual_seed(0)
    audit = dp.audit(Cells(c_of=lambda c: functional.dropout(c, 0.3)))
    assert audit.at("input").verdict == "masked"
    assert audit.policy is None, str(audit)


@pytest.mark.parametrize("shape", [(), (1,), (H,)])
def test_a_rate_that_is_a_parameter_keeps_its_value(shape):
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(D, H)
            self.logit = nn.Parameter(torch.full(shape, -1.3863))  # of 0.2

        def forward(self, x):
            y = self.lstm(x)[0]
            rate = torch.sigmoid(self.logit)
            return y * torch.bernoulli((1.0 - rate).expand(y.shape)) if self.training else y

    torch.manual_seed(0)
    module = Learned()
    found = dp.audit(module).at("output")
    assert found.verdict == "masked"
    assert found.interval[0] < 0.2 < found.interval[1]
    assert torch.equal(module.logit, torch.full(shape, -1.3863))


def test_connections_that_are_undecided_are_not_counted_as_whole():
    torch.manual_seed(0)
    audit = dp.audit(Around(before=lambda x: x * (1.0 + torch.randn_like(x)), after=held_and_not))
    assert audit.connections == (1, 2)
    assert "1 of 2, and 1 undecided, vertical connections masked" in str(audit)
