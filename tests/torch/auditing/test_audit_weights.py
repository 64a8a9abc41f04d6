"""Masks on weights and on the features that go through them are separated."""

import pytest
import torch
from torch import nn

import dropout_policies as dp
from tests.support.stacks import Case, kept

D, H = 9, 8


class Masked(nn.Module):
    """An LSTM, step by step, whose weights and features are multiplied by masks.

    Args:
        weights: by "W" or "U", from a shape to a mask.
        x: from the shape of x, `[T, B, D]`, to a mask.
        h: from the shape of h, `[B, H]`, to the mask that h has on its way into the gates.
    """

    def __init__(self, weights=None, x=None, h=None, features=D):
        super().__init__()
        self.W = nn.Parameter(0.2 * torch.randn(4 * H, features))
        self.U = nn.Parameter(0.2 * torch.randn(4 * H, H))
        self.b = nn.Parameter(torch.zeros(4 * H))
        self.weights, self.x, self.h = weights or {}, x, h

    def forward(self, x):
        W, U = self.W, self.U
        h = c = x.new_zeros(x.shape[1], H)
        held = torch.ones_like(h)
        if self.training:
            W = W * self.weights["W"](W.shape) if "W" in self.weights else W
            U = U * self.weights["U"](U.shape) if "U" in self.weights else U
            x = x * self.x(x.shape) if self.x else x
            held = self.h(h.shape) if self.h else held
        outputs = []
        for step in x:
            i, f, g, o = (step @ W.T + (h * held) @ U.T + self.b).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)


def entries(shape):
    return kept(0.4, *shape)


def rows(shape):
    return kept(0.4, shape[0], 1)


def one_for_all_gates(shape):
    return kept(0.4, shape[0] // 4, shape[1]).repeat(4, 1)


def per_step(shape):
    return kept(0.3, *shape)


def held(shape):
    return kept(0.3, 1, *shape[-2:])[-1]


def held_for_the_batch(shape):
    return kept(0.3, 1, shape[-1])


def has(found, rate):
    # Wider than the interval, which is one of 99%, by what four seeds in a row need.
    low, high = found.interval
    return found.verdict == "masked" and low - 0.03 < rate < high + 0.03


def masked(audit):
    return {found.site.value for found in audit.findings if found.verdict != "whole"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("x", [per_step, held])
def test_masks_on_features_and_on_their_weights_are_separated(x, seed):
    torch.manual_seed(seed)
    audit = dp.audit(Masked({"W": entries}, x=x))
    assert masked(audit) == {"input", "input_weight"}, str(audit)
    assert has(audit.at("input"), 0.3)
    assert has(audit.at("input_weight"), 0.4)
    assert audit.at("input").gates is None  # every gate misses what its own weights drop


@pytest.mark.parametrize("seed", range(3))
def test_masks_on_h_and_on_its_weights_are_separated(seed):
    torch.manual_seed(seed)
    audit = dp.audit(Masked({"U": entries}, h=held))
    assert masked(audit) == {"hidden", "recurrent_weight"}, str(audit)
    assert has(audit.at("hidden"), 0.3)
    assert has(audit.at("recurrent_weight"), 0.4)
    assert audit.at("hidden").gates is None


@pytest.mark.parametrize("seed", range(3))
def test_features_that_are_missing_for_a_call_are_undecided(seed):
    torch.manual_seed(seed)
    audit = dp.audit(Masked({"W": entries}, x=held_for_the_batch))
    assert masked(audit) == {"input", "input_weight"}, str(audit)
    assert audit.policy is None
    assert {found.verdict for found in audit.undecided} == {"undecided"}
    assert "by the chance of their weights" in audit.at("input").note


@pytest.mark.parametrize("seed", range(3))
def test_two_features_without_weights_are_no_dropped_candidate(seed):
    torch.manual_seed(seed)
    audit = dp.audit(Masked({"W": entries}, features=2))
    assert masked(audit) == {"input_weight"}, str(audit)
    assert has(audit.at("input_weight"), 0.4)


@pytest.mark.parametrize(("weights", "site"), [("W", "input_weight"), ("U", "recurrent_weight")])
def test_rows_of_a_matrix_are_neither_entries_nor_the_candidate(weights, site):
    torch.manual_seed(0)
    audit = dp.audit(Masked({weights: rows}))
    assert masked(audit) == {site}, str(audit)
    found = audit.at(site)
    assert found.note == "weights of a unit are dropped together more often than by chance"
    assert audit.policy is None


@pytest.mark.parametrize("seed", range(3))
def test_masks_on_a_simple_cells_h_and_on_its_weights_are_separated(seed):
    audit = dp.audit(Case("rnn", H, {0: {"U": 0.3, "h": 0.2}}, seed=seed).module())
    assert masked(audit) == {"hidden", "recurrent_weight"}, str(audit)
    assert has(audit.at("hidden"), 0.2)
    assert has(audit.at("recurrent_weight"), 0.3)
    assert audit.at("hidden").scaled is not False
    assert audit.at("recurrent_weight").scaled is not False
    assert audit.at("recurrent_weight").note == ""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.6, 0.8])
def test_a_high_rate_at_the_output_does_not_change_the_rate_of_weights(rate, seed):
    class Hidden(Masked):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), rate, self.training)

    torch.manual_seed(seed)
    audit = dp.audit(Hidden({"U": entries}))
    assert has(audit.at("output"), rate), str(audit)
    assert has(audit.at("recurrent_weight"), 0.4)


def test_one_mask_for_the_weights_of_all_gates_is_not_weight_drop():
    torch.manual_seed(0)
    audit = dp.audit(Masked({"U": one_for_all_gates}))
    assert audit.policy is None, str(audit)
    assert audit.differences == (
        "recurrent_weight of layer 1 is otherwise: one mask for the weights of all gates",
    )
    torch.manual_seed(0)
    assert dp.audit(Masked({"U": entries})).policy == "weight_drop"


class Projected(nn.Module):
    """An LSTM with a projection, whose h is masked before it is projected, or after."""

    def __init__(self, before):
        super().__init__()
        self.W, self.U = nn.Linear(D, 4 * H), nn.Linear(5, 4 * H, bias=False)
        self.P, self.before = nn.Linear(H, 5, bias=False), before

    def forward(self, x):
        h, c = x.new_zeros(x.shape[1], 5), x.new_zeros(x.shape[1], H)
        outputs = []
        for step in x:
            i, f, g, o = (self.W(step) + self.U(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            if self.training and self.before:
                h = h * kept(0.4, *h.shape)
            h = self.P(h)
            if self.training and not self.before:
                h = h * kept(0.4, *h.shape)
            outputs.append(h)
        return torch.stack(outputs)


@pytest.mark.parametrize("before", [True, False])
def test_a_mask_before_a_projection_is_noted(before):
    torch.manual_seed(0)
    audit = dp.audit(Projected(before))
    assert masked(audit) == {"state"}, str(audit)
    assert audit.at("state").note == ("before the projection" if before else "")
