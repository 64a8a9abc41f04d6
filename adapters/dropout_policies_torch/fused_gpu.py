"""Steps on a GPU: Triton's kernels, one for each step, beside its matrix product.

Nothing waits for the device and every shape is known before, so that CUDA graphs can hold a call.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import fused

BLOCK = 256
"""Units that one program takes."""


@functools.cache
def _kernels() -> ModuleType | None:
    """The kernels; None where there is no Triton."""
    try:
        from . import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def fits(acts: Tensor, state: Tensor) -> bool:
    """Whether steps run as kernels: on a GPU, in single precision or half of it."""
    return (
        acts.device.type == "cuda"
        and acts.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and state.numel() > 0
        and _kernels() is not None
    )


class Steps(fused.Steps):
    """Each step a kernel."""

    def __init__(self, *args: Any, **arrays: Any) -> None:
        super().__init__(*args, **arrays)
        kernels: Any = _kernels()
        self._grid = (-(-self.h0.numel() // BLOCK),)
        name = self.mode
        self._step = getattr(kernels, f"{name}_step")[self._grid]
        self._step_back = getattr(kernels, f"{name}_step_back")[self._grid]

    def start(self, t: int) -> None:
        hidden = self._mask(0, t)
        if hidden is None:
            self.seen.copy_(self.h0)
        else:
            torch.mul(self.h0, hidden, out=self.seen)

    def step(self, t: int, last: int, after: int, product: Tensor) -> None:
        arrays, masks = self.arrays, [self._mask(site, t) for site in range(1, 6)]
        seen = None if after < 0 else self.seen
        hidden = None if after < 0 else self._mask(0, after)
        h_before = self.h0 if last < 0 else arrays["hs"][last]
        here = (product, arrays["acts"][t], h_before, arrays["hs"][t], self._kept("cs", t))
        sizes = {"size": self.h0.shape[1], "total": self.h0.numel(), "BLOCK": BLOCK}
        if self.mode == "lstm":
            c_before = arrays["c0"] if last < 0 else self._kept("cs", last)
            squashed = self._kept("squashed", t)
            self._step(*here, c_before, squashed, seen, hidden, *masks, **sizes)
        else:
            candidate, _, state, h_update, _ = masks
            self._step(*here, seen, hidden, candidate, state, h_update, **sizes)

    def step_back(self, t: int, later: int, earlier: int, product: Tensor | None) -> None:
        arrays, masks = self.arrays, [self._mask(site, t) for site in range(1, 6)]
        hidden = None if later < 0 else self._mask(0, later)
        here = (product, arrays["acts"][t], arrays["d_hs"][t], arrays["d_gates"][t], arrays["d_h"])
        sizes = {"size": self.h0.shape[1], "total": self.h0.numel(), "BLOCK": BLOCK}
        if self.mode == "lstm":
            c_before = arrays["c0"] if earlier < 0 else arrays["cs"][earlier]
            of_c = (arrays["d_c"], c_before, arrays["squashed"][t])
            self._step_back(*here, *of_c, hidden, *masks, **sizes)
        else:
            h_before = self.h0 if earlier < 0 else arrays["hs"][earlier]
            candidate, _, state, h_update, _ = masks
            of_n = (h_before, arrays["cs"][t])
            self._step_back(*here, *of_n, hidden, candidate, state, h_update, **sizes)

    def _kept(self, name: str, t: int) -> Tensor:
        return self.arrays[name][t if self.kept else 0]

    def _mask(self, site: int, t: int) -> Tensor | None:
        mask = self.masks[site]
        return None if mask is None else mask[t if len(mask) > 1 else 0]
