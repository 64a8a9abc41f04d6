"""What a user of PyTorch reads who passes something else than a model, a policy or a rate."""

import functools

import pytest
import torch
from dropout_policies_torch import GRU, LSTM, RNN, Embedding, LSTMCell, Unrolled
from torch import nn

import dropout_policies as dp
from tests.core.test_messages import POLICIES, RATES


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4)

    def forward(self, x):
        return self.rnn(x)[0]


X = torch.zeros(5, 2, 3)

COMPILED = [
    (lambda: torch.jit.script(Tagger()), "Tagger is scripted, .* first, and then call torch.jit.s"),
    (lambda: torch.jit.script(nn.LSTM(3, 4)), "LSTM is scripted, and so not Python any more"),
    (lambda: torch.jit.trace(Tagger().eval(), X), "Tagger is traced, .* then call torch.jit.trace"),
    (lambda: torch.jit.trace(nn.LSTM(3, 4).eval(), X), "LSTM is traced, and so not Python any"),
    (
        lambda: torch.export.export(Tagger().eval(), (X,)).module(),
        "is a graph of operations, .* first, and then call torch.export",
    ),
    (
        lambda: torch.export.export(Tagger().eval(), (X,)),
        "ExportedProgram; this is what torch.export made of a model",
    ),
    (
        lambda: nn.Sequential(torch.jit.script(nn.LSTM(3, 4))),
        "It has 0 .*: scripted, and so not Python any more: put the policy on before torch.jit.sc",
    ),
    (
        lambda: nn.Sequential(torch.jit.trace(nn.LSTM(3, 4).eval(), X)),
        "It has 0 .*: traced, and so not Python any more: put the policy on before torch.jit.tr",
    ),
]

OTHERS = [
    (lambda: Tagger, r"the class Tagger; create the model first: model = Tagger\(\.\.\.\)"),
    (lambda: nn.LSTM, r"the class LSTM; create the model first"),
    (lambda: [Tagger(), Tagger()], r"a list of 2 items \(Tagger\); pass one model at a time"),
    (lambda: Tagger().children(), r"an iterator \(generator\); pass one model at a time"),
    (lambda: functools.partial(nn.LSTM, 3, 4), r"a functools\.partial of LSTM; call it"),
    (lambda: Tagger().forward, r"the method Tagger\.forward; pass the model itself"),
    (lambda: Tagger().state_dict(), r"with the keys 'rnn\.weight_ih_l0', .*; if these are wei"),
    (lambda: torch.jit.script(identity), r"ScriptFunction; this is what torch\.jit made"),
    (lambda: X, r"model of type torch\.Tensor; pass the model itself"),
]


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize(("make", "words"), [*COMPILED, *OTHERS])
@pytest.mark.parametrize("function", [dp.apply, dp.wiring], ids=["apply", "wiring"])
def test_a_wrong_model_is_described(function, make, words):
    with pytest.raises(dp.PolicyError, match=words):
        function(make())


@pytest.mark.parametrize(("make", "words"), OTHERS)
def test_so_is_one_to_remove_from_or_to_audit(make, words):
    for function in (dp.remove, dp.audit, lambda model: dp.sequence(model).__enter__()):
        with pytest.raises(dp.PolicyError, match=words):
            function(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.ModuleList([Tagger(), Tagger()]),
        lambda: nn.ModuleDict({"a": Tagger()}),
        lambda: nn.DataParallel(Tagger()),
        lambda: torch.compile(Tagger()),
        lambda: torch.fx.symbolic_trace(Tagger()),
    ],
)
def test_a_model_that_holds_models_is_one(make):
    model = make()
    assert "input, output 0.5 per step" in str(dp.apply(model, "zaremba"))
    dp.remove(model)


@pytest.mark.parametrize(
    "make", [lambda: torch.jit.trace(Tagger().eval(), X), lambda: torch.fx.symbolic_trace(Tagger())]
)
def test_a_model_that_is_no_python_code_can_be_audited(make):
    assert dp.audit(make()).policy == "none"


LAYERS = {
    "LSTM": lambda **arguments: LSTM(3, 4, **arguments),
    "GRU": lambda **arguments: GRU(3, 4, **arguments),
    "RNN": lambda **arguments: RNN(3, 4, **arguments),
    "LSTMCell": lambda **arguments: LSTMCell(3, 4, **arguments),
    "Unrolled": lambda **arguments: Unrolled(nn.GRUCell(3, 4), **arguments),
    "Embedding": lambda **arguments: Embedding(3, 4, **arguments),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_describes_a_wrong_policy_as_apply_does(layer):
    for policy, words in POLICIES:
        with pytest.raises(dp.PolicyError, match=words):
            LAYERS[layer](policy=policy)
    with pytest.raises(dp.PolicyError, match=r"a layer has one policy: policy='zaremba'\. dp\.ap"):
        LAYERS[layer](policy={"rnn*": "zaremba"})


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_describes_a_wrong_rate_as_apply_does(layer):
    for rate, words in RATES:
        with pytest.raises(dp.PolicyError, match=words):
            LAYERS[layer](policy="zaremba", rate=rate)
    for rate in (0.1 + 0.2, torch.tensor(0.3), 30, "0.3"):
        with pytest.raises(
            dp.PolicyError, match=r"goes with a policy.* policy='zaremba', rate=0\.3"
        ):
            LAYERS[layer](rate=rate)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_describes_a_wrong_seed_as_apply_does(layer):
    for seed in (-3, 3.5, torch.tensor(3), "3"):
        with pytest.raises(dp.PolicyError, match=r"Received: seed=.*; write: seed=3, or leave"):
            LAYERS[layer](policy="awd", seed=seed)


def test_a_tensor_as_a_rate_is_shown_as_the_number_that_it_holds():
    with pytest.raises(dp.PolicyError, match=r"tensor\(0\.3000\); write: rate=0\.3\.$"):
        dp.apply(Tagger(), "zaremba", rate=torch.tensor(0.3))


def test_numbers_of_a_report_are_those_that_were_typed():
    model = nn.Sequential(nn.LSTM(3, 4, num_layers=2, dropout=0.1 + 0.2))
    report = str(dp.apply(model, "zaremba", rate=float(torch.tensor(0.65))))
    assert "0.65 per step" in report
    assert "dropout=0.3" in report.split()
    with pytest.raises(dp.PolicyError, match=r"Received: dropout=0\.3; give the .* rate=0\.3, or"):
        model[0].dropout = 0.1 + 0.2
