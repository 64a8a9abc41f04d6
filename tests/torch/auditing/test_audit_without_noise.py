"""A module without noise is audited with few runs, and seldom noise does not pass for none."""

import pytest
import torch
from dropout_policies_torch.auditing.probe import Probe
from torch import nn

import dropout_policies as dp
from dropout_policies.auditing.probing.discovery import discover_network
from dropout_policies.auditing.probing.training_comparison import TrainingComparison
from tests.support.torch_unusual import Around, ByHand


@pytest.fixture
def runs(monkeypatch):
    """The weights of every run, as they come."""
    weights = []
    run = Probe.run

    def count(self, given, *arguments, **more):
        weights.append(given)
        return run(self, given, *arguments, **more)

    monkeypatch.setattr(Probe, "run", count)
    return weights


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: nn.LSTM(192, 192, 2), 125),
        (lambda: nn.LSTM(24, 24, 3, bidirectional=True), 300),
        (lambda: nn.GRU(12, 16), 90),
    ],
)
def test_a_module_without_noise_takes_few_runs(make, most, runs):
    torch.manual_seed(0)
    audit = dp.audit(make())
    assert (audit.policy, audit.evaluation, audit.undecided) == ("none", "identity", ())
    assert len(runs) <= most


class Tied(nn.Module):
    """A language model whose decoder is the embedding's matrix."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(40, 12), nn.LSTM(12, 12)

    def forward(self, tokens):
        return self.lstm(self.embedding(tokens))[0] @ self.embedding.weight.T


def test_a_decoder_that_is_the_embedding_takes_few_runs(runs):
    """Signals for other measurements are in its matrix in the meantime."""
    torch.manual_seed(0)
    audit = dp.audit(Tied())
    assert (audit.policy, audit.undecided) == ("none", ())
    assert len(runs) <= 170


def lose_one(values):
    """Values `[..., F]` without one of them, whichever."""
    kept = torch.ones(values.numel())
    kept[torch.randint(values.numel(), ())] = 0.0
    return values * kept.reshape(values.shape)


LOST = {
    "input": lambda: Around(lose_one),
    "output": lambda: Around(after=lose_one),
    "hidden": lambda: ByHand(lambda m, x, h: m.W(x) + m.U(lose_one(h) if m.training else h)),
    "one gate": lambda: ByHand(
        lambda m, x, h: lose_one(m.W(x)) + m.U(h) if m.training else m.W(x) + m.U(h)
    ),
    "input of a wide layer": lambda: Around(lose_one, rnn=nn.LSTM(9, 200, 2)),
}


@pytest.mark.parametrize("name", LOST)
def test_one_lost_element_is_not_called_none(name):
    torch.manual_seed(0)
    audit = dp.audit(LOST[name]())
    assert audit.policy is None, str(audit)
    assert audit.verdict != "none"


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_few_calls_is_not_called_none(seed):
    def seldom(x):
        return nn.functional.dropout(x, 0.5) if torch.rand(()) < 0.25 else x

    torch.manual_seed(seed)
    audit = dp.audit(Around(seldom))
    assert audit.policy is None, str(audit)
    assert audit.at("input").verdict != "whole"
    assert audit.at("output").verdict == "whole"


def test_one_lost_element_shows_through_eight_layers():
    torch.manual_seed(0)
    with Probe(Around(lose_one, rnn=nn.LSTM(9, 9, 8))) as probe:
        comparison = TrainingComparison(probe, discover_network(probe), probe.noise())
        assert not comparison.all_same(16)


def test_a_mask_that_evaluation_has_too_is_found():
    """Training is as evaluation is, and one look at the connections shows the mask."""
    kept = torch.tensor([1.0, 0.0, 1.0] * 3)
    audit = dp.audit(Around(lambda x: x * kept, always=True))
    assert audit.at("input").verdict == "masked"
    assert audit.at("input").frozen
    assert audit.policy is None, str(audit)


@pytest.mark.parametrize("before", [True, False])
def test_onednn_is_on_again_afterwards_if_it_was(before, monkeypatch):
    seen = set()

    def look(x):
        seen.add(torch.backends.mkldnn.enabled)
        return x

    monkeypatch.setattr(torch.backends.mkldnn, "enabled", before)
    dp.audit(Around(look))
    assert seen == {False}
    assert torch.backends.mkldnn.enabled is before
