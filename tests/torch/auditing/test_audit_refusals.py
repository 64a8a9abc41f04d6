"""The audit refuses PyTorch modules that it cannot measure, and says why and what to do."""

import copy

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTM
from torch import nn

import dropout_policies as dp
from tests.support.torch_audited import Loop, Model
from tests.support.torch_unusual import Around, Starts, dropped


def test_a_refused_module_is_left_as_it_was():
    class Strange(Loop):
        def forward(self, x):
            return super().forward(x) ** 2

    module = Strange("zaremba")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(dp.PolicyError, match="cannot see into"):
        dp.audit(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.LSTMCell(3, 4), "one step"),
        (nn.Linear(3, 4), "never affects a later output"),
        (nn.Dropout(0.5), "no weights that are matrices: nothing to audit"),
        (nn.Conv1d(2, 3, 2), r"takes only Keras's ConvLSTM1D.*dp\.record\(model\)"),
        (nn.Sequential(nn.Embedding(5, 8), nn.Embedding(5, 8)), "2 embeddings"),
    ],
)
def test_other_modules_are_refused(module, words):
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(module)


def test_a_module_that_returns_its_last_step_alone_is_refused():
    class Last(Model):
        def forward(self, tokens):
            return super().forward(tokens)[:, -1]

    with pytest.raises(dp.PolicyError, match="not return an output for every step"):
        dp.audit(Last())


def test_noise_that_cannot_be_replayed_is_refused():
    class Own(Loop):
        def forward(self, x):
            noise = np.random.default_rng().random(x.shape) < 0.5
            return super().forward(x * torch.from_numpy(noise).to(x) if self.training else x)

    with pytest.raises(dp.PolicyError, match="cannot be repeated"):
        dp.audit(Own("none"))


def test_masks_in_evaluation_are_refused():
    class Always(LSTM):
        def train(self, mode=True):
            return super().train(mode or True)

    with pytest.raises(dp.PolicyError, match="evaluation is random"):
        dp.audit(Always(9, 8, policy="zaremba"))


class Branches(nn.Module):
    def __init__(self, connect):
        super().__init__()
        self.a, self.b, self.connect = nn.LSTM(9, 9), nn.LSTM(9, 9), connect

    def forward(self, x):
        return self.connect(self, x)


CHAIN = "one after the other, each once"


@pytest.mark.parametrize(
    ("connect", "words"),
    [
        (lambda m, x: dropped(m, m.a(x)[0]) + m.b(x)[0], CHAIN),
        (
            lambda m, x: torch.cat([m.a(dropped(m, x))[0], m.b(x)[0]], -1),
            "its output has 18 features, and 9 leave its last layer",
        ),
        (lambda m, x: m.b(dropped(m, m.a(x)[0]) + x)[0], CHAIN),
        (lambda m, x: m.b(m.a(dropped(m, m.a(x)[0]))[0])[0], CHAIN),
    ],
    ids=["sum", "side by side", "residual", "one layer twice"],
)
def test_branches_and_repeated_layers_are_refused(connect, words):
    torch.manual_seed(0)
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(Branches(connect))


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.LSTM(9, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Starts(torch.randn),
            r"two calls gave different outputs.*the initial state is random",
        ),
        (made_in_inference_mode, r"inference mode.*copy\.deepcopy\(module\)"),
        (
            lambda: Around(
                after=lambda y: y[..., :9] + y[..., 9:],
                rnn=nn.LSTM(9, 9, bidirectional=True),
                always=True,
            ),
            "its output has 9 features, and 18 leave its last layer",
        ),
        (
            lambda: nn.Sequential(nn.Linear(7, 9), Around()),
            r"0\.weight \(9, 7\) does not fit.*without what comes before",
        ),
        (
            lambda: Model(tied=True, words=10),
            r"embedding\.weight has too few rows for tokens and for its output",
        ),
    ],
    ids=["random state", "inference mode", "merged directions", "linear before", "few words"],
)
def test_a_refusal_says_what_was_seen(make, words):
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(make())


def test_half_precision_is_refused():
    with pytest.raises(dp.PolicyError, match=r"float16, which is too coarse.*\.float\(\)"):
        dp.audit(nn.LSTM(9, 8, 2, dropout=0.4).half())


def test_an_error_of_the_module_is_quoted_with_a_way_out():
    class Fails(Around):
        def forward(self, x):
            if self.training:
                raise LookupError("targets needed")
            return super().forward(x)

    module = Fails()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(dp.PolicyError, match=r"LookupError: targets needed.*layer alone"):
        dp.audit(module)
    assert module.training
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)
