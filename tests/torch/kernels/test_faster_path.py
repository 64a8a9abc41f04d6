"""Which of two ways a layer without a mask inside runs: by an operator or by PyTorch's kernel; and
that both give the same."""

import subprocess
import sys

import dropout_policies_torch as dpt
import pytest
import torch
from dropout_policies_kernels import cpu_kernels, operators, products
from dropout_policies_torch import recurrence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import dropout_policies as dp
from tests.support.torch_fuzz_run import threads

SIZE, BATCH = 6, 5
VERTICAL = ("zaremba", "locked", "weight_drop", "awd")
KINDS = {
    "LSTM": (dpt.LSTM, {}),
    "LSTM with a projection": (dpt.LSTM, {"proj_size": 4}),
    "GRU": (dpt.GRU, {}),
    "RNN, tanh": (dpt.RNN, {}),
    "RNN, relu": (dpt.RNN, {"nonlinearity": "relu"}),
}


@pytest.fixture
def ways(monkeypatch):
    """The ways in which each layer and direction ran, in order."""
    seen = []
    for module, name in ((recurrence, "_run_torch_kernel"), (operators, "run_operator")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, f=original, n=name: seen.append(n.strip("_")) or f(*args)
        )
    return seen


def layer(kind="GRU", policy="zaremba", **more):
    torch.manual_seed(0)
    made, arguments = KINDS[kind]
    return made(SIZE, SIZE, policy=policy, seed=1, **arguments, **more)


def sequence(steps, dtype=torch.float32):
    return torch.randn(steps, BATCH, SIZE, dtype=dtype)


LONG, SHORT = operators.MIN_STEPS, operators.MIN_STEPS - 1


