"""Who takes an operator's steps in one pass: functions in C, or Triton kernels.

Where neither can be had, an operator takes PyTorch's own functions, one after another.
"""

from __future__ import annotations

from torch import Tensor

from . import fused, fused_cpu, fused_gpu


def engine(acts: Tensor, state: Tensor) -> type[fused.Run] | None:
    """Who takes steps of these gates `[T, B, G*H]` and state `[B, H]`; None for nobody."""
    if fused_cpu.fits(acts, state):
        return fused_cpu.Apart if fused_cpu.apart(state) else fused_cpu.Steps
    return fused_gpu.Steps if fused_gpu.fits(acts, state) else None
