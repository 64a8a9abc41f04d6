"""The operators of whole sequences: what PyTorch requires of one, and every kind of derivative."""

import ctypes
import mmap
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import dropout_policies_torch as dpt
import pytest
import torch
from dropout_policies_kernels import (
    cells,
    compiled,
    cpu_kernels,
    cpu_products,
    kernel_selection,
    lstm_operator,
    operators,
    products,
    rnn_operator,
    time_steps,
)
from dropout_policies_kernels.compiled import load_c_functions
from dropout_policies_kernels.gru_operator import gru
from dropout_policies_kernels.lstm_operator import lstm
from dropout_policies_kernels.operator_arguments import (
    OPERATOR_SITES,
    GRUInputs,
    LSTMInputs,
    LSTMMasks,
    RNNInputs,
    make_grouping,
)
from dropout_policies_kernels.rnn_operator import rnn_relu, rnn_tanh
from dropout_policies_kernels.sequence_kernel import KernelArrays
from dropout_policies_torch import recurrence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.compilation import libraries
from tests.support import torch_subject
from tests.support.cases import Case, numbers
from tests.support.torch_fuzz_run import threads

T, B, D, H = 4, 3, 2, 3
SINGLE = {torch.float32: 3e-5, torch.float64: 1e-12}
OPERATORS = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn_tanh, "RNN_RELU": rnn_relu}
GROUPINGS = {
    "LSTM": make_grouping(LSTMInputs),
    "GRU": make_grouping(GRUInputs),
    "RNN_TANH": make_grouping(RNNInputs),
    "RNN_RELU": make_grouping(RNNInputs),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
WITH_PROJECTION = "LSTM with a projection"
LAYERS = (*OPERATORS, WITH_PROJECTION)
MASKED = (None, "tied", "untied")


def mode_of(layer):
    """PyTorch's name for the kind of layer of one of `LAYERS`."""
    return "LSTM" if layer == WITH_PROJECTION else layer


def run_operator(layer, *flat):
    """Call an operator with its arguments one by one, as `arguments` makes them."""
    *inputs, needs_backward = flat
    mode = mode_of(layer)
    return OPERATORS[mode](GROUPINGS[mode](inputs), needs_backward)


def count_values(layer):
    """How many arguments stand before the masks: x, the states and the weights."""
    return {"LSTM": 7, "GRU": 6}.get(mode_of(layer), 5)


def arguments(layer, seed, masked="tied", requires_grad=True, steps=T, batch=B, size=H):
    """An operator's arguments: x, the states, the weights, its masks, whether it runs in reverse,
    and whether a backward pass may follow.

    `masked` is one of `MASKED`: what masks there are, and whether each gate has its own of x and h.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape, scale=1.0):
        made = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return made.requires_grad_(requires_grad)

    mode = mode_of(layer)
    gates, width = GATES[mode], 2 if layer == WITH_PROJECTION else size
    values = [drawn(steps, batch, D), drawn(batch, width)]
    values += [drawn(batch, size)] * (mode == "LSTM")
    values += [drawn(gates * size, D), drawn(gates * size, width, scale=width**-0.5)]
    values += [drawn(gates * size) for _ in range(2 if mode == "GRU" else 1)]
    if mode == "LSTM":
        values.append(drawn(width, size) if layer == WITH_PROJECTION else None)
    widths = {dp.Site.INPUT: D, dp.Site.HIDDEN: width, dp.Site.STATE: width}
    widths[dp.Site.HIDDEN_UPDATE] = width
    masks = []
    for n, site in enumerate(OPERATOR_SITES[mode]):
        columns = widths.get(site, size)
        untied = masked == "untied" and site in (dp.Site.INPUT, dp.Site.HIDDEN)
        columns *= gates if untied else 1
        shape = (1 if n % 2 else steps, batch, columns)
        mask = torch.rand(*shape, generator=generator, dtype=torch.float64)
        # A mask of x for all gates falls on it before.
        masks.append(mask if masked and (untied or site is not dp.Site.INPUT) else None)
    return [*values, *masks, bool(seed % 2), True]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("masked", MASKED)
def test_an_operator_passes_pytorchs_checks(layer, masked):
    operator = OPERATORS[mode_of(layer)].library_operator
    torch.library.opcheck(operator, arguments(layer, 1, masked))


def function_of(operator, form):
    """The function of flat arguments that an operator calls eagerly, or in graphs."""
    return operator.autograd_function.apply if form == "eager" else operator.library_operator


def differentiable(layer, form, seed, masked):
    """An operator as a function of what comes before its masks, and these arguments."""
    *values, reverse, needs_backward = arguments(layer, seed, masked)
    operator, count = function_of(OPERATORS[mode_of(layer)], form), count_values(layer)

    def function(*inputs):
        return operator(*inputs, *values[count:], reverse, needs_backward)[:2]

    return function, values[:count]


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("form", ["eager", "in graphs"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("masked", MASKED)
def test_gradients_are_right(layer, form, seed, masked):
    assert torch.autograd.gradcheck(*differentiable(layer, form, seed, masked), fast_mode=True)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("form", ["eager", "in graphs"])
@pytest.mark.parametrize("masked", MASKED)
def test_gradients_of_gradients_are_right(layer, form, masked):
    """Of whichever steps: the plain loop computes them."""
    function, values = differentiable(layer, form, 1, masked)
    assert torch.autograd.gradgradcheck(function, values, fast_mode=True)


POLICIES = {
    "naive": dp.naive(),
    "zoneout": dp.zoneout(0.5, 0.3),
    "rnndrop": dp.rnndrop(),
    "everything": dp.variational() | dp.semeniuta() | dp.weight_drop(),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("lengths", [None, (2, 4, 1)])
def test_a_layer_is_differentiated_forwards_and_twice(policy, lengths):
    case = Case(POLICIES[policy], steps=T, layers=1, lengths=lengths, initial_state=False)
    layer = torch_subject.build(case, numbers(case))

    def function(x):
        layer.calls = 0
        return torch_subject.call(layer, case, x, None)[0]

    x = torch.from_numpy(numbers(case).x).requires_grad_()
    forwards = lengths is None  # PyTorch's packing has no forward mode
    assert torch.autograd.gradcheck(function, (x,), check_forward_ad=forwards, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x,), fast_mode=True)


@pytest.fixture(params=["compiled", "compiled, all at once", "by PyTorch's own functions"])
def steps(request, monkeypatch):
    """The ways in which an operator runs its steps on a CPU."""
    if request.param == "by PyTorch's own functions":
        monkeypatch.setattr(kernel_selection, "select_kernel", lambda *_: None)
        return
    assert load_c_functions(torch.float32) is not None, "the tests need a C compiler"
    at_once = request.param == "compiled, all at once"
    monkeypatch.setattr(cpu_kernels, "runs_per_thread", lambda _: at_once)


@pytest.mark.parametrize("dtype", SINGLE)
@settings(max_examples=60)
@given(
    layer=st.sampled_from(LAYERS),
    masked=st.sampled_from(MASKED),
    batch=st.integers(1, 40),
    size=st.integers(1, 40),
    number=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_all_steps_at_once_are_the_steps_one_by_one(
    dtype, layer, masked, batch, size, number, seed
):
    """However many samples each thread has, however many units fill a vector; also for none. (With
    a projection, PyTorch's own functions run the steps one by one.)"""
    *values, reverse, _ = arguments(
        layer, seed, masked, batch=batch, size=size, requires_grad=False
    )
    cast = [None if each is None else each.to(dtype) for each in values]
    count, runs, found = count_values(layer), [], []
    for at_once in (True, False):
        with pytest.MonkeyPatch.context() as patch, threads(number):
            patch.setattr(cpu_kernels, "runs_per_thread", lambda _, on=at_once: on)
            kernel = cpu_kernels.PerThreadKernel
            original = kernel._run_all_steps
            patch.setattr(
                kernel, "_run_all_steps", lambda *args, f=original: runs.append(1) or f(*args)
            )
            given = [
                None if each is None else each.detach().clone().requires_grad_()
                for each in cast[:count]
            ]
            hs, end, *_ = run_operator(layer, *given, *cast[count:], reverse, True)
            wanted = [each for each in given if each is not None]
            grads = torch.autograd.grad(hs.sin().sum() + end.cos().sum(), wanted)
            found.append([hs, end, *grads])
    assert len(runs) == 2  # a forward and a backward pass
    for ours, theirs in zip(*found, strict=True):
        most = SINGLE[dtype] * (1.0 + float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=most)


def before_protected_memory(x):
    """A copy that ends where protected memory begins: a process that reads on dies."""
    size, page = x.numel() * x.element_size(), mmap.PAGESIZE
    memory = mmap.mmap(-1, (-(-size // page) + 1) * page)
    protected = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + len(memory) - page
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(protected), ctypes.c_size_t(page), 0) == 0
    offset = len(memory) - page - size
    copied = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=offset)
    return copied.view(x.shape).copy_(x)


@pytest.mark.parametrize("dtype", SINGLE)
@settings(max_examples=60)
@given(
    columns=st.integers(1, 70),
    depth=st.integers(1, 70),
    number=st.integers(1, 3),
    form=st.sampled_from(["rows", "columns", "both apart"]),
    biased=st.booleans(),
)
def test_a_weight_is_packed_in_panels(dtype, columns, depth, number, form, biased):
    """Each has a bias or zeros, and below it as many columns as fill a vector, or zeros."""
    made = torch.arange(1.0, 4 * columns * depth + 1, dtype=dtype).view(2 * columns, 2 * depth)
    weight = before_protected_memory(made[:columns, :depth])
    if form == "columns":
        weight = before_protected_memory(weight.t()).t()
    elif form == "both apart":
        weight = made[::2, ::2]
    bias = torch.arange(-2.0 * columns, 0.0, dtype=dtype)[1::2] if biased else None
    with threads(number):
        found = cpu_products.pack_in_panels(weight, bias)
    lanes = load_c_functions(dtype).lanes()
    assert found.shape == (-(-columns // lanes), 1 + depth, lanes)
    flat = found.transpose(1, 2).flatten(0, 1)  # [⌈columns/lanes⌉ * lanes, 1 + depth]
    torch.testing.assert_close(flat[:columns, 1:], weight, rtol=0, atol=0)
    expected = torch.zeros(columns, dtype=dtype) if bias is None else bias
    torch.testing.assert_close(flat[:columns, 0], expected, rtol=0, atol=0)
    assert not flat[columns:].any()


@pytest.mark.parametrize("dtype", SINGLE)
@settings(max_examples=100)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 60),
    width=st.integers(1, 60),
    padding=st.integers(0, 20),
    first=st.integers(0, 20),
    max_rows=st.integers(1, 50),
    number=st.integers(1, 3),
)
def test_outer_products_are_summed(dtype, rows, columns, width, padding, first, max_rows, number):
    """Of small integers the sum is exact, however many rows are summed at once, and where the
    columns are a part of a larger array. The other columns change nothing, and nothing beyond the
    array is read."""
    generator = torch.Generator().manual_seed(0)
    x = before_protected_memory(torch.randint(-9, 10, (rows, width), generator=generator).to(dtype))
    d = before_protected_memory(
        torch.full((rows, first + columns + padding), torch.nan, dtype=dtype)
    )
    d = d[:, first : first + columns]
    d.copy_(torch.randint(-9, 10, d.shape, generator=generator))
    with pytest.MonkeyPatch.context() as patch, threads(number):
        patch.setattr(cpu_products, "prefers_mkl", lambda: False)
        patch.setattr(cpu_products, "MAX_ROWS", max_rows)
        summed = Mock(wraps=cpu_products.sum_outer_products)
        patch.setattr(cpu_products, "sum_outer_products", summed)
        found = products.sum_outer_products(d, x)
    summed.assert_called_once()
    torch.testing.assert_close(found, d.t() @ x, rtol=0, atol=0)


def test_a_weight_is_packed_once():
    for weight in (
        products.RecurrentWeight(torch.ones(5, 3), 2),
        products.InputWeight(torch.ones(5, 3), torch.ones(5)),
    ):
        assert weight.panels is weight.panels


@pytest.mark.parametrize("mkl", [False, True])
@pytest.mark.parametrize("intel", [False, True])
def test_mkl_computes_products_on_intels_processors_alone(mkl, intel, monkeypatch):
    functions = SimpleNamespace(is_intel=lambda: int(intel))
    cpu_products.prefers_mkl.cache_clear()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(cpu_products, "load_c_functions", lambda _: functions)
    assert cpu_products.prefers_mkl() is (mkl and intel)
    cpu_products.prefers_mkl.cache_clear()
    monkeypatch.setattr(cpu_products, "load_c_functions", lambda _: None)
    assert not cpu_products.prefers_mkl()
    cpu_products.prefers_mkl.cache_clear()


def test_each_thread_runs_its_own_samples_if_there_are_enough():
    cases = ((1, 1, True), (2, 1, True), (3, 14, False), (3, 15, True), (4, 20, True))
    for number, batch, expected in cases:
        state, gates = torch.zeros(batch, 3), torch.zeros(2, batch, 12)
        with threads(number):
            assert cpu_kernels.runs_per_thread(state) == expected
            kernel = cpu_kernels.PerThreadKernel if expected else cpu_kernels.PerStepCPUKernel
            weight = products.RecurrentWeight(torch.zeros(12, 3), batch)
            selected = kernel_selection.select_kernel("lstm", gates, state, weight)
            assert selected is kernel
            selected = kernel_selection.select_kernel(
                "lstm", gates, state, weight, torch.zeros(2, 3)
            )
            assert selected is (kernel if expected else None)


def test_without_threads_in_the_compiled_functions_each_product_is_shared():
    """As where PyTorch's threads are not OpenMP's."""
    functions = load_c_functions(torch.float32)
    assert functions.has_threads() == 1
    functions.use_threads(None, None, None)
    libraries.compiled_library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libraries, "openmp", lambda: None)
        patch.setattr(cpu_products, "prefers_mkl", lambda: False)
        assert load_c_functions(torch.float32).has_threads() == 0
        with threads(1):
            assert cpu_kernels.runs_per_thread(torch.zeros(64, 3))
            assert cpu_products.supports(torch.zeros(64, 3))
        with threads(2):
            with pytest.warns(dp.PolicyWarning, match="on one thread"):
                assert not cpu_kernels.runs_per_thread(torch.zeros(64, 3))
            assert not cpu_products.supports(torch.zeros(64, 3))
    libraries.compiled_library.cache_clear()
    assert load_c_functions(torch.float32).has_threads() == 1


def results(run, layer, values, dtype, needs_backward=True, in_loss=slice(None)):
    """What a function such as `operators.run_operator` returns, and the gradients of what comes
    before the masks.

    `values` are those of `arguments` without the last. The loss depends on `in_loss` of the
    results.
    """
    *values, reverse = values
    mode, count = mode_of(layer), count_values(layer)
    states = 2 if mode == "LSTM" else 1
    given = [
        each.detach().to(dtype).requires_grad_(needs_backward)
        for each in values[:count]
        if each is not None
    ]
    x, start, (w_ih, w_hh, bias, *rest) = given[0], given[1 : 1 + states], given[1 + states :]
    second, *projection = rest if mode == "GRU" else [0 * bias, *rest]
    weights = cells.Weights(w_ih, w_hh, bias, second, *projection)
    sites = zip(OPERATOR_SITES[mode], values[count:], strict=True)
    masks = {site: mask.to(dtype) for site, mask in sites if mask is not None}
    hs, end = run(mode, weights, x, tuple(start), masks, reverse)
    if not needs_backward:
        return [hs, *end]
    loss = sum(each.sin().sum() for each in (hs, *end)[in_loss])
    return [hs, *end, *torch.autograd.grad(loss, given)]


def by_loop(*given):
    """The plain loop, called as `operators.run_operator` is."""
    *first, reverse = given
    return recurrence._run_loop(*first, dp.Site.INPUT, None, reverse)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("dtype", SINGLE)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layer=st.sampled_from(LAYERS),
    masked=st.sampled_from(MASKED),
    seed=st.integers(0, 10**6),
    needs_backward=st.booleans(),
    in_loss=st.sampled_from([slice(None), slice(0, 1), slice(1, None)]),
)
def test_an_operator_equals_the_plain_loop(dtype, layer, masked, seed, needs_backward, in_loss):
    """Whatever the loss depends on: the whole result, every h alone, or the last state alone."""
    *values, _ = arguments(layer, seed, masked, requires_grad=False)
    how = (needs_backward, in_loss)
    found = results(operators.run_operator, layer, values, dtype, *how)
    expected = results(by_loop, layer, values, torch.float64, *how)
    for ours, theirs in zip(found, expected, strict=True):
        most = SINGLE[dtype] * (1.0 + float(theirs.abs().max()))
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=most)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("layer", LAYERS)
def test_batched_gradients_equal_single_ones(layer):
    """As for a Jacobian: `torch.autograd.functional.jacobian(..., vectorize=True)`."""
    given = arguments(layer, 1, "untied")
    hs, end, *_ = run_operator(layer, *given)
    generator = torch.Generator().manual_seed(0)
    grad_outputs = [torch.randn(2, *each.shape, generator=generator).double() for each in (hs, end)]
    wanted = [each for each in given[: count_values(layer)] if each is not None]
    gradients = partial(torch.autograd.grad, (hs, end), wanted, retain_graph=True)
    by_autograd = gradients(grad_outputs, is_grads_batched=True)
    by_func = torch.func.vmap(lambda *each: gradients(each))(*grad_outputs)
    for number, one_by_one in enumerate(map(gradients, zip(*grad_outputs, strict=True))):
        for ours, again, theirs in zip(by_autograd, by_func, one_by_one, strict=True):
            assert not ours.requires_grad
            torch.testing.assert_close(ours[number], theirs, rtol=0, atol=1e-12)
            torch.testing.assert_close(again[number], theirs, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("layer", ["LSTM", WITH_PROJECTION, "RNN_TANH", "RNN_RELU"])
@pytest.mark.parametrize("form", ["eager", "in graphs"])
def test_saved_gates_are_overwritten_by_the_last_backward_pass_alone(
    layer, form, request, monkeypatch
):
    """In graphs, and where PyTorch's own functions run the steps, no pass overwrites them."""
    module = lstm_operator if mode_of(layer) == "LSTM" else rnn_operator
    original, addresses = module._grad_gates, []

    def grad_gates(*given):
        found = original(*given)
        saved = next(each for each in given if hasattr(each, "gates"))
        addresses.append((saved.gates.data_ptr(), found[0].data_ptr()))
        return found

    monkeypatch.setattr(module, "_grad_gates", grad_gates)
    given = arguments(layer, 0)
    hs, end, *_ = function_of(OPERATORS[mode_of(layer)], form)(*given)
    loss = hs.sin().sum() + end.cos().sum()
    wanted = [each for each in given[: count_values(layer)] if each is not None]
    *first, last = (
        torch.autograd.grad(loss, wanted, retain_graph=retained) for retained in (True, True, False)
    )
    for again in first:
        for ours, theirs in zip(last, again, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    compiled_ones = "PyTorch" not in request.node.name
    compiled_ones &= layer != WITH_PROJECTION or "at once" in request.node.name
    overwritten = [gates == grad_gates for gates, grad_gates in addresses]
    assert overwritten == [False, False, compiled_ones and form == "eager"]


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("seed", [0, 1], ids=["forward", "backward"])
def test_where_nothing_is_saved_a_long_sequence_runs_in_chunks(layer, seed, request, monkeypatch):
    """Unless a kernel computes the input's part of the gates beside the steps."""
    made = products.linear
    rows = []
    monkeypatch.setattr(products, "linear", lambda x, *rest: rows.append(len(x)) or made(x, *rest))
    *given, _ = arguments(layer, seed, requires_grad=False, steps=time_steps.CHUNK_ROWS)
    whole, rows[:] = run_operator(layer, *given, True), []
    chunked = run_operator(layer, *given, False)
    beside_the_steps = "at once" in request.node.name
    # Chunks: there are B * CHUNK_ROWS rows of x in all.
    assert len(rows) == (0 if beside_the_steps else B)
    assert sum(rows) == (0 if beside_the_steps else time_steps.CHUNK_ROWS)
    for all_at_once, by_chunk in zip(whole[:2], chunked[:2], strict=True):
        torch.testing.assert_close(by_chunk, all_at_once, rtol=0, atol=1e-12)


def test_large_weights_are_packed_and_small_ones_need_not_be(monkeypatch):
    """The products are the same below and above the size from which weights are packed."""
    generator = torch.Generator().manual_seed(0)
    x, d = (torch.randn(6, width, generator=generator) for width in (5, 8))
    weight, bias = torch.randn(8, 5, generator=generator), torch.randn(8, generator=generator)
    strided = torch.randn(8, 9, generator=generator)[:, 2:7]
    for large in (0, 2**60):
        monkeypatch.setattr(products, "MIN_PACKED_ENTRIES", large)
        for w in (weight, strided, weight.t().contiguous().t()):
            torch.testing.assert_close(products.linear(x, w, bias), x @ w.t() + bias)
            recurrent, biased = (products.RecurrentWeight(w, 6, b) for b in (None, bias))
            torch.testing.assert_close(recurrent.multiply(x), x @ w.t())
            torch.testing.assert_close(biased.multiply(x), x @ w.t() + bias)
            torch.testing.assert_close(recurrent.add_product(d.clone(), x), d + x @ w.t())
        wide = torch.cat([d, d], dim=1)[:, :8]
        for compiled_ones in (True, False):
            monkeypatch.setattr(cpu_products, "supports", lambda *_, on=compiled_ones: on)
            torch.testing.assert_close(products.sum_outer_products(wide, x), d.t() @ x)


@pytest.mark.parametrize("kernel", [cpu_kernels.PerThreadKernel, cpu_kernels.PerStepCPUKernel])
@pytest.mark.parametrize("dtype", SINGLE)
def test_compiled_activations_are_as_exact_as_their_type(dtype, kernel):
    """In an LSTM of zero weights whose biases are all the input: h = o * tanh(i * g)."""
    x = torch.cat([10.0 ** torch.arange(-30, 3), torch.linspace(0, 30, 500), torch.tensor([200.0])])
    x = torch.cat([x, -x]).to(dtype)
    steps, zero = torch.zeros(1, len(x), 1, dtype=dtype), torch.zeros(len(x), 1, dtype=dtype)
    full = torch.full((len(x),), 50.0, dtype=dtype)  # a gate wide open
    for gate, expected in ((2, x.double().tanh().tanh()), (0, None), (3, None)):
        by_gate = [full.clone() for _ in range(4)]
        by_gate[gate] = x
        gates = torch.stack(by_gate, dim=-1)[None].contiguous()
        hs, cs, tanh_cell = (torch.empty_like(steps) for _ in range(3))
        arrays = KernelArrays(gates, hs, cs=cs, tanh_cell=tanh_cell, c0=zero)
        run = kernel("lstm", zero, LSTMMasks(*[None] * 7), range(1), arrays, True)
        run.forward(products.RecurrentWeight(torch.zeros(4, 1, dtype=dtype), len(x)))
        one = torch.ones(1, dtype=torch.float64)
        if gate == 0:
            expected = x.double().sigmoid().tanh()
        elif gate == 3:
            expected = x.double().sigmoid() * one.tanh()
        tiny = torch.finfo(dtype).tiny
        torch.testing.assert_close(
            hs[0, :, 0].double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=tiny * 10
        )


def test_a_nan_stays_a_nan():
    for layer in LAYERS:
        *values, reverse, _ = arguments(layer, 3, masked=None, requires_grad=False)
        values = [value if value is None else value.float() for value in values]
        values[0][1, 2] = float("nan")
        hs = run_operator(layer, *values, reverse, False)[0]
        assert hs[1, 2].isnan().all()
        assert not hs[:, :2].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_layers_in_half_precision_are_computed_in_single_precision(dtype, monkeypatch):
    """Where there are functions in C, which have no half precision."""
    x, weights = torch.zeros(2, 3, D, dtype=dtype), cells.Weights(*torch.zeros(2, 12, 3))
    computing = operators.computing_dtype
    assert computing(dtype, x, weights) is torch.float32
    assert computing(torch.float64, x.double(), weights) is torch.float64
    with monkeypatch.context() as patch:
        patch.setattr(products, "MIN_PACKED_ENTRIES", 1)
        assert computing(dtype, x, weights) is dtype
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "has_c_functions", lambda: False)
        assert computing(dtype, x, weights) is dtype


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_half_precision_comes_back_in_its_type(kind, large, monkeypatch):
    monkeypatch.setattr(products, "MIN_PACKED_ENTRIES", 1 if large else 2**60)
    layer = getattr(dpt, kind)(3, 4, policy=dp.naive(), seed=1, dtype=torch.bfloat16)
    x = torch.randn(5, 2, 3, dtype=torch.bfloat16, requires_grad=True)
    y, end = layer(x)
    y.float().sum().backward()
    found = [y, *(end if kind == "LSTM" else [end]), x.grad, *(w.grad for w in layer.parameters())]
    assert {each.dtype for each in found} == {torch.bfloat16}


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("form", ["eager", "in graphs"])
@pytest.mark.parametrize("masked", MASKED)
def test_autocast_changes_no_product_of_an_operator(layer, form, masked):
    """Whether the forward pass, the backward pass or both run under it."""
    operator, count = function_of(OPERATORS[mode_of(layer)], form), count_values(layer)
    given = [
        each.detach().float() if isinstance(each, torch.Tensor) else each
        for each in arguments(layer, 1, masked)
    ]
    found = []
    for forwards, backwards in ((False, False), (True, False), (False, True), (True, True)):
        wanted = [None if each is None else each.requires_grad_() for each in given[:count]]
        wanted = [each for each in wanted if each is not None]
        with torch.autocast("cpu", torch.bfloat16, enabled=forwards):
            hs, end, *_ = operator(*given)
        with torch.autocast("cpu", torch.bfloat16, enabled=backwards):
            grads = torch.autograd.grad((hs, end), wanted, (hs.detach(), end.detach()))
        found.append([hs, end, *grads])
    for others in found[1:]:
        for ours, theirs in zip(others, found[0], strict=True):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [dpt.LSTM, dpt.GRU, dpt.RNN])
def test_a_unit_that_zoneout_keeps_has_its_value_bit_for_bit(kind):
    policy = dp.Policy(hidden_update=dp.Rule(0.5, kind="zoneout"))
    layer = kind(5, 8, policy=policy)
    with dp.record(layer) as masks:
        y, _ = layer(torch.randn(9, 4, 5))
    ((drawn,),) = ([*call.values()] for calls in masks.values() for call in calls)
    kept = torch.from_numpy(drawn == 1)
    assert (y[0][kept[0]] == 0).all(), "of the initial state"
    for t in range(1, 9):
        assert torch.equal(y[t][kept[t]], y[t - 1][kept[t]])
        assert not (y[t] == y[t - 1])[~kept[t]].any()
