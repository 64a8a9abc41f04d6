"""Steps on a CPU, by functions in C: one by one `fused.c`, all at once `runs.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import fused
from .compiled import has_threads, in_c, takes
from .products import Recurrent

SERIAL = 2**15
"""Units of a step up to which PyTorch's own functions run on one thread, as these always do."""

FEW = 2
"""Threads up to which each takes its own samples through all steps, by products of its own."""

SAMPLES = 5
"""Samples for each of more threads from which on they do so too. With fewer, the weight is read too
often for what is done with it."""


class _Arrays(ctypes.Structure):
    """`Layer` of fused.c."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("acts", "hs", "cs", "squashed", "seen")),
        *((name, ctypes.c_void_p) for name in ("h0", "c0", "scratch")),
        ("kept", ctypes.c_int64),
        ("masks", ctypes.c_void_p * 6),
        ("strides", ctypes.c_int64 * 6),
        *((name, ctypes.c_void_p) for name in ("d_hs", "d_gates", "d_h", "d_c")),
    )


def fits(acts: Tensor, state: Tensor) -> bool:
    """Whether steps run compiled: on a CPU, in single or double precision, unless a step is so
    large that many threads would share it."""
    return takes(acts) and (
        state.numel() <= SERIAL or torch.get_num_threads() <= FEW or apart(state)
    )


def apart(state: Tensor) -> bool:
    """Whether each thread takes its own samples of a state `[B, H]`; all share a product if not."""
    threads = torch.get_num_threads()
    return has_threads(state.dtype) and (threads <= FEW or len(state) >= SAMPLES * threads)


def _layer(run: fused.Run, scratch: Tensor) -> Any:
    """The address of what functions in C know of a layer, whose arrays `run` keeps."""
    (batch, size), units = run.h0.shape, run.h0.numel()
    layer = _Arrays(batch, size)
    layer.kept = units if run.kept else 0
    layer.h0, layer.seen, layer.scratch = (each.data_ptr() for each in (run.h0, run.seen, scratch))
    for name, array in run.arrays.items():
        setattr(layer, name, array.data_ptr())
    for site, mask in enumerate(run.masks):
        if mask is not None:
            layer.masks[site] = mask.data_ptr()
            layer.strides[site] = units if len(mask) > 1 else 0
    return ctypes.byref(layer)


class Apart(fused.Run):
    """Each thread takes its own samples through all steps: one call of a compiled function."""

    def forward(self, recurrent: Recurrent) -> None:
        self.check_weight(recurrent, backward=False)
        self._all(self.mode, recurrent, self.order)

    def backward(self, recurrent: Recurrent) -> Tensor:
        self.check_weight(recurrent, backward=True)
        return self._all(f"{self.mode}_backward", recurrent, self.order[::-1])

    def _all(self, name: str, recurrent: Recurrent, order: Sequence[int]) -> Tensor:
        """All steps, in this order; the last one's product."""
        threads, panels = torch.get_num_threads(), recurrent.panels
        scratch = self.h0.new_empty(threads, 3, self.h0.shape[1])
        product = self.h0.new_empty(len(self.h0), len(recurrent.weight))
        getattr(in_c(self.h0.dtype), f"{name}_run")(
            _layer(self, scratch),
            *(ctypes.c_void_p(array.data_ptr()) for array in (panels, product)),
            *map(ctypes.c_int64, (order[0], order[-1], threads)),
        )
        return product


class Steps(fused.Steps):
    """Each step a call of a compiled function."""

    def __init__(self, *args: Any, **arrays: Any) -> None:
        super().__init__(*args, **arrays)
        self._scratch = self.h0.new_empty(3, self.h0.shape[1])
        self._at = _layer(self, self._scratch)
        functions: Any = in_c(self.h0.dtype)
        self._start, self._step = functions.start, getattr(functions, self.mode)
        self._step_back = getattr(functions, f"{self.mode}_backward")
        self._number = {t: ctypes.c_int64(t) for t in (-1, *self.order)}

    def start(self, t: int) -> None:
        self._start(self._at, self._number[t])

    def step(self, t: int, last: int, after: int, product: Tensor) -> None:
        numbers = self._number
        address = ctypes.c_void_p(product.data_ptr())
        self._step(self._at, numbers[t], numbers[last], numbers[after], address)

    def step_back(self, t: int, later: int, earlier: int, product: Tensor | None) -> None:
        numbers = self._number
        address = ctypes.c_void_p(None if product is None else product.data_ptr())
        self._step_back(self._at, numbers[t], numbers[later], numbers[earlier], address)
