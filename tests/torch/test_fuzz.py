"""Random calls of the PyTorch layers: tensors that lie in memory in any way, or are wrong.

The long versions run in `make test-all`, with `FUZZ_EXAMPLES` calls of each kind, and under
sanitizers in `make sanitize`.
"""

import subprocess
import sys

import pytest
import torch
from dropout_policies_kernels import operators
from dropout_policies_kernels.sequence_kernel import SequenceKernel
from hypothesis import strategies as st

import dropout_policies as dp
from tests.support import torch_fuzz, torch_fuzz_calls, torch_fuzz_mutants
from tests.support.documents import ROOT
from tests.support.torch_fuzz import fuzz
from tests.support.torch_fuzz_calls import EXAMPLES, KINDS, Call

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


@pytest.fixture(autouse=True)
def operators_run_whatever_they_can(monkeypatch):
    """Also where PyTorch's kernel would be faster."""
    monkeypatch.setattr(operators, "MIN_STEPS", 1)
    monkeypatch.setattr(operators, "MIN_PRODUCT", 0)


def lengths(**short):
    """Each kind of layer with so many examples, and with many."""
    return pytest.mark.parametrize(
        ("kind", "examples"),
        [
            pytest.param(kind, number, id=f"{kind}-{length}", marks=marks)
            for kind, some in short.items()
            for length, number, marks in (
                ("short", some, ()),
                ("long", EXAMPLES, pytest.mark.slow),
            )
        ],
    )


@lengths(**{"LSTM": 100, "GRU": 100, "RNN": 60, "RNN, relu": 40})
def test_a_call_is_the_plain_loop(kind, examples, monkeypatch):
    runs, original = [], SequenceKernel.__init__

    def counted(*args, **kwargs):
        runs.append(1)
        original(*args, **kwargs)

    monkeypatch.setattr(SequenceKernel, "__init__", counted)
    fuzz(torch_fuzz.equals_plain_loop, torch_fuzz_calls.calls(kind, DEVICES), examples)
    assert len(runs) > examples // 2, len(runs)


@lengths(LSTM=60, GRU=60, RNN=30)
def test_a_call_is_the_stock_layers_where_masks_keep_everything(kind, examples):
    check, calls = torch_fuzz.equals_stock_under_whole_masks, torch_fuzz_calls.calls(kind, DEVICES)
    fuzz(check, calls, examples)


@lengths(LSTM=40, GRU=40, RNN=20)
def test_a_call_without_masks_is_the_stock_layers_bit_for_bit(kind, examples):
    given = st.tuples(torch_fuzz_calls.calls(kind, DEVICES), st.sampled_from(torch_fuzz.STILL))
    fuzz(lambda call: torch_fuzz.equals_stock_exactly(*call), given, examples)


@lengths(LSTM=50, GRU=50, RNN=30)
def test_saved_tensors_that_come_back_wrong_give_no_wrong_gradient(kind, examples):
    fuzz(torch_fuzz.equals_plain_loop, torch_fuzz_calls.wrongly_saved(kind), examples)


@lengths(LSTM=150, GRU=150, RNN=50)
def test_what_the_stock_layer_refuses_is_refused(kind, examples):
    fuzz(torch_fuzz.treated_as_by_stock, torch_fuzz_calls.wrong_calls(kind), examples)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_is_built_as_the_stock_one(kind):
    call = Call(kind, dp.Policy(hidden=dp.drop(0.5)), state=True)
    torch_fuzz.equals_plain_loop(call)
    torch_fuzz.equals_stock_under_whole_masks(call)


@pytest.mark.slow
@pytest.mark.parametrize("name", torch_fuzz_mutants.MUTANTS)
def test_a_fault_that_is_put_back_is_found(name):
    """In a process of its own, which it may end."""
    command = [sys.executable, "-m", "tests.support.torch_fuzz_mutants", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = done.returncode == torch_fuzz_mutants.FOUND or done.returncode < 0
    assert found, f"it ended with {done.returncode}: {done.stderr[-2000:]}"


def test_without_a_fault_nothing_is_found():
    assert torch_fuzz_mutants.main("") == 0
