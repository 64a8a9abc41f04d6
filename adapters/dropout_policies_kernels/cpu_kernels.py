"""Kernels on a CPU, in C. `steps.c` runs one step at a time, `sequences.c` all steps at once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import cpu_products
from .compiled import load_c_functions, supports_c, uses_torch_threads
from .products import RecurrentWeight
from .sequence_kernel import GATES, PerStepKernel, SequenceKernel

MAX_SERIAL_UNITS = 2**15
"""Up to this many units `B*H`, PyTorch's own functions run a step on one thread. The step kernel
always does."""

FEW_THREADS = 2
"""With up to this many threads, each thread runs its own samples through all steps."""

MIN_SAMPLES_PER_THREAD = 5
"""With more threads, each thread needs at least this many samples to do that. With fewer, the
weight is read too often for the work that is done with it."""


CHUNK_ROWS = 48
"""The number of rows of x that a thread multiplies by the input's weight at once. They are enough
to use each part of the weight several times per read, and few enough that their gates stay in the
cache."""


class _Layer(ctypes.Structure):
    """The struct `Layer` of `steps.c`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "size", "width", "hidden_masks")),
        *((name, ctypes.c_int64) for name in ("input_width", "chunk_steps")),
        *((name, ctypes.c_void_p) for name in ("x", "input_panels", "input_scratch")),
        ("gates", ctypes.c_void_p),
        ("gates_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("hs", "cs", "tanh_cell", "hidden_n")),
        *((name, ctypes.c_void_p) for name in ("masked_hidden", "h0", "c0", "scratch")),
        *((name, ctypes.c_void_p) for name in ("projection", "unprojected", "grad_projected")),
        ("saved_stride", ctypes.c_int64),
        ("masks", ctypes.c_void_p * 6),
        ("mask_strides", ctypes.c_int64 * 6),
        ("mask_widths", ctypes.c_int64 * 6),
        *((name, ctypes.c_void_p) for name in ("grad_hs", "grad_gates", "grad_h", "grad_c")),
    )


def supports(x: Tensor, state: Tensor, projection: Tensor | None) -> bool:
    """Whether a kernel in C runs these steps.

    It does on a CPU, in single or double precision, unless a step is so large that PyTorch's
    functions run it faster on many threads. A layer with a projection has two products at each
    step. A kernel runs it only if each thread runs its own samples.
    """
    if not supports_c(x):
        return False
    if projection is not None:
        return supports_c(projection) and runs_per_thread(state)
    return (
        state.numel() <= MAX_SERIAL_UNITS
        or torch.get_num_threads() <= FEW_THREADS
        or runs_per_thread(state)
    )


def runs_per_thread(state: Tensor) -> bool:
    """Whether each thread runs its own samples of a state `[B, H]`.

    If not, the threads share each matrix product.
    """
    threads = torch.get_num_threads()
    return uses_torch_threads(state.dtype) and (
        threads <= FEW_THREADS or len(state) >= MIN_SAMPLES_PER_THREAD * threads
    )


def _make_layer(kernel: SequenceKernel, scratch: Tensor) -> _Layer:
    """Make a `Layer` with a kernel's arrays, which the kernel must keep alive."""
    (batch, width), size = kernel.h0.shape, kernel.size
    layer = _Layer(batch, size, width, kernel.hidden_masks)
    layer.saved_stride = batch * size if kernel.saves_every_step else 0
    gates = kernel.arrays["gates"]
    layer.gates_stride = gates[0].numel() if len(gates) == len(kernel.order) else 0
    layer.h0 = kernel.h0.data_ptr()
    layer.masked_hidden = kernel.masked_hidden.data_ptr()
    layer.scratch = scratch.data_ptr()
    for name, array in kernel.arrays.items():
        setattr(layer, name, array.data_ptr())
    masks = zip(kernel.masks, kernel.mask_widths, strict=True)
    for number, (mask, mask_width) in enumerate(masks):
        if mask is not None:
            layer.masks[number] = mask.data_ptr()
            layer.mask_strides[number] = batch * mask_width if len(mask) > 1 else 0
            layer.mask_widths[number] = mask_width
    return layer


class PerThreadKernel(SequenceKernel):
    """A kernel in which each thread runs its own samples through all steps, in one call in C."""

    computes_input = True

    def forward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> None:
        self.check_weights(recurrent, projection)
        panels = None if projection is None else cpu_products.pack_in_panels(projection, None)
        self._run_all_steps(f"{self.mode}_sequence", recurrent, panels, self.order)

    def backward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> Tensor:
        self.check_weights(recurrent, projection)
        panels = None if projection is None else cpu_products.pack_in_panels(projection.t(), None)
        order = self.order[::-1]
        return self._run_all_steps(f"{self.mode}_sequence_backward", recurrent, panels, order)

    def _run_all_steps(
        self,
        function: str,
        recurrent: RecurrentWeight,
        projection: Tensor | None,
        order: Sequence[int],
    ) -> Tensor:
        """Run all steps in this order, and return the matrix product of the last one."""
        threads, panels, batch = torch.get_num_threads(), recurrent.panels, len(self.h0)
        scratch = self.h0.new_empty(threads, 3, self.size)
        product = self.h0.new_empty(batch, recurrent.product_width)
        layer = _make_layer(self, scratch)
        if projection is not None:
            unprojected = self.h0.new_empty(batch, self.size)
            layer.projection, layer.unprojected = projection.data_ptr(), unprojected.data_ptr()
        if self.input_weight is not None:
            input_panels = self.input_weight.panels
            samples = -(-batch // threads)
            layer.input_width = self.input_weight.weight.shape[1]
            layer.chunk_steps = max(1, CHUNK_ROWS // samples)
            rows = threads * layer.chunk_steps * samples
            gates_width = GATES[self.mode] * self.size
            input_scratch = self.h0.new_empty(rows, layer.input_width + gates_width)
            layer.input_panels = input_panels.data_ptr()
            layer.input_scratch = input_scratch.data_ptr()
        getattr(load_c_functions(self.h0.dtype), function)(
            ctypes.byref(layer),
            *(ctypes.c_void_p(array.data_ptr()) for array in (panels, product)),
            *map(ctypes.c_int64, (order[0], order[-1], threads)),
        )
        return product


class PerStepCPUKernel(PerStepKernel):
    """A kernel that runs each step as one call of a function in C."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scratch = self.h0.new_empty(3, self.size)
        self._layer = ctypes.byref(_make_layer(self, self._scratch))
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
