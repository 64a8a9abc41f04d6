"""Steps on a GPU: Triton's kernels, one for each step, beside its matrix product.

Nothing waits for the device and every shape is known before, so that CUDA graphs can hold a call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import fused
from .compiled import kernels, start
from .products import Recurrent
from .sequence import whole

BLOCK = 256
"""Units that one program takes."""


def fits(acts: Tensor, state: Tensor) -> bool:
    """Whether steps run as kernels: on a GPU, in single precision or half of it."""
    return (
        acts.device.type == "cuda"
        and acts.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and state.numel() > 0
        and kernels() is not None
    )


class Steps(fused.Steps):
    """Each step a kernel."""

    def __init__(self, *args: Any, **arrays: Any) -> None:
        super().__init__(*args, **arrays)
        # A step's parts, all cut at once: to cut one takes as long as to start a kernel.
        steps = max(self.order) + 1
        self._at = {name: whole(array, steps) for name, array in arrays.items() if array.dim() == 3}
        self._masks = [None if mask is None else whole(mask, steps) for mask in self.masks]

    def forward(self, recurrent: Recurrent) -> None:
        with torch.cuda.device_of(self.h0):  # type: ignore[no-untyped-call]
            super().forward(recurrent)

    def backward(self, recurrent: Recurrent) -> Tensor:
        with torch.cuda.device_of(self.h0):  # type: ignore[no-untyped-call]
            return super().backward(recurrent)

    def start(self, t: int) -> None:
        hidden = self._mask(0, t)
        if hidden is None:
            self.seen.copy_(self.h0)
        else:
            torch.mul(self.h0, hidden, out=self.seen)

    def step(self, t: int, last: int, after: int, product: Tensor) -> None:
        at, masks = self._at, [self._mask(site, t) for site in range(1, 6)]
        seen = None if after < 0 else self.seen
        hidden = None if after < 0 else self._mask(0, after)
        h_before = self.h0 if last < 0 else at["hs"][last]
        here = (product, at["acts"][t], h_before, at["hs"][t], at["cs"][t])
        if self.mode == "lstm":
            c_before = self.arrays["c0"] if last < 0 else at["cs"][last]
            self._run("lstm_step", *here, c_before, at["squashed"][t], seen, hidden, *masks)
        else:
            candidate, _, state, h_update, _ = masks
            self._run("gru_step", *here, seen, hidden, candidate, state, h_update)

    def step_back(self, t: int, later: int, earlier: int, product: Tensor | None) -> None:
        at, masks = self._at, [self._mask(site, t) for site in range(1, 6)]
        hidden = None if later < 0 else self._mask(0, later)
        here = (product, at["acts"][t], at["d_hs"][t], at["d_gates"][t], self.arrays["d_h"])
        if self.mode == "lstm":
            c_before = self.arrays["c0"] if earlier < 0 else at["cs"][earlier]
            of_c = (self.arrays["d_c"], c_before, at["squashed"][t])
            self._run("lstm_step_back", *here, *of_c, hidden, *masks)
        else:
            h_before = self.h0 if earlier < 0 else at["hs"][earlier]
            candidate, _, state, h_update, _ = masks
            of_n = (h_before, at["cs"][t])
            self._run("gru_step_back", *here, *of_n, hidden, candidate, state, h_update)

    def _run(self, name: str, *arrays: Tensor | None) -> None:
        units = self.h0.numel()
        start(name, self.h0, units, BLOCK, *arrays, self.h0.shape[1], units)

    def _mask(self, site: int, t: int) -> Tensor | None:
        mask = self._masks[site]
        return None if mask is None else mask[t]
