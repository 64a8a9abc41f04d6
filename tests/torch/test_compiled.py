"""Functions in C: what happens where they cannot be had, or find no memory to work on."""

import pytest
import torch
from dropout_policies_torch import LSTM
from dropout_policies_torch.compiled import in_c
from torch._subclasses.fake_tensor import FakeTensorMode

from dropout_policies import compiled


@pytest.mark.parametrize("reason", ["no compiler", "one that fails", "forbidden"])
def test_without_a_compiler_layers_run_all_the_same(reason, monkeypatch, caplog):
    def trained():
        torch.manual_seed(0)
        layer = LSTM(3, 3, policy="variational", seed=1)
        y, _ = layer(torch.randn(4, 2, 3))
        y.sum().backward()
        return y, layer.weight_hh_l0.grad

    assert in_c(torch.float32) is not None, "the tests need a C compiler"
    expected = trained()
    if reason == "forbidden":
        monkeypatch.setenv("DROPOUT_POLICIES_COMPILE", "0")
    else:
        monkeypatch.setenv("CC", "false" if reason == "one that fails" else "there-is-none")
    compiled.library.cache_clear()
    try:
        with caplog.at_level("INFO"):
            assert in_c(torch.float32) is None
            torch.testing.assert_close(trained(), expected)
        assert (reason == "forbidden") == (not caplog.records)
    finally:
        compiled.library.cache_clear()


@pytest.mark.parametrize("policy", ["zaremba", "variational"])
def test_tensors_without_memory_are_left_to_pytorch(policy):
    """A tracer's tensors have shapes and types alone."""
    with FakeTensorMode():
        layer = LSTM(3, 5, policy=policy, seed=1)
        y, _ = layer(torch.zeros(4, 2, 3))
        y.sum().backward()
    assert y.shape == (4, 2, 5)
    assert layer.weight_hh_l0.grad.shape == (20, 5)
