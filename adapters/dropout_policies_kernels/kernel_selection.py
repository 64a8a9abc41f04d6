"""Selects the compiled kernel that runs an operator's steps: functions in C, or Triton kernels.

If no kernel fits, an operator calls PyTorch's own functions, one after another.
"""

from __future__ import annotations

from torch import Tensor

from . import cpu_kernels, gpu_kernels
from .products import RecurrentWeight
from .sequence_kernel import SequenceKernel


def select_kernel(
    mode: str,
    x: Tensor,
    state: Tensor,
    recurrent: RecurrentWeight,
    projection: Tensor | None = None,
) -> type[SequenceKernel] | None:
    """Select the fastest kernel for a layer. None if no kernel fits.

    Args:
        mode: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        x: the input, `[T, B, D]`.
        state: c of an LSTM, otherwise h, `[B, H]`.
        recurrent: the weight that h is multiplied by.
        projection: the weight of an LSTM's projection, `[P, H]`, or None.
    """
    if cpu_kernels.supports(x, state, projection):
        if cpu_kernels.runs_per_thread(state):
            return cpu_kernels.PerThreadKernel
        return cpu_kernels.PerStepCPUKernel
    if projection is None and gpu_kernels.supports(mode, x, state, recurrent):
        return gpu_kernels.PerStepGPUKernel
    return None


def computes_input(kernel_class: type[SequenceKernel] | None, input_mask: Tensor | None) -> bool:
    """Whether a kernel computes the input's part of the gates.

    It does not if each gate has its own mask on the input.
    """
    return kernel_class is not None and kernel_class.computes_input and input_mask is None
