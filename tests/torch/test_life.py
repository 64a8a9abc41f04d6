"""Life around a layer under a policy: saved, copied, compiled, exported, spread over processes."""

import copy
import io
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from dropout_policies_torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, same_masks
from safetensors.torch import load, save
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropout_policies as dp

T, B, D, H = 6, 4, 3, 5
KINDS = [LSTM, GRU, RNN]
EVERYWHERE = dp.variational(gates="untied") | dp.weight_drop() | dp.Policy(state=dp.drop(0.2))
"""Noise inside the loop, on the weights, and where it is read and left."""


def first(found):
    return found[0] if isinstance(found, tuple) else found


def model(kind, policy=EVERYWHERE, seed=3, **arguments):
    torch.manual_seed(0)
    return kind(D, H, num_layers=2, policy=policy, seed=seed, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_to_the_stock_layer_and_back(kind):
    ours = model(kind)
    stock = getattr(nn, kind.__name__)(D, H, num_layers=2)
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(T, B, D)
    assert torch.equal(ours.eval()(x)[0], stock(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [EVERYWHERE, dp.awd(), dp.rnndrop() | dp.zoneout()])
def test_copies_draw_on_where_the_layer_was(kind, policy):
    if kind is not LSTM and dp.Site.CELL in policy:
        policy = dp.zoneout(cell=0.0)
    ours, x = model(kind, policy), torch.randn(T, B, D)
    ours(x)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    expected = ours(x)[0]
    for other in copies:
        assert other.calls == 1
        assert torch.equal(other(x)[0], expected)


def test_checkpoints_are_plain_tensors():
    ours, file = model(LSTM, dp.awd()), io.BytesIO()
    ours(torch.randn(T, B, D))
    torch.save(ours.state_dict(), file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert read.keys() == nn.LSTM(D, H, num_layers=2).state_dict().keys()
    again = load(save(ours.state_dict()))
    model(LSTM).load_state_dict(again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("policy", ["zaremba", "everywhere", "scheduled"])
def test_one_graph_holds_a_compiled_call_and_its_masks(kind, seed, policy):
    """fullgraph=True; Dynamo passes no subclass of nn.RNNBase without allow_rnn."""
    rise = dp.Policy(input=dp.drop(dp.schedule({0: 0.1, 1: 0.5, 2: 0.9})))
    chosen = {"zaremba": dp.zaremba(), "everywhere": EVERYWHERE, "scheduled": rise}[policy]
    ours, x = model(kind, chosen, seed), torch.randn(3, B, D)
    expected = copy.deepcopy(ours)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
        outputs = []
        for call in range(3):
            # The number of the call is no part of the graph.
            with torch._dynamo.config.patch(error_on_recompile=call == 2):
                y = compiled(x)[0]
            assert ours.calls == call + 1
            outputs.append(y.detach())
            if seed is not None:
                y.sum().backward()
                stock = expected(x)[0]
                stock.sum().backward()
                torch.testing.assert_close(y, stock)
                for a, b in zip(ours.parameters(), expected.parameters(), strict=True):
                    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


UNTIED = dp.variational(gates="untied")


@pytest.mark.parametrize(
    ("make", "operator"),
    [
        (partial(LSTM, D, H, policy=UNTIED), "lstm"),
        (partial(LSTM, D, H, proj_size=2, policy="naive"), "lstm"),
        (partial(GRU, D, H, policy=UNTIED), "gru"),
        (partial(RNN, D, H, policy="naive"), "rnn_tanh"),
        (partial(RNN, D, H, nonlinearity="relu", policy="naive"), "rnn_relu"),
    ],
    ids=["masks for each gate", "projection", "GRU, masks for each gate", "RNN", "RNN, relu"],
)
def test_a_graph_holds_one_operator_for_a_layer(make, operator):
    torch._dynamo.reset()
    layer, x, seen = make(seed=3), torch.randn(T, B, D), []
    expected = copy.deepcopy(layer)

    def backend(graph, _):
        names = (str(node.target) for node in graph.graph.nodes)
        seen.extend(name for name in names if name.startswith("dropout_policies."))
        return graph

    with torch._dynamo.config.patch(allow_rnn=True):
        y, _ = torch.compile(layer, backend=backend, fullgraph=True)(x)
    assert [name for name in seen if "draw" not in name] == [f"dropout_policies.{operator}.default"]
    torch.testing.assert_close(y, expected(x)[0])


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell, RNNCell])
def test_a_cell_compiles_into_one_graph(kind):
    torch.manual_seed(0)
    cell = kind(D, H, policy="naive", seed=3)
    expected, x = copy.deepcopy(cell), torch.randn(B, D)
    torch._dynamo.reset()
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(first(compiled(x)), first(expected(x)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["awd", "zoneout"])
def test_evaluation_is_exported(kind, policy):
    rate = {"cell_update": 0.0} if policy == "zoneout" and kind is not LSTM else None
    ours = model(kind, dp.resolve(policy, rate)).eval()
    x = torch.randn(T, B, D)
    exported = torch.export.export(ours, (x,))
    torch.testing.assert_close(exported.module()(x)[0], ours(x)[0])


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("policy", ["zaremba", "everywhere"])
def test_checkpointing_computes_again_with_the_same_masks(seed, policy):
    chosen = dp.zaremba() if policy == "zaremba" else EVERYWHERE
    plain, x = model(LSTM, chosen, seed), torch.randn(T, B, D)
    saved = copy.deepcopy(plain)
    for layer in (plain, saved):
        torch.manual_seed(1)
        loss = 0.0
        for _ in range(2):  # the second window's masks are drawn before the first is computed again
            if layer is plain:
                y = layer(x)[0]
            else:
                how = {"context_fn": lambda: same_masks(saved)} if seed is not None else {}
                y = checkpoint(lambda x: saved(x)[0], x, use_reentrant=False, **how)
            loss = loss + y.pow(2).sum()
        loss.backward()
        assert layer.calls == 2
    for a, b in zip(plain.parameters(), saved.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_checkpointing_with_keys_and_unsaid_is_refused():
    layer, x = model(LSTM), torch.randn(T, B, D)
    loss = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False).sum()
    with pytest.raises(dp.PolicyError, match="context_fn=lambda: same_masks"):
        loss.backward()


def test_gradients_add_up_over_calls():
    """Each micro-batch is a call of its own, with its own masks and rows from 0 on."""
    layer, x = model(LSTM), torch.randn(T, 2 * B, D)
    parts = []
    for part in x.split(B, dim=1):
        layer(part)[0].sum().backward()
        parts.append([p.grad.clone() for p in layer.parameters()])
    layer.calls, total = 0, model(LSTM)
    for part in x.split(B, dim=1):
        grads = torch.autograd.grad(layer(part)[0].sum(), list(layer.parameters()))
        for p, g in zip(total.parameters(), grads, strict=True):
            p.grad = g if p.grad is None else p.grad + g
    for p, g in zip(total.parameters(), parts[1], strict=True):
        torch.testing.assert_close(p.grad, g)
    layer.zero_grad()
    layer.calls = 0
    for part in x.split(B, dim=1):
        layer.calls = 0  # the masks of the first call for both
        layer(part)[0].sum().backward()
    assert not torch.allclose(layer.weight_hh_l0.grad, total.weight_hh_l0.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_layers_and_autocast_train(kind, dtype):
    x = torch.randn(T, B, D)
    narrow = model(kind, dtype=dtype)
    y = narrow(x.to(dtype))[0]
    assert y.dtype == dtype
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in narrow.parameters())
    wide = model(kind)
    with torch.autocast("cpu", dtype=dtype):
        y = wide(x)[0]
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in wide.parameters())


TWO_PROCESSES = """
import sys, torch, torch.distributed as dist, numpy as np
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import dropout_policies as dp

rank, world, port, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.manual_seed(0)
torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, num_layers=2), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


model = Model()
policy = dp.variational(gates="untied") | dp.weight_drop() | dp.Policy(state=dp.drop(0.2))
dp.apply(model, policy, seed=7)
x, target = torch.randn(6, 8, 3), torch.randn(6, 8, 2)
rows = 8 // world
mine = slice(rank * rows, (rank + 1) * rows)
model.rnn.row_offset = rank * rows
wrapped = model
if world > 1:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    wrapped = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for _ in range(4):
    loss = (wrapped(x[:, mine]) - target[:, mine]).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total = loss.detach()
    if world > 1:
        dist.all_reduce(total)
    losses.append(total.item() / world)
if rank == 0:
    np.save(file, losses)
"""


def test_two_processes_train_as_one(tmp_path):
    """DDP over gloo: the same masks row for row, and so the same losses."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")

    def start(rank, world, file):
        command = [sys.executable, script, str(rank), str(world), port, file]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    for world in (1, 2):
        ranks = [start(rank, world, tmp_path / f"{world}.npy") for rank in range(world)]
        for process in ranks:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output.decode()
    one, two = np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy")
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert one[0] != one[1]


@pytest.mark.parametrize(
    ("kind", "operator", "dynamo"), [(LSTM, "LSTM", True), (GRU, "GRU", True), (RNN, "RNN", False)]
)
@pytest.mark.filterwarnings("ignore")  # the exporters' own
def test_evaluation_goes_to_onnx_as_standard_operators(kind, operator, dynamo, tmp_path):
    """As the stock layer does. PyTorch's newer exporter takes nn.RNN apart, the older does not."""
    ours, stock = model(kind, dp.awd()).eval(), getattr(nn, kind.__name__)(D, H, num_layers=2)
    stock.load_state_dict(ours.state_dict())
    x, outputs = torch.randn(T, B, D), []
    for number, layer in enumerate((ours, stock.eval())):
        file = str(tmp_path / f"{number}.onnx")
        torch.onnx.export(layer, (x,), file, dynamo=dynamo, verbose=False)
        graph = onnx.load(file)
        assert [node.op_type for node in graph.graph.node].count(operator) == 2
        names = [given.name for given in graph.graph.input]
        found = onnx.reference.ReferenceEvaluator(graph).run(None, {names[0]: x.numpy()})
        outputs.append(found[0])
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0], ours(x)[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("policy", [dp.zoneout(0.0, 0.3), dp.zoneout(0.3, 0.3) | dp.rnndrop()])
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_evaluation_that_is_not_the_stock_layers_is_exported_too(policy, dynamo, tmp_path):
    kind = LSTM if dp.Site.CELL in policy else GRU
    layer, x, file = model(kind, policy).eval(), torch.randn(3, B, D), str(tmp_path / "model.onnx")
    torch.onnx.export(layer, (x,), file, dynamo=dynamo, verbose=False)
    graph = onnx.load(file)
    (name, *_) = [given.name for given in graph.graph.input]
    y, *_ = onnx.reference.ReferenceEvaluator(graph).run(None, {name: x.numpy()})
    np.testing.assert_allclose(y, layer(x)[0].detach().numpy(), atol=1e-5)
    program = torch.export.export(layer, (x,))
    assert "dropout_policies" not in program.graph_module.code
    torch.testing.assert_close(program.module()(x)[0], layer(x)[0])


@pytest.mark.parametrize("policy", ["zaremba", "naive", "zoneout"])
def test_torch_func_differentiates_a_layer(policy):
    layer, x = model(LSTM, dp.resolve(policy)), torch.randn(T, B, D)
    parameters = dict(layer.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(layer, parameters, (x,))[0].pow(2).sum()

    found = torch.func.grad(loss)(parameters)
    layer.calls = 0
    layer(x)[0].pow(2).sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["zaremba", "naive", "weight_drop"])
def test_an_empty_batch_is_one(kind, policy):
    layer = model(kind, dp.resolve(policy))
    y = layer(torch.randn(T, 0, D))[0]
    assert y.shape == (T, 0, H)
    y.sum().backward()


def test_a_layer_made_on_the_meta_device_counts_on_the_cpu():
    with torch.device("meta"):
        layer = LSTM(D, H, policy="naive", seed=3)
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(T, B, D)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert layer.calls == 2


def test_a_policy_applied_in_inference_mode_trains_outside():
    layer = nn.LSTM(D, H)
    with torch.inference_mode():
        dp.apply(layer, "zaremba", seed=3)
        layer(torch.randn(T, B, D))
    layer(torch.randn(T, B, D))[0].sum().backward()
    assert layer.calls == 2


def test_evaluation_can_be_checkpointed_as_the_stock_layer_can():
    layer, x = model(LSTM, dp.zoneout()).eval(), torch.randn(T, B, D, requires_grad=True)
    checkpoint(lambda x: layer(x)[0], x, use_reentrant=False).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_state_of_another_kind_of_layer_is_refused():
    with pytest.raises(RuntimeError, match=r"LSTM: the state must be h and c. Received: 1"):
        model(LSTM)(torch.randn(T, B, D), torch.zeros(2, B, H))
    with pytest.raises(RuntimeError, match=r"GRU: the state must be h. Received: 2"):
        model(GRU)(torch.randn(T, B, D), (torch.zeros(2, B, H), torch.zeros(2, B, H)))
