"""Traces, scripts, exported programs and vmapped calls: right, or refused."""

import io
import warnings

import onnx
import pytest
import torch
from dropout_policies_torch import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    GRUCell,
    LSTMCell,
    RNNCell,
    Unrolled,
)
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import dropout_policies as dp

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
POLICIES = ("zaremba", "locked", "variational", "naive", "semeniuta", "rnndrop", "zoneout", "awd")
T, B, D, H = 6, 4, 8, 8


def x_of(steps=T, batch=B):
    return torch.randn(steps, batch, D, generator=torch.Generator().manual_seed(steps + batch))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_trace_in_training_draws_anew(policy):
    layer, x = LSTM(D, H, num_layers=2, policy=policy), x_of()
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    first, second = traced(x)[0], traced(x)[0]
    assert first.shape == (T, B, H)
    assert not torch.equal(first, second)
    torch.jit.save(traced, io.BytesIO())


def test_a_trace_in_training_drops_at_the_rate():
    layer, x = LSTM(D, 64, policy="zaremba", rate=0.3), x_of(20, 16)
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    shares = [float((traced(x)[0] == 0).float().mean()) for _ in range(5)]
    assert all(abs(share - 0.3) < 0.03 for share in shares), shares


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_a_trace_takes_other_batches_and_other_lengths_or_refuses_them(policy, training):
    layer = LSTM(D, H, policy=policy).train(training)
    traced = torch.jit.trace(layer, (x_of(),), check_trace=False)
    for steps, batch in ((T, 1), (T, B + 3), (1, B), (T + 2, B), (T - 2, B)):
        x = x_of(steps, batch)
        try:
            y, (h, _) = traced(x)
        except RuntimeError:
            assert steps != T, "another batch is no reason"
            continue
        assert y.shape == (steps, batch, H)
        assert h.shape == (1, batch, H)
        if not training:
            torch.testing.assert_close(y, layer(x)[0])


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
@pytest.mark.parametrize("policy", ["zoneout", "rnndrop", "zaremba"])
def test_a_trace_in_evaluation_is_the_layer(kind, policy):
    if kind is not LSTM:
        policy = dp.zoneout(cell=0, hidden=0.2) if policy == "zoneout" else "zaremba"
    layer, x = kind(D, H, num_layers=2, bidirectional=True, policy=policy).eval(), x_of()
    traced = torch.jit.trace(layer, (x,))
    torch.testing.assert_close(traced(x)[0], layer(x)[0])


KEYED = [
    lambda: (LSTM(D, H, policy="zaremba", seed=1), x_of()),
    lambda: (GRU(D, H, policy="variational", seed=1), x_of()),
    lambda: (LSTM(D, H, policy=dp.zaremba(dp.schedule({0: 0.1, 5: 0.5}))), x_of()),
    lambda: (LSTMCell(D, H, policy=dp.Policy(input=dp.drop(0.5)), seed=1), x_of()[0]),
    lambda: (Unrolled(nn.GRUCell(D, H), policy="zaremba", seed=1), x_of()),
    lambda: (Embedding(9, H, policy="awd", seed=1), torch.zeros(3, 2, dtype=torch.long)),
]


@pytest.mark.parametrize("make", KEYED)
def test_keyed_masks_are_refused_in_a_trace(make):
    """Its every run would be the same call again."""
    module, x = make()
    for trace in (
        lambda: torch.jit.trace(module, (x,), check_trace=False),
        lambda: make_fx(lambda x: module(x))(x),
        lambda: torch.onnx.export(
            module,
            (x,),
            io.BytesIO(),
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
        ),
    ):
        with pytest.raises(dp.PolicyError, match="a trace fixes the number of a call"):
            trace()
    assert module.calls == 0


def test_masks_that_are_held_may_be_traced():
    layer, x = LSTM(D, H, policy="zaremba").eval(), x_of()
    with dp.monte_carlo(layer, hold=True, seed=3):
        expected = layer(x)[0]
        traced = torch.jit.trace(layer, (x,))
    torch.testing.assert_close(traced(x)[0], expected)


@pytest.mark.parametrize("policy", ["zaremba", "variational", "weight_drop"])
def test_onnx_in_training_mode_draws_its_masks(policy):
    layer, file = LSTM(D, H, policy=policy), io.BytesIO()
    training = torch.onnx.TrainingMode.TRAINING
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (x_of(),), file, dynamo=False, training=training)
    nodes = {node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node}
    assert nodes & {"RandomUniform", "RandomUniformLike"}, nodes


@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("policy", ["zaremba", "variational", "naive"])
def test_make_fx_draws_anew(kind, policy):
    layer, x = kind(D, H, policy=policy), x_of()
    graph = make_fx(lambda x: layer(x)[0])(x)
    first, second = graph(x), graph(x)
    assert not torch.equal(first, second)
    assert 0.1 < float((first == 0).float().mean()) < 0.9


