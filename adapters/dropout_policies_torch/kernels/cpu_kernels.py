"""Kernels on a CPU, in C: one step at a time in `steps.c`, all steps at once in `sequences.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .compiled import load_c_functions, supports_c, uses_torch_threads
from .products import RecurrentWeight
from .sequence_kernel import PerStepKernel, SequenceKernel

MAX_SERIAL_UNITS = 2**15
"""Units `B*H` up to which PyTorch's own functions run a step on one thread. The step kernel always
does."""

FEW_THREADS = 2
"""With up to so many threads, each thread runs its own samples through all steps."""

MIN_SAMPLES_PER_THREAD = 5
"""With more threads, each needs so many samples to do that. With fewer samples, the weight is read
too often for the work that is done with it."""


class _Layer(ctypes.Structure):
    """`Layer` of `steps.c`."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("gates", "hs", "cs", "tanh_cell", "hidden_n")),
        *((name, ctypes.c_void_p) for name in ("masked_hidden", "h0", "c0", "scratch")),
        ("saved_stride", ctypes.c_int64),
        ("masks", ctypes.c_void_p * 6),
        ("mask_strides", ctypes.c_int64 * 6),
        *((name, ctypes.c_void_p) for name in ("grad_hs", "grad_gates", "grad_h", "grad_c")),
    )


def supports(gates: Tensor, state: Tensor) -> bool:
    """Whether a kernel in C runs these steps: on a CPU, in single or double precision, unless a
    step is so large that PyTorch's functions run it faster on many threads."""
    return supports_c(gates) and (
        state.numel() <= MAX_SERIAL_UNITS
        or torch.get_num_threads() <= FEW_THREADS
        or runs_per_thread(state)
    )


def runs_per_thread(state: Tensor) -> bool:
    """Whether each thread runs its own samples of a state `[B, H]`. If not, the threads share each
    matrix product."""
    threads = torch.get_num_threads()
    return uses_torch_threads(state.dtype) and (
        threads <= FEW_THREADS or len(state) >= MIN_SAMPLES_PER_THREAD * threads
    )


def _layer_address(kernel: SequenceKernel, scratch: Tensor) -> Any:
    """The address of a `Layer` with a kernel's arrays, which the kernel must keep alive."""
    (batch, size), units = kernel.h0.shape, kernel.h0.numel()
    layer = _Layer(batch, size)
    layer.saved_stride = units if kernel.saves_every_step else 0
    layer.h0 = kernel.h0.data_ptr()
    layer.masked_hidden = kernel.masked_hidden.data_ptr()
    layer.scratch = scratch.data_ptr()
    for name, array in kernel.arrays.items():
        setattr(layer, name, array.data_ptr())
    for number, mask in enumerate(kernel.masks):
        if mask is not None:
            layer.masks[number] = mask.data_ptr()
            layer.mask_strides[number] = units if len(mask) > 1 else 0
    return ctypes.byref(layer)


class PerThreadKernel(SequenceKernel):
    """Each thread runs its own samples through all steps, in one call of a function in C."""

    def forward(self, recurrent: RecurrentWeight) -> None:
        self.check_weight(recurrent, backward=False)
        self._run_all_steps(f"{self.mode}_sequence", recurrent, self.order)

    def backward(self, recurrent: RecurrentWeight) -> Tensor:
        self.check_weight(recurrent, backward=True)
        return self._run_all_steps(f"{self.mode}_sequence_backward", recurrent, self.order[::-1])

    def _run_all_steps(
        self, function: str, recurrent: RecurrentWeight, order: Sequence[int]
    ) -> Tensor:
        """Run all steps in this order; the matrix product of the last one."""
        threads, panels = torch.get_num_threads(), recurrent.panels
        scratch = self.h0.new_empty(threads, 3, self.h0.shape[1])
        product = self.h0.new_empty(len(self.h0), len(recurrent.weight))
        getattr(load_c_functions(self.h0.dtype), function)(
            _layer_address(self, scratch),
            *(ctypes.c_void_p(array.data_ptr()) for array in (panels, product)),
            *map(ctypes.c_int64, (order[0], order[-1], threads)),
        )
        return product


class PerStepCPUKernel(PerStepKernel):
    """Each step is one call of a function in C."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scratch = self.h0.new_empty(3, self.h0.shape[1])
        self._layer = _layer_address(self, self._scratch)
        functions: Any = load_c_functions(self.h0.dtype)
        self._mask_initial_hidden = functions.mask_initial_hidden
        self._step = getattr(functions, f"{self.mode}_step")
        self._step_backward = getattr(functions, f"{self.mode}_step_backward")
        self._numbers = {t: ctypes.c_int64(t) for t in (-1, *self.order)}

    def mask_initial_hidden(self, t: int) -> None:
        self._mask_initial_hidden(self._layer, self._numbers[t])

    def step(self, t: int, previous: int, following: int, hidden_gates: Tensor) -> None:
        numbers = self._numbers
        address = ctypes.c_void_p(hidden_gates.data_ptr())
        self._step(self._layer, numbers[t], numbers[previous], numbers[following], address)

    def step_backward(self, t: int, later: int, earlier: int, grad_masked: Tensor | None) -> None:
        numbers = self._numbers
        address = ctypes.c_void_p(None if grad_masked is None else grad_masked.data_ptr())
        self._step_backward(self._layer, numbers[t], numbers[later], numbers[earlier], address)
