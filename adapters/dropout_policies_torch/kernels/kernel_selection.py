"""Which compiled kernel runs an operator's steps: functions in C, or Triton kernels.

Without a kernel, an operator calls PyTorch's own functions, one after another.
"""

from __future__ import annotations

from torch import Tensor

from . import cpu_kernels, gpu_kernels
from .products import RecurrentWeight
from .sequence_kernel import SequenceKernel


def select_kernel(
    mode: str,
    gates: Tensor,
    state: Tensor,
    recurrent: RecurrentWeight,
    projection: Tensor | None = None,
) -> type[SequenceKernel] | None:
    """The fastest kernel for a layer; None if there is none.

    Args:
        mode: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        gates: `[T, B, G*H]`.
        state: c of an LSTM, otherwise h, `[B, H]`.
        recurrent: the weight that h is multiplied by.
        projection: the weight of an LSTM's projection, `[P, H]`, or None.
    """
    if cpu_kernels.supports(gates, state, projection):
        if cpu_kernels.runs_per_thread(state):
            return cpu_kernels.PerThreadKernel
        return cpu_kernels.PerStepCPUKernel
    if projection is None and gpu_kernels.supports(mode, gates, state, recurrent):
        return gpu_kernels.PerStepGPUKernel
    return None
