"""Steps on a CPU: `fused.c`, and all of them at once: `runs.c`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropout_policies.compiled import library

from . import fused
from .compiled import in_memory
from .products import Recurrent

SOURCE = Path(__file__).with_name("fused.c")

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
    return (
        in_memory(acts)
        and acts.dtype in (torch.float32, torch.float64)
        and state.numel() > 0
        and library(SOURCE) is not None
        and (state.numel() <= SERIAL or torch.get_num_threads() <= FEW or _apart(len(state)) > 0)
    )


def _apart(batch: int) -> int:
    """How many threads share the samples out among themselves; 0: they share each product."""
    threads, compiled = torch.get_num_threads(), library(SOURCE)
    able = compiled is not None and (threads == 1 or compiled.has_threads())
    return threads if able and (threads <= FEW or batch >= SAMPLES * threads) else 0


class Steps(fused.Steps):
    """Each step, or all of them, a call of a compiled function."""

    def __init__(self, *args: Any, **arrays: Any) -> None:
        super().__init__(*args, **arrays)
        compiled: Any = library(SOURCE)
        kind = "float" if self.h0.dtype == torch.float32 else "double"
        back = f"{self.mode}_backward"
        names = ("lanes", "start", self.mode, back, f"{self.mode}_run", f"{back}_run")
        functions = (getattr(compiled, f"{name}_{kind}") for name in names)
        lanes, self._start, self._step, self._step_back, self._run, self._run_back = functions
        self._lanes = lanes()
        self._threads = _apart(len(self.h0))
        units = self.h0.numel()
        self._scratch = self.h0.new_empty(max(1, self._threads), 3 * self.h0.shape[1])
        given = {**self.arrays, "h0": self.h0, "seen": self.seen, "scratch": self._scratch}
        pointers = (None if mask is None else mask.data_ptr() for mask in self.masks)
        strides = (0 if mask is None or len(mask) == 1 else units for mask in self.masks)
        self._layer = _Arrays(
            *self.h0.shape,
            kept=units if self.kept else 0,
            masks=(ctypes.c_void_p * 6)(*pointers),
            strides=(ctypes.c_int64 * 6)(*strides),
            **{name: array.data_ptr() for name, array in given.items()},
        )
        self._at = ctypes.byref(self._layer)
        self._number = {t: ctypes.c_int64(t) for t in (-1, *self.order)}

    def forward(self, recurrent: Recurrent) -> None:
        if not self._threads:
            return super().forward(recurrent)
        self._all(self._run, recurrent, self.order)
        return None

    def backward(self, recurrent: Recurrent) -> Tensor:
        if not self._threads:
            return super().backward(recurrent)
        return self._all(self._run_back, recurrent, self.order[::-1])

    def _all(self, run: Any, recurrent: Recurrent, order: list[int]) -> Tensor:
        """All steps, in this order; the last one's product."""
        panels = recurrent.panels(self._lanes)
        product = self.h0.new_empty(len(self.h0), len(recurrent.weight))
        way = 1 if order[-1] >= order[0] else -1
        run(
            self._at,
            *(ctypes.c_void_p(array.data_ptr()) for array in (panels, product)),
            *(ctypes.c_int64(each) for each in (order[0], order[-1], way, self._threads)),
        )
        return product

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
