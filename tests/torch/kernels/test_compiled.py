"""Functions in C: what happens without a compiler, or on tensors without memory; and which threads
they run on."""

import ctypes
import re
import shutil

import pytest
import torch
from dropout_policies_kernels.compiled import C_SOURCE, describe, load_c_functions
from dropout_policies_torch import GRU, LSTM
from torch._subclasses.fake_tensor import FakeTensorMode

import dropout_policies as dp
from dropout_policies.compilation import libraries


@pytest.mark.parametrize("reason", ["no compiler", "one that fails", "forbidden"])
def test_without_a_compiler_layers_run_all_the_same(reason, monkeypatch, recwarn):
    def trained():
        torch.manual_seed(0)
        layer = LSTM(3, 3, policy="variational", seed=1)
        y, _ = layer(torch.randn(4, 2, 3))
        y.sum().backward()
        return y, layer.weight_hh_l0.grad

    assert load_c_functions(torch.float32) is not None, "the tests need a C compiler"
    expected = trained()
    if reason == "forbidden":
        monkeypatch.setenv("DROPOUT_POLICIES_COMPILE", "0")
    else:
        monkeypatch.setenv("CC", "false" if reason == "one that fails" else "there-is-none")
    libraries.compiled_library.cache_clear()
    try:
        assert load_c_functions(torch.float32) is None
        torch.testing.assert_close(trained(), expected)
        warned = [each for each in recwarn if each.category is dp.PolicyWarning]
        assert len(warned) == (reason != "forbidden")
    finally:
        libraries.compiled_library.cache_clear()


@pytest.mark.parametrize("policy", ["zaremba", "variational"])
def test_tensors_without_memory_are_left_to_pytorch(policy):
    """A tracer's tensors have only shapes and types."""
    with FakeTensorMode():
        layer = LSTM(3, 5, policy=policy, seed=1)
        y, _ = layer(torch.zeros(4, 2, 3))
        y.sum().backward()
    assert y.shape == (4, 2, 5)
    assert layer.weight_hh_l0.grad.shape == (20, 5)


COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]


@pytest.mark.parametrize("cc", COMPILERS)
def test_every_compilers_functions_run_on_pytorchs_threads(cc, monkeypatch):
    """Whatever OpenMP runtime that compiler has."""
    monkeypatch.setenv("CC", cc)
    library = libraries.Libraries()
    assert library(C_SOURCE).has_threads() == 1
    assert library(C_SOURCE, "-DDOUBLE").has_threads() == 1
    for source in C_SOURCE.parent.glob("*.c"):
        assert not re.search(r"^\s*#\s*pragma omp", source.read_text(), re.MULTILINE), source


PART = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PARALLEL = ctypes.CFUNCTYPE(None, PART, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
NUMBER = ctypes.CFUNCTYPE(ctypes.c_int)


class SerialRuntime:
    """An OpenMP runtime that has no more than `max_threads` threads, and runs them one by one."""

    def __init__(self, max_threads):
        self.requested = []
        self.thread, self.threads = 0, 1

        def parallel(part, data, threads, _):
            self.requested.append(threads)
            self.threads = min(threads, max_threads)
            for thread in reversed(range(self.threads)):
                self.thread = thread
                part(data)

        self.functions = (PARALLEL(parallel), NUMBER(lambda: self.thread), NUMBER(self.count))

    def count(self):
        return self.threads


@pytest.mark.parametrize("max_threads", [1, 2, 3, 50])
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_no_number_of_threads_changes_a_result(kind, max_threads, monkeypatch):
    """Nor does a runtime that has fewer threads than requested."""

    def trained(threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        layer = kind(5, 4, policy="naive", seed=1)
        with torch.no_grad():
            for number, weight in enumerate(layer.parameters()):
                weight.copy_(torch.arange(weight.numel()).reshape(weight.shape).sin() + number)
        x = torch.arange(6 * 40 * 5.0).reshape(6, 40, 5).cos().requires_grad_()
        y, last = layer(x)
        (y.square().sum() + sum(each.sum() for each in last)).backward()
        return y, x.grad, *(weight.grad for weight in layer.parameters())

    functions, runtime = load_c_functions(torch.float32), SerialRuntime(max_threads)
    expected = trained(1)
    try:
        functions.use_threads(*runtime.functions)
        assert not runtime.requested
        for threads in (2, 3, 7):
            runtime.requested.clear()
            for got, wanted in zip(trained(threads), expected, strict=True):
                torch.testing.assert_close(got, wanted)
            assert set(runtime.requested) == {threads}
    finally:
        functions.use_threads(*map(ctypes.c_void_p, libraries.openmp()))


def test_a_description_says_what_runs(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert describe()["threads"] == 3
    assert describe()["steps on a CPU"] == "functions in C, on all threads"
    functions = load_c_functions(torch.float32)
    functions.use_threads(None, None, None)
    try:
        assert describe()["steps on a CPU"] == "functions in C, on 1 thread"
    finally:
        functions.use_threads(*map(ctypes.c_void_p, libraries.openmp()))
    monkeypatch.setenv("DROPOUT_POLICIES_COMPILE", "0")
    libraries.compiled_library.cache_clear()
    try:
        assert describe()["steps on a CPU"] == "PyTorch's own functions"
        torch_lines = dp.show_config("dicts")["torch"]
        assert torch_lines == describe()
    finally:
        libraries.compiled_library.cache_clear()
