"""Embeddings: whole word types dropped, the matrix left alone."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTM, Embedding
from torch import nn

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import plan_embedding

T, B, V, F = 7, 3, 9, 4
TOKENS = torch.randint(0, V, (T, B), generator=torch.Generator().manual_seed(1))
POLICIES = {per: dp.Policy(embedding=dp.drop(0.4, per=per)) for per in ("sequence", "call")}


@pytest.mark.parametrize("per", POLICIES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_rows_are_the_oracles(per, batch_first):
    policy = POLICIES[per]
    words = Embedding(V, F, policy=policy, seed=3, batch_first=batch_first, dtype=torch.float64)
    words.row_offset = 2
    for call in range(3):
        rows = words(TOKENS.T if batch_first else TOKENS)
        rows = rows.transpose(0, 1) if batch_first else rows
        (mask,) = keyed.masks(plan_embedding(policy, 0, V, B), 3, call, 2).values()
        expected = reference.embedding(TOKENS.numpy(), words.weight.detach().numpy(), mask)
        np.testing.assert_allclose(rows.detach().numpy(), expected, rtol=1e-12)
    assert words.calls == 3
    assert torch.equal(words.eval()(TOKENS), nn.functional.embedding(TOKENS, words.weight))


@pytest.mark.parametrize("per", POLICIES)
def test_a_word_is_there_or_not_in_all_its_places(per):
    words = Embedding(V, F, policy=POLICIES[per], seed=3)
    there = words(TOKENS).abs().sum(-1) > 0
    samples = range(B) if per == "sequence" else [slice(None)]
    for sample in samples:
        for word in TOKENS[:, sample].unique():
            assert there[:, sample][TOKENS[:, sample] == word].unique().numel() == 1
    assert not there.all()
    assert there.any()


def test_tokens_must_show_which_is_a_sample_where_that_matters():
    words = Embedding(V, F, policy=POLICIES["sequence"], seed=3)
    for tokens in (TOKENS[:, 0], TOKENS[None]):
        with pytest.raises(
            dp.PolicyError, match=r"tokens must be \[T, B\] or \[B, T\].*'embedding': 0"
        ):
            words(tokens)
    shared = Embedding(V, F, policy=POLICIES["call"], seed=3)
    rows = shared(TOKENS)
    for tokens, expected in ((TOKENS[:, 0], rows[:, 0]), (TOKENS[None], rows[None])):
        shared.calls = 0
        assert torch.equal(shared(tokens), expected)


@pytest.mark.parametrize("per", POLICIES)
def test_a_rule_that_is_not_scaled_has_its_mean_in_evaluation(per):
    torch.manual_seed(0)
    policy = dp.Policy(embedding=dp.drop(0.25, per=per, scaled=False))
    words = Embedding(V, F, policy=policy)
    shares = words(TOKENS) / nn.functional.embedding(TOKENS, words.weight)
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    expected = 0.75 * nn.functional.embedding(TOKENS, words.weight)
    torch.testing.assert_close(words.eval()(TOKENS), expected)


def test_a_subclass_is_left_alone_and_said_so():
    class Own(nn.Embedding):
        def forward(self, words):
            return nn.functional.embedding(words, self.weight)

    applied = dp.apply(nn.ModuleList([Own(V, F), nn.LSTM(F, F)]), "awd")
    assert [left.name for left in applied.skipped] == ["0"]
    assert not applied.embeddings


def test_a_tied_decoder_sees_the_matrix_whole():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(V, F), nn.Linear(F, V)
            self.rnn = nn.LSTM(F, F)
            self.head.weight = self.words.weight

        def forward(self, tokens):
            return self.head(self.rnn(self.words(tokens))[0])

    model = Tied()
    before, weight = list(model.state_dict()), model.words.weight.detach().clone()
    applied = dp.apply(model, "awd", seed=3)
    assert model.head.weight is model.words.weight
    assert [e.name for e in applied.embeddings] == ["words"]
    assert "words (torch.nn.Embedding): embedding 0.1 per call" in str(applied)
    model(TOKENS).sum().backward()
    assert torch.equal(model.words.weight, weight)
    assert list(model.state_dict()) == before
    row = torch.randn(F)
    assert torch.equal(model.head(row), nn.functional.linear(row, weight, model.head.bias))
    applied.remove()
    assert type(model.words) is nn.Embedding
    assert "batch_first" not in vars(model.words)
    assert torch.equal(model.words(TOKENS), nn.functional.embedding(TOKENS, weight))


def test_apply_takes_the_order_of_tokens_from_the_recurrent_layers():
    for batch_first in (False, True):
        model = nn.ModuleList([nn.Embedding(V, F), nn.LSTM(F, F, batch_first=batch_first)])
        dp.apply(model, "variational")
        assert model[0].batch_first == batch_first
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(V, F),
            "a": nn.LSTM(F, F, batch_first=True),
            "b": nn.LSTM(2, 2, batch_first=False),
        }
    )
    with pytest.raises(dp.PolicyError, match="some recurrent layers take"):
        dp.apply(model, "variational")
    assert type(model["words"]) is nn.Embedding
    dp.apply(model, "variational", rate={"embedding": 0})
    assert type(model["words"]) is nn.Embedding


def test_two_embeddings_draw_different_words():
    model = nn.ModuleList([nn.Embedding(200, F), nn.Embedding(200, F), nn.LSTM(F, F)])
    dp.apply(model, "awd", rate={"embedding": 0.5}, seed=3)
    tokens = torch.arange(200)[:, None]
    there = [model[i](tokens).abs().sum(-1) > 0 for i in (0, 1)]
    assert not torch.equal(*there)


def test_what_has_no_rule_for_embeddings_leaves_them_alone():
    model = nn.ModuleList([nn.Embedding(V, F), nn.LSTM(F, F)])
    applied = dp.apply(model, "zaremba")
    assert not applied.embeddings
    assert type(model[0]) is nn.Embedding
    with pytest.raises(dp.PolicyError, match="has no rule at site 'embedding'"):
        Embedding(V, F, policy="zaremba")
    with pytest.raises(dp.PolicyError, match="no recurrent layer"):
        dp.apply(nn.ModuleList([nn.Embedding(V, F)]), "awd")
    with pytest.raises(dp.PolicyError, match=r"0 .*under policy 'awd' already"):
        dp.apply(nn.ModuleList([Embedding(V, F, policy="awd"), nn.LSTM(F, F)]), "variational")


def test_a_recurrent_layer_leaves_the_rule_to_the_embedding():
    layer = LSTM(F, F, policy=dp.Policy(embedding=dp.drop(0.5, per="call")))
    x = torch.randn(T, B, F)
    assert torch.equal(layer(x)[0], layer.eval()(x)[0])
