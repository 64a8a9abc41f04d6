"""Kernels on a GPU in Triton: one for each step, with PyTorch's matrix products in between.

Nothing waits for the device, and every shape is known in advance, so a CUDA graph can hold a call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .compiled import launch_kernel, load_triton_kernels
from .operator_arguments import KERNEL_SITES
from .products import RecurrentWeight
from .sequence_kernel import PerStepKernel
from .time_steps import by_step

BLOCK = 256
"""The number of units that one program computes."""


def supports(mode: str, x: Tensor, state: Tensor, recurrent: RecurrentWeight) -> bool:
    """Whether Triton kernels can run these steps.

    They run LSTMs and GRUs on a GPU, in single or half precision, if all gates share one mask on h.
    """
    return (
        mode in ("lstm", "gru")
        and recurrent.masks == 1
        and x.device.type == "cuda"
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and state.numel() > 0
        and load_triton_kernels() is not None
    )


class PerStepGPUKernel(PerStepKernel):
    """A kernel that runs each step as one Triton kernel."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # This takes the parts of all steps at once: taking one costs as much as a kernel launch.
        steps = max(self.order) + 1
        self._by_step = {
            name: by_step(array, steps) for name, array in self.arrays.items() if array.dim() == 3
        }
        self._masks_by_step = {
            site: None if mask is None else by_step(mask, steps)
            for site, mask in zip(KERNEL_SITES, self.masks, strict=True)
        }

    def forward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> None:
        with torch.cuda.device_of(self.h0):  # type: ignore[no-untyped-call]
            super().forward(recurrent, projection)

    def backward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> Tensor:
        with torch.cuda.device_of(self.h0):  # type: ignore[no-untyped-call]
            return super().backward(recurrent, projection)

    def mask_initial_hidden(self, t: int) -> None:
        hidden = self._mask("hidden", t)
        if hidden is None:
            self.masked_hidden.copy_(self.h0)
        else:
            torch.mul(self.h0, hidden, out=self.masked_hidden)

    def step(self, t: int, previous: int, following: int, hidden_gates: Tensor) -> None:
        arrays, lstm = self._by_step, self.mode == "lstm"
        masked_hidden = None if following < 0 else self.masked_hidden
        hidden = None if following < 0 else self._mask("hidden", following)
        previous_h = self.h0 if previous < 0 else arrays["hs"][previous]
        tensors = [hidden_gates, arrays["gates"][t], previous_h, arrays["hs"][t]]
        if lstm:
            previous_c = self.arrays["c0"] if previous < 0 else arrays["cs"][previous]
            tensors += [arrays["cs"][t], previous_c, arrays["tanh_cell"][t]]
        else:
            tensors += [arrays["hidden_n"][t]]
        self._launch("lstm_step" if lstm else "gru_step", t, *tensors, masked_hidden, hidden)

    def step_backward(self, t: int, later: int, earlier: int, grad_masked: Tensor | None) -> None:
        arrays, lstm = self._by_step, self.mode == "lstm"
        hidden = None if later < 0 else self._mask("hidden", later)
        grad_hs, grad_gates = arrays["grad_hs"][t], arrays["grad_gates"][t]
        tensors = [arrays["gates"][t], grad_hs, grad_gates, self.arrays["grad_h"]]
        if lstm:
            previous_c = self.arrays["c0"] if earlier < 0 else arrays["cs"][earlier]
            tensors += [self.arrays["grad_c"], previous_c, arrays["tanh_cell"][t]]
        else:
            previous_h = self.h0 if earlier < 0 else arrays["hs"][earlier]
            tensors += [previous_h, arrays["hidden_n"][t]]
        name = "lstm_step_backward" if lstm else "gru_step_backward"
        self._launch(name, t, grad_masked, *tensors, hidden)

    def _launch(self, name: str, t: int, *tensors: Tensor | None) -> None:
        """Launch a kernel with these tensors and the other masks of step t."""
        sites = KERNEL_SITES[1:] if self.mode == "lstm" else ("candidate", "state", "hidden_update")
        masks = [self._mask(site, t) for site in sites]
        units, size = self.h0.numel(), self.h0.shape[1]
        launch_kernel(name, self.h0, units, BLOCK, *tensors, *masks, size, units)

    def _mask(self, site: str, t: int) -> Tensor | None:
        mask = self._masks_by_step[site]
        return None if mask is None else mask[t]
