"""Which compiled kernel runs an operator's steps: functions in C, or Triton kernels.

Without a kernel, an operator calls PyTorch's own functions, one after another.
"""

from __future__ import annotations

from torch import Tensor

from . import cpu_kernels, gpu_kernels
from .sequence_kernel import SequenceKernel


def select_kernel(gates: Tensor, state: Tensor) -> type[SequenceKernel] | None:
    """The fastest kernel for gates `[T, B, G*H]` and a state `[B, H]`; None if there is none."""
    if cpu_kernels.supports(gates, state):
        if cpu_kernels.runs_per_thread(state):
            return cpu_kernels.PerThreadKernel
        return cpu_kernels.PerStepCPUKernel
    return gpu_kernels.PerStepGPUKernel if gpu_kernels.supports(gates, state) else None
