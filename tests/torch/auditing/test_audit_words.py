"""Tokens: words that are dropped for a call, beside masks on everything else."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropout_policies as dp
from tests.support.stacks import kept

D, H = 9, 8


def has(found, rate):
    # Wider than the interval, which is one of 99%, by what many of them at once need.
    low, high = found.interval
    return found.verdict == "masked" and low - 0.03 < rate < high + 0.03


class Words(nn.Module):
    """Words are dropped for a call, as in AWD-LSTM, and features of the output by themselves."""

    def __init__(self, rate):
        super().__init__()
        self.embedding, self.lstm, self.rate = nn.Embedding(40, D), nn.LSTM(D, H), rate

    def forward(self, tokens):
        matrix = self.embedding.weight
        if self.training:
            matrix = matrix * kept(self.rate, len(matrix), 1)
        y = self.lstm(functional.embedding(tokens, matrix))[0]
        return functional.dropout(y, 0.3, self.training)


@pytest.mark.parametrize("seed", range(4))
def test_words_that_are_seldom_dropped_are_not_whole(seed):
    torch.manual_seed(seed)
    assert dp.audit(Words(0.1)).at("embedding", -1).verdict != "whole"


def test_words_that_are_never_dropped_are_whole():
    torch.manual_seed(0)
    found = dp.audit(Words(0.0)).at("embedding", -1)
    assert found.verdict == "whole"
    assert found.elements == 64
    assert found.interval[1] > 0.05


class LanguageModel(nn.Module):
    """An AWD-LSTM: dropped words and weights, held masks, and one decoder."""

    def __init__(self, words=0.0, weights=0.0, into=0.0, between=0.0, output=0.0, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(40, 12)
        self.layers = nn.ModuleList(nn.LSTM(12, 12) for _ in range(layers))
        self.decoder = nn.Linear(12, 40)
        self.words, self.weights = words, weights
        self.vertical = [into, *[between] * (layers - 1), output]

    def held(self, x, rate):
        return x * kept(rate, 1, *x.shape[1:]) if self.training else x

    def forward(self, tokens):
        matrix = self.embedding.weight
        matrix = matrix * kept(self.words, 40, 1) if self.training else matrix
        x = functional.embedding(tokens, matrix)
        for layer, rate in zip(self.layers, self.vertical, strict=False):
            weights = dict(layer.named_parameters())
            weights["weight_hh_l0"] = functional.dropout(
                weights["weight_hh_l0"], self.weights, self.training
            )
            x = torch.func.functional_call(layer, weights, (self.held(x, rate),))[0]
        return self.decoder(self.held(x, self.vertical[-1]))


@pytest.mark.parametrize("seed", range(3))
def test_awd_with_dropped_words_is_named_with_its_rates(seed):
    torch.manual_seed(seed)
    audit = dp.audit(LanguageModel(words=0.2, weights=0.5, into=0.4, between=0.25, output=0.4))
    assert audit.policy == "awd", str(audit)
    assert has(audit.at("input"), 0.4)
    assert has(audit.at("between", 1), 0.25)
    assert has(audit.at("output", 1), 0.4)
    for layer in range(2):
        assert has(audit.at("recurrent_weight", layer), 0.5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_calls_without_the_word_do_not_change_the_rate_of_the_output(rate, seed):
    torch.manual_seed(seed)
    audit = dp.audit(LanguageModel(words=rate, output=0.3, layers=1))
    assert has(audit.at("output"), 0.3), str(audit)
    assert {f.site.value for f in audit.findings if f.verdict != "whole"} == {"embedding", "output"}


def test_the_scale_of_words_is_counted_once():
    torch.manual_seed(0)
    audit = dp.audit(LanguageModel(words=0.2))
    found = audit.at("embedding", -1)
    assert (found.verdict, found.note, found.scaled) == ("masked", "", True)


def test_vectors_dropped_step_by_step_are_undecided():
    class Vectors(Words):
        def forward(self, tokens):
            x = self.embedding(tokens)
            x = x * kept(0.2, *x.shape[:2], 1) if self.training else x
            return functional.dropout(self.lstm(x)[0], 0.3, self.training)

    torch.manual_seed(0)
    audit = dp.audit(Vectors(0.0))
    assert audit.policy is None
    for found in (audit.at("embedding", -1), audit.at("input")):
        assert found.text() == "undecided: whole vectors go missing step by step"