class Recorder(TorchDispatchMode):
    """Hears of every operation, as profilers, tracers and counters do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("policy", ["zaremba", "variational", "zoneout"])
def test_a_dispatch_mode_changes_no_number(kind, policy):
    if kind is GRU and policy == "zoneout":
        policy = dp.zoneout(cell=0, hidden=0.2)
    layer, x = kind(D, H, policy=policy, seed=1), x_of().requires_grad_()

    def results():
        layer.calls = 0
        y, _ = layer(x)
        return y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])

    expected = results()
    with Recorder():
        found = results()
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted)


class Net(nn.Module):
    def __init__(self, layer, pick=True):
        super().__init__()
        self.rnn, self.head, self.pick = layer, nn.Linear(H, 2), pick

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class CellNet(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        return self.cell(x)


LAYERS = [
    lambda **more: LSTM(D, H, num_layers=2, bidirectional=False, **more),
    lambda **more: LSTM(D, 12, proj_size=H, **more),
    lambda **more: GRU(D, H, batch_first=True, **more),
    lambda **more: RNN(D, H, **more),
    lambda **more: RNN(D, H, nonlinearity="relu", **more),
]


@pytest.mark.parametrize("policy", [None, "zaremba", "variational"])
@pytest.mark.parametrize("make", LAYERS)
def test_a_scripted_layer_is_the_stock_layer_in_evaluation(make, policy):
    net, x = Net(make(policy=policy)).eval(), x_of()
    scripted = torch.jit.script(net)
    assert torch.equal(scripted(x), net(x))
    assert torch.equal(scripted(x[:, 0]), net(x[:, 0])), "unbatched"
    torch.jit.save(torch.jit.freeze(scripted), io.BytesIO())
    layer = torch.jit.script(net.rnn)
    _, state = net.rnn(x)
    assert torch.equal(layer(x, state)[0], net.rnn(x, state)[0])
    assert type(net.rnn).__module__.startswith("dropout_policies_torch"), "the model is untouched"


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, RNNCell])
def test_a_scripted_cell_is_the_stock_cell(make):
    cell, x = make(D, H, policy=dp.Policy(hidden=dp.drop(0.5))).eval(), x_of()[0]
    net = CellNet(cell)
    scripted = torch.jit.script(net)
    for given in (x, x[0]):
        torch.testing.assert_close(scripted(given), net(given), rtol=0, atol=0)
    state = cell(x)
    torch.testing.assert_close(torch.jit.script(cell)(x, state), cell(x, state), rtol=0, atol=0)


def test_a_scripted_embedding_is_the_stock_one():
    for more in ({}, {"policy": "awd"}):
        layer = Embedding(9, H, padding_idx=0, **more).eval()
        tokens = torch.tensor([[0, 3], [8, 1]])
        assert torch.equal(torch.jit.script(layer)(tokens), layer(tokens))


def test_a_policy_at_work_is_not_scripted_away():
    nets = [
        Net(LSTM(D, H, policy="zaremba")),
        Net(GRU(D, H, policy="variational", seed=1)),
        Net(LSTM(D, H, policy="zoneout").eval()),
        CellNet(LSTMCell(D, H, policy=dp.Policy(hidden=dp.drop(0.5)))),
        CellNet(Embedding(9, H, policy="awd")),
    ]
    for net in nets:
        for _ in range(3):
            with pytest.raises(dp.PolicyError, match="script"):
                torch.jit.script(net)
    with pytest.raises(dp.PolicyError, match="TorchScript"):
        torch.jit.script(Unrolled(nn.GRUCell(D, H)).eval())
    applied = dp.apply(stock := Net(nn.LSTM(D, H)), "zaremba")
    with pytest.raises(dp.PolicyError, match="script"):
        torch.jit.script(stock)
    applied.remove()
    torch.jit.script(stock)


@pytest.mark.parametrize("policy", [None, "zaremba", "zoneout"])
@pytest.mark.parametrize("training", [True, False])
def test_symbolic_tracing_sees_one_piece(policy, training):
    net, x = Net(LSTM(D, H, policy=policy)).train(training), x_of()
    graph = torch.fx.symbolic_trace(net)
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls == ["rnn", "head"]
    torch.manual_seed(0)
    expected = net(x)
    torch.manual_seed(0)
    assert torch.equal(graph(x), expected)


def test_symbolic_tracing_of_the_other_modules():
    for module, x in (
        (CellNet(GRUCell(D, H, policy=dp.Policy(hidden=dp.drop(0.5)))), x_of()[0]),
        (CellNet(Embedding(9, H, policy="awd")), torch.zeros(3, 2, dtype=torch.long)),
        (Net(Unrolled(nn.GRUCell(D, H), policy="zaremba")), x_of()),
    ):
        graph = torch.fx.symbolic_trace(module)
        torch.manual_seed(0)
        expected = module(x)
        torch.manual_seed(0)
        assert torch.equal(graph(x), expected)


class Twice(nn.Module):
    """Calls one layer twice, with a state that is passed on."""

    def __init__(self, layer):
        super().__init__()
        self.rnn = layer

    def forward(self, x):
        y, state = self.rnn(x)
        return self.rnn(y, state)[0]


@pytest.mark.parametrize("policy", ["zaremba", "variational"])
def test_an_exported_program_counts_its_own_calls(policy):
    net, x = Twice(LSTM(D, H, policy=policy, seed=3)), x_of()
    net(x)
    program = torch.export.export(net, (x,))
    assert net.rnn.calls == 2
    run = program.module()
    first = [run(x) for _ in range(2)]
    assert net.rnn.calls == 2
    for found in first:
        torch.testing.assert_close(found, net(x))
    # A second program goes on from where the layer is now, and leaves the first alone.
    again = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(again(x), run(x))
    assert net.rnn.calls == 6


def test_an_exported_program_follows_a_schedule():
    layer, x = LSTM(D, 64, policy=dp.zaremba(dp.schedule({0: 0.1, 2: 0.9}))), x_of(10, 8)
    run = torch.export.export(layer, (x,)).module()
    shares = [float((run(x)[0] == 0).float().mean()) for _ in range(4)]
    assert layer.calls == 0
    assert max(shares[:2]) < 0.3
    assert min(shares[2:]) > 0.7


def test_a_strict_export_of_keyed_masks_is_refused():
    layer, x = LSTM(D, H, policy="zaremba", seed=3), x_of()
    with pytest.raises(Exception, match="strict=False"):
        torch.export.export(layer, (x,), strict=True)
    assert layer.calls == 0
    program = torch.export.export(LSTM(D, H, policy="zaremba"), (x,), strict=True).module()
    assert not torch.equal(program(x)[0], program(x)[0])


PER_SAMPLE = [
    lambda: (LSTM(D, H, policy="variational", seed=1), lambda x: x[:, None]),
    lambda: (GRU(D, H, policy="zaremba", seed=1), lambda x: x[:, None]),
    lambda: (LSTM(D, H, policy="weight_drop", seed=1), lambda x: x),
    lambda: (GRUCell(D, H, policy=dp.Policy(hidden=dp.drop(0.5)), seed=1), lambda x: x[0]),
    lambda: (Unrolled(nn.GRUCell(D, H), policy="zaremba", seed=1), lambda x: x[:, None]),
]


def first_of(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("make", PER_SAMPLE)
def test_keyed_masks_are_refused_under_vmap(make):
    """Each sample would have the masks of row 0."""
    module, shape = make()
    weights = {name: w.detach() for name, w in module.named_parameters()}
    x = x_of().transpose(0, 1)  # [B, T, D]

    def loss(weights, one):
        return first_of(functional_call(module, weights, (shape(one),))).square().sum()

    calls = (
        lambda: vmap(grad(loss), (None, 0), randomness="different")(weights, x),
        lambda: vmap(loss, (None, 0), randomness="same")(weights, x),
        lambda: grad(lambda w: vmap(loss, (None, 0), randomness="same")(w, x).sum())(weights),
        # An ensemble: many weights, one input.
        lambda: vmap(loss, (0, None), randomness="same")(
            {name: torch.stack([w, w]) for name, w in weights.items()}, x[0]
        ),
    )
    for call in calls:
        with pytest.raises(dp.PolicyError, match="vmap"):
            call()
    assert module.calls == 0


def test_other_transformations_take_keyed_masks():
    """Derivatives of one call are of one call."""
    layer, x = LSTM(D, H, policy="variational", seed=1), x_of(3, 2)

    def y(x):
        layer.calls = 0
        return layer(x)[0][-1].sum(-1)

    expected = torch.autograd.functional.jacobian(y, x)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(jacobian(y)(x), expected)


def test_unseeded_masks_differ_from_sample_to_sample():
    layer = LSTM(D, H, policy="zaremba")
    x = torch.ones(B, T, D)
    y = vmap(lambda one: layer(one[:, None])[0], randomness="different")(x)
    kept = y != 0
    assert not any(torch.equal(kept[0], kept[b]) for b in range(1, B))


def test_a_call_in_a_backward_pass_says_what_it_may_be():
    layer = LSTM(D, H, policy="zaremba", seed=1)
    h = nn.Linear(D, D)(x_of())
    h.register_hook(lambda g: (layer(h.detach()), g)[1])
    with pytest.raises(dp.PolicyError) as raised:
        h.sum().backward()
    message = str(raised.value)
    assert "may be activation checkpointing" in message
    assert "hook" in message
    assert "seed" in message


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_is_quantized_once_its_policy_is_removed():
    model, x = nn.Sequential(nn.LSTM(D, H)), x_of()
    applied = dp.apply(model, "zaremba")
    quantize = torch.ao.quantization.quantize_dynamic
    assert type(quantize(model.eval(), {nn.LSTM})[0]) is LSTM, "PyTorch looks for the exact class"
    applied.remove()
    quantized = quantize(model, {nn.LSTM})
    assert "quantized" in type(quantized[0]).__module__
    torch.testing.assert_close(quantized(x)[0], model(x)[0], atol=0.1, rtol=0.1)
