"""On a GPU: the CPU's masks and results, nothing that waits, and CUDA graphs. Where there is none,
`test_triton` runs the kernels by Triton's interpreter."""

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
from dropout_policies_kernels import compiled
from dropout_policies_torch import masks

import dropout_policies as dp
from dropout_policies.masks import keyed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

T, B, H = 7, 5, 24
CASES = [
    (mode, name)
    for mode in ("LSTM", "GRU")
    for name in ("zaremba", "weight_drop", "naive", "variational", "semeniuta", "zoneout")
]


def layer(mode, name, seed=3):
    policy = dp.zoneout(cell=0.0) if (mode, name) == ("GRU", "zoneout") else name
    torch.manual_seed(0)
    return getattr(dpt, mode)(H, H, 2, policy=policy, seed=seed)


def step(module, device):
    """The output, and every gradient."""
    module.to(device)
    torch.manual_seed(1)
    x, pull = torch.randn(T, B, H), torch.randn(T, B, H)
    x = x.to(device).requires_grad_()
    y, _ = module(x)
    y.backward(pull.to(device))
    return [each.detach().cpu() for each in (y, x.grad, *(p.grad for p in module.parameters()))]


def test_there_are_kernels():
    assert compiled.load_triton_kernels() is not None


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (35, 20, 65), (1, 65, 260)])
@pytest.mark.parametrize("row_offset", [0, 2**31 - 2, 2**32 - 400])
def test_mask_bits_are_the_cores(shape, row_offset):
    for number, rate in enumerate((0.0, 0.2, 0.5, 0.9)):
        key = keyed.mask_key(number, row_offset, dp.Slot(dp.Site.INPUT, 0, 0))
        words = tuple(masks._to_int32(word) for word in key)
        least = keyed.threshold(rate) - 2**31
        got = masks.keep_bits(words, least, shape, row_offset, torch.device("cuda"))
        expected = keyed.keep_bits(key, rate, shape, row_offset)
        np.testing.assert_array_equal(got.cpu().numpy(), expected)


@pytest.mark.parametrize(("mode", "name"), [*CASES, ("LSTM", "rnndrop")])
def test_a_training_step_is_the_cpus(mode, name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 3 digits, else, in cuDNN
    here, there = (step(layer(mode, name), device) for device in ("cpu", "cuda"))
    for ours, its in zip(here, there, strict=True):
        torch.testing.assert_close(its, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_replays_of_a_cuda_graph_draw_on(mode, name):
    module = layer(mode, name, seed=None).cuda()
    x = torch.randn(T, B, H, device="cuda")
    with torch.no_grad():
        module(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, _ = module(x)
        outputs = []
        for _ in range(2):
            graph.replay()
            outputs.append(y.clone())
    assert not torch.equal(*outputs)


def test_keyed_masks_in_a_cuda_graph_are_refused():
    module = layer("LSTM", "variational").cuda()
    x = torch.randn(T, B, H, device="cuda")
    module(x)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(dp.PolicyError, match="every replay"), torch.cuda.graph(graph):
        module(x)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("mode", "name"), CASES)
def test_nothing_waits_for_the_device(mode, name, seed):
    module = layer(mode, name, seed).cuda()
    x = torch.randn(T, B, H, device="cuda", requires_grad=True)
    module(x)[0].sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module(x)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
