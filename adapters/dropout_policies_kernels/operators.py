"""Whole sequences with masks inside the loop, each computed by one operator.

An operator computes the input's part of the gates in one product over all steps. It then writes to
arrays that it allocated before. Its backward pass computes the derivatives of the gates for all
steps at once, runs one product at each step, and computes the gradients of the weights as one
product over all steps. If gradients of gradients are wanted, the plain loop computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import compiled, cpu_kernels, products
from .cells import SiteMasks, States, Weights
from .gru_operator import gru
from .kernel_memory import has_memory, is_plain
from .lstm_operator import lstm
from .operator_arguments import (
    OPERATOR_SITES,
    GRUInputs,
    GRUMasks,
    GRUWeights,
    LSTMInputs,
    LSTMMasks,
    LSTMWeights,
    RNNInputs,
    RNNMasks,
    RNNWeights,
)
from .rnn_operator import rnn_relu, rnn_tanh
from .tracing import has_dispatch_mode, in_torch_func, in_trace

MAX_LOOP_STEPS = 3
"""Up to this many steps, the plain loop takes no longer than an operator takes to start."""

MIN_STEPS = 8
"""From this many steps on, PyTorch's kernel takes longer than an operator takes to start."""

MIN_PRODUCT = 50_000_000
"""From this many multiplications of the input with its weight on, an LSTM's operator is faster than
oneDNN's kernel."""

MAX_PADDING = 2
"""A padded batch may have up to this many times the rows of the packed one."""


def supports(mode: str, weights: Weights, masks: SiteMasks, inputs: Sequence[Tensor]) -> bool:
    """Whether there is an operator for a layer under these masks `[T or 1, B or 1, F]`.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the layer's weights.
        masks: the masks, as `run_operator` takes them.
        inputs: x and the initial states.
    """
    if not set(masks) <= set(OPERATOR_SITES[mode]):
        return False
    # An exported program or a trace must consist of operators that other programs know.
    if torch.compiler.is_exporting() or in_trace():
        return False
    if torch.compiler.is_compiling():
        return True
    # Derivatives in forward mode and those of torch.func go through the loop.
    differentiable = (*inputs, *weights.to_list())
    return (
        not in_torch_func()
        and all(is_plain(each) for each in (*differentiable, *masks.values()))
        and all(
            forward_ad.unpack_dual(each).tangent is None  # type: ignore[no-untyped-call]
            for each in differentiable
        )
    )


def is_faster(
    mode: str, weights: Weights, x: Tensor, initial: Sequence[Tensor], steps: int
) -> bool:
    """Whether an operator runs a layer without inner masks faster than PyTorch's kernel.

    PyTorch runs a layer step by step, one operation after another. An operator takes about as long
    to start as PyTorch takes for a few steps. The exception is an LSTM in single precision: unless
    it is packed or has a projection, PyTorch runs it with oneDNN's kernel of the whole sequence. An
    operator is faster than this kernel only in training, if no thread is without a sample, and if
    its matrix products outweigh the time that it takes to start. An operator also computes the
    padding of a packed batch.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the layer's weights.
        x: the input, `[T, B, D]`, or packed rows `[N, D]`.
        initial: the initial states.
        steps: T.
    """
    if not supports(mode, weights, {}, (x, *initial)) or steps < MIN_STEPS:
        return False
    if torch.is_autocast_enabled(x.device.type) or has_dispatch_mode():
        return False
    if not (compiled.supports_c(x) and cpu_kernels.runs_per_thread(initial[0])):
        return False
    rows, is_packed = x.numel() // x.shape[-1], x.dim() == 2
    if is_packed or mode != "LSTM" or weights.w_hr is not None or x.dtype != torch.float32:
        return rows * MAX_PADDING >= steps * len(initial[0])
    return (
        torch.is_grad_enabled()
        and len(initial[0]) >= torch.get_num_threads()
        and rows * weights.w_ih.numel() >= MIN_PRODUCT
    )


def is_loop_faster(x: Tensor) -> bool:
    """Whether the plain loop runs a sequence `[T, B, D]` faster than an operator.

    It does on a CPU, for a few steps.
    """
    return (
        not torch.compiler.is_compiling()
        and len(x) <= MAX_LOOP_STEPS
        and x.device.type == "cpu"
        and x.dtype in compiled.C_DEFINES
        and not torch.is_autocast_enabled("cpu")
    )


def computing_dtype(dtype: torch.dtype, x: Tensor, weights: Weights) -> torch.dtype:
    """Choose the dtype in which an operator computes.

    On a CPU, a small layer in half precision is computed in single precision. The functions in C
    have no half precision, and PyTorch's take longer to start than a small step takes to run.

    Args:
        dtype: the dtype of the result.
        x: the input.
        weights: the layer's weights.
    """
    if dtype not in (torch.bfloat16, torch.float16) or torch.compiler.is_compiling():
        return dtype
    is_small = weights.w_hh.numel() < products.MIN_PACKED_ENTRIES
    return torch.float32 if is_small and has_memory(x) and compiled.has_c_functions() else dtype


def run_operator(
    mode: str, weights: Weights, x: Tensor, states: States, masks: SiteMasks, reverse: bool
) -> tuple[Tensor, States]:
    """Run a recurrent layer in one direction over a sequence.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the layer's weights.
        x: the input, `[T, B, D]`.
        states: the initial states: h `[B, P]`, and for an LSTM c `[B, H]`.
        masks: the masks, `[T or 1, B or 1, F or 1]`. The mask of the input is at `input` if it
            holds one for each gate. Any other mask of the input is applied beforehand.
        reverse: whether steps run from the last to the first.

    Returns:
        The h of every step, `[T, B, P]`, and the last states.
    """
    ordered = [masks.get(site) for site in OPERATOR_SITES[mode]]
    tensors = (x, *states, *weights.to_list(), *ordered)
    needs_backward = torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in tensors
    )
    w_ih, w_hh, b_ih, b_hh = weights.w_ih, weights.w_hh, weights.b_ih, weights.b_hh
    h0, last = states[0], 0 if reverse else -1
    if mode == "GRU":
        gru_weights = GRUWeights(w_ih, w_hh, b_ih, b_hh)
        hs, h, *_ = gru(GRUInputs(x, h0, gru_weights, GRUMasks(*ordered), reverse), needs_backward)
        return hs, (h,)
    bias = b_ih if b_ih is None or b_hh is None else b_ih + b_hh
    if mode == "LSTM":
        lstm_weights = LSTMWeights(w_ih, w_hh, bias, weights.w_hr)
        inputs = LSTMInputs(x, h0, states[1], lstm_weights, LSTMMasks(*ordered), reverse)
        hs, c, *_ = lstm(inputs, needs_backward)
        return hs, (hs[last], c)
    rnn = rnn_tanh if mode == "RNN_TANH" else rnn_relu
    rnn_weights = RNNWeights(w_ih, w_hh, bias)
    hs, h, *_ = rnn(RNNInputs(x, h0, rnn_weights, RNNMasks(*ordered), reverse), needs_backward)
    return hs, (h,)
