"""Whole sequences under noise inside the loop, at once.

An operator takes the input's part of the gates in one product over all steps, and then touches
buffers that lie ready. Its backward pass works out for all steps at once what the gates'
derivatives are, makes one product a step, and leaves the weights' gradients as one product over all
steps. Where gradients of gradients are asked for, the plain loop stands in for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dropout_policies.adapter import (
    Site,
)

from ..cells import Noise, States, Weights
from ..tracing import in_torch_func, in_trace
from .gru_operator import gru
from .kernel_memory import is_plain
from .lstm_operator import lstm
from .sequence import SITES


def has(mode: str, weights: Weights, masks: Noise, given: Sequence[Tensor]) -> bool:
    """Whether there is an operator for a layer under these masks `[T or 1, B or 1, F]`."""
    if mode not in SITES or weights.w_hr is not None or not set(masks) <= set(SITES[mode]):
        return False
    hidden = masks.get(Site.HIDDEN)
    if hidden is not None and hidden.shape[-1] not in (1, weights.w_hh.shape[1]):
        return False
    # What leaves Python is to be made of operators that others know.
    if torch.compiler.is_exporting() or in_trace():
        return False
    if torch.compiler.is_compiling():
        return True
    # Derivatives in forward mode, and torch.func's, go through the loop.
    every = (*given, *weights.flat())
    return (
        not in_torch_func()
        and all(is_plain(each) for each in (*every, *masks.values()))
        and all(
            forward_ad.unpack_dual(each).tangent is None  # type: ignore[no-untyped-call]
            for each in every
        )
    )


def run(
    mode: str, weights: Weights, x: Tensor, states: States, masks: Noise, backward: bool
) -> tuple[Tensor, States]:
    """Every h `[T, B, H]` and the last states, of x `[T, B, D]`."""
    ordered = [masks.get(site) for site in SITES[mode]]
    w = weights
    keep = torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in (x, *states, *w.flat(), *ordered)
    )
    if mode == "LSTM":
        bias = None if w.b_ih is None or w.b_hh is None else w.b_ih + w.b_hh
        hs, c, *_ = lstm(x, *states, w.w_ih, w.w_hh, bias, *ordered, backward, keep)
        return hs, (hs[0 if backward else -1], c)
    hs, h, *_ = gru(x, *states, w.w_ih, w.w_hh, w.b_ih, w.b_hh, *ordered, backward, keep)
    return hs, (h,)