@pytest.mark.parametrize("policy", VERTICAL)
@pytest.mark.parametrize("kind", ["GRU", "RNN, tanh", "LSTM with a projection"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_operator_runs_where_there_are_enough_steps(ways, kind, policy, bidirectional):
    one = layer(kind, policy, bidirectional=bidirectional)
    one(sequence(LONG))
    assert ways == ["run_operator"] * (1 + bidirectional)
    ways.clear()
    one(sequence(SHORT))
    assert ways == ["run_torch_kernel"] * (1 + bidirectional)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_without_a_mask_between_run_as_one_where_pytorchs_kernel_is_faster(
    ways, bidirectional
):
    made = layer("GRU", "weight_drop", num_layers=2, bidirectional=bidirectional)
    made(sequence(SHORT))
    assert ways == ["run_torch_kernel"]
    ways.clear()
    made(sequence(LONG))
    assert ways == ["run_operator"] * 2 * (1 + bidirectional)


def test_onednns_lstm_gives_way_in_training_alone_and_where_there_is_enough_to_multiply(
    ways, monkeypatch
):
    x, one = sequence(LONG), layer("LSTM")
    one(x)
    monkeypatch.setattr(operators, "MIN_PRODUCT", LONG * BATCH * 4 * SIZE * SIZE)
    one(x)
    with torch.no_grad():
        one(x)
    with threads(BATCH):
        monkeypatch.setattr(cpu_kernels, "FEW_THREADS", BATCH + 1)
        one(x)
    with threads(BATCH + 1):
        one(x)
    monkeypatch.setattr(operators, "MIN_PRODUCT", LONG * BATCH * 4 * SIZE * SIZE + 1)
    one(x)
    assert [each == "run_operator" for each in ways] == [False, True, False, True, False, False]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_other_types_than_onednns_need_no_large_products(ways, kind):
    layer(kind, dtype=torch.float64)(sequence(LONG, torch.float64))
    assert ways == ["run_operator"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_of_a_packed_batch_no_more_than_as_much_again_may_be_padding(ways, kind):
    one, steps = layer(kind), 2 * LONG
    for lengths, expected in (
        ([steps, steps // 2, steps // 2, steps // 4, steps // 4], "run_operator"),  # exactly
        ([steps, steps // 2, steps // 2, steps // 4, steps // 4 - 1], "run_torch_kernel"),
        ([steps] * BATCH, "run_operator"),
    ):
        ways.clear()
        one(pack_padded_sequence(sequence(steps), lengths))
        assert ways == [expected]


def test_what_leaves_python_or_is_watched_runs_pytorchs_kernel(ways):
    from torch.utils.flop_counter import FlopCounterMode

    one, x = layer(), sequence(LONG)
    with torch.autocast("cpu", torch.bfloat16):
        one(x)
    with FlopCounterMode(display=False):
        one(x)
    torch.jit.trace(dpt.GRU(SIZE, SIZE, policy="zaremba"), x, check_trace=False)
    torch.func.jvp(lambda each: one(each)[0], (x,), (x,))
    assert set(ways) == {"run_torch_kernel"}
    assert len(ways) >= 4


def test_where_threads_share_each_product_pytorchs_kernel_runs(ways, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "runs_per_thread", lambda _: False)
    layer()(sequence(LONG))
    assert ways == ["run_torch_kernel"]


FEW = 3
"""`MAX_LOOP_STEPS` as users have it."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_are_run_by_the_plain_loop(kind, monkeypatch):
    """With masks inside the recurrence too; and it gives the same, backwards as well."""
    seen, original = [], recurrence._run_loop
    monkeypatch.setattr(recurrence, "_run_loop", lambda *args: seen.append(1) or original(*args))
    for steps, by_loop in ((1, True), (FEW, True), (FEW + 1, False)):
        made, x = layer(kind, "variational"), sequence(steps)
        found = []
        for limit in (0, FEW):
            monkeypatch.setattr(operators, "MAX_LOOP_STEPS", limit)
            made.calls = 0
            seen.clear()
            found.append(results(made, x))
            assert bool(seen) == (by_loop and limit == FEW)
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_in_graphs_and_in_half_precision_a_few_steps_are_an_operators(ways, monkeypatch):
    monkeypatch.setattr(operators, "MAX_LOOP_STEPS", FEW)
    x = sequence(FEW)
    with torch.autocast("cpu", torch.bfloat16):
        layer("GRU", "variational")(x)
    layer("GRU", "variational", dtype=torch.bfloat16)(x.bfloat16())
    assert ways == ["run_operator"] * 2


def test_users_get_these_limits():
    """The tests beside this one change the first."""
    code = "from dropout_policies_kernels import operators as o; print(o.MAX_LOOP_STEPS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == FEW


@pytest.mark.parametrize("kind", KINDS)
def test_in_evaluation_and_at_rate_0_a_layer_is_the_stock_one_bit_for_bit(kind, monkeypatch):
    monkeypatch.setattr(operators, "MIN_PRODUCT", 0)
    made, arguments = KINDS[kind]
    stock = getattr(nn, made.__name__)(SIZE, SIZE, 2, **arguments)
    x = sequence(2 * LONG)
    for rate, training in ((0.5, False), (0.0, True)):
        ours = made(SIZE, SIZE, 2, policy="zaremba", rate=rate, **arguments).train(training)
        ours.load_state_dict(stock.state_dict())
        for found, expected in zip(results(ours, x), results(stock, x), strict=True):
            assert torch.equal(found, expected)


def results(made, x):
    """What a layer returns, and the gradients of its input and its weights."""
    x = x.detach().clone().requires_grad_()
    given = x
    if isinstance(made, Packed):
        made, given = made.layer, pack_padded_sequence(x, made.lengths, enforce_sorted=False)
    y, end = made(given)
    end = end if isinstance(end, tuple) else (end,)
    parts = [y.data if isinstance(y, PackedSequence) else y, *end]
    total = sum(part.sin().sum() for part in parts)
    return [*parts, *torch.autograd.grad(total, [x, *made.parameters()])]


class Packed:
    """A layer and the lengths of the sequences that it gets."""

    def __init__(self, made, lengths):
        self.layer, self.lengths = made, lengths


def both_ways(subject, made, x):
    """The results of a call by operators, and by PyTorch's kernels."""
    found = []
    for least_steps in (1, len(x) + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(operators, "MIN_STEPS", least_steps)
            patch.setattr(operators, "MIN_PRODUCT", 0)
            patch.setattr(operators, "MAX_PADDING", 10**6)
            made.calls = 0
            found.append(results(subject, x))
    return found


def check_both_ways(subject, made, x):
    tolerance = 2e-5 if x.dtype is torch.float32 else 1e-11
    for by_operator, by_kernel in zip(*both_ways(subject, made, x), strict=True):
        most = tolerance * (1.0 + float(by_kernel.abs().max()))
        torch.testing.assert_close(by_operator, by_kernel, rtol=0, atol=most)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(KINDS)),
    policy=st.sampled_from(VERTICAL),
    layers=st.integers(1, 2),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    steps=st.integers(1, 70),
    packed=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_both_ways_give_the_same(
    dtype, kind, policy, layers, bias, bidirectional, steps, packed, seed
):
    """Outputs, last states and gradients, to rounding. With 70 steps the input's product is
    computed in several parts."""
    torch.manual_seed(seed)
    made, arguments = KINDS[kind]
    ours = made(
        SIZE, SIZE, layers, bias=bias, bidirectional=bidirectional, policy=policy, seed=seed,
        dtype=dtype, **arguments,
    )  # fmt: skip
    x = torch.randn(steps, BATCH, SIZE, dtype=dtype)
    subject = Packed(ours, torch.randint(1, steps + 1, (BATCH,))) if packed else ours
    check_both_ways(subject, ours, x)


def _without_bias(patch):
    original = products.InputWeight
    patch.setattr(products, "InputWeight", lambda weight, _: original(weight, None))


def _first_chunk_again(patch):
    """As if the input of the first steps were that of all."""
    original = Tensor.contiguous

    def contiguous(x, *args):
        copied = original(x, *args)
        if copied.dim() != 3 or len(copied) != 64:
            return copied
        return torch.cat([copied[:32], copied[:32]])

    patch.setattr(Tensor, "contiguous", contiguous)


@pytest.mark.parametrize("mutant", [_without_bias, _first_chunk_again])
def test_a_wrong_operator_is_noticed(mutant, monkeypatch):
    ours, x = layer("GRU"), sequence(64)
    check_both_ways(ours, ours, x)
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check_both_ways(ours, ours, x)


def test_a_penalty_on_gradients_is_differentiated_through_an_operator(ways):
    """As in WGAN-GP: gradients of gradients, which the plain loop computes."""
    one, x = layer(dtype=torch.float64), sequence(LONG, torch.float64).requires_grad_()

    def penalty(least_steps):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(operators, "MIN_STEPS", least_steps)
            one.calls = 0
            (grad,) = torch.autograd.grad(one(x)[0].sin().sum(), x, create_graph=True)
            return torch.autograd.grad(grad.square().sum(), one.weight_hh_l0)[0]

    torch.testing.assert_close(penalty(1), penalty(LONG + 1), rtol=0, atol=1e-11)
    assert {"run_operator", "run_torch_kernel"} <= set(ways)


def test_both_ways_have_the_same_masks(ways):
    one, x = layer(), sequence(LONG)
    drawn = []
    for least_steps in (1, LONG + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(operators, "MIN_STEPS", least_steps)
            one.calls = 0
            with dp.record(one) as record:
                one(x)
            drawn.append(record)
    (first,), (second,) = (each.values() for each in drawn)
    assert ways == ["run_operator", "run_torch_kernel"]
    for ours, theirs in zip(first, second, strict=True):
        assert all((ours[slot] == theirs[slot]).all() for slot in ours)
