"""Whole sequences with masks inside the loop, computed at once.

An operator computes the input's part of the gates in one product over all steps, and then writes to
arrays that it allocated before. Its backward pass computes the gates' derivatives for all steps at
once, makes one product at each step, and computes the weights' gradients as one product over all
steps. Where gradients of gradients are wanted, the plain loop computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dropout_policies.adapter import (
    Site,
)

from ..cells import SiteMasks, States, Weights
from ..tracing import in_torch_func, in_trace
from .gru_operator import gru
from .kernel_memory import is_plain
from .lstm_operator import lstm
from .operator_arguments import (
    OPERATOR_SITES,
    GRUInputs,
    GRUMasks,
    GRUWeights,
    LSTMInputs,
    LSTMMasks,
    LSTMWeights,
)


def supports(mode: str, weights: Weights, masks: SiteMasks, inputs: Sequence[Tensor]) -> bool:
    """Whether there is an operator for a layer under these masks `[T or 1, B or 1, F]`.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the layer's weights.
        masks: the masks inside the loop.
        inputs: x and the initial states.
    """
    if mode not in OPERATOR_SITES or weights.w_hr is not None:
        return False
    if not set(masks) <= set(OPERATOR_SITES[mode]):
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
    differentiable = (*inputs, *weights.to_list())
    return (
        not in_torch_func()
        and all(is_plain(each) for each in (*differentiable, *masks.values()))
        and all(
            forward_ad.unpack_dual(each).tangent is None  # type: ignore[no-untyped-call]
            for each in differentiable
        )
    )


def run_operator(
    mode: str, weights: Weights, x: Tensor, states: States, masks: SiteMasks, reverse: bool
) -> tuple[Tensor, States]:
    """Run an LSTM or GRU over a sequence.

    Args:
        mode: "LSTM" or "GRU".
        weights: the layer's weights.
        x: the input, `[T, B, D]`.
        states: the initial states, `[B, H]`.
        masks: the masks inside the loop, `[T or 1, B or 1, H or 1]`.
        reverse: whether steps run from the last to the first.

    Returns:
        Every h `[T, B, H]`, and the last states.
    """
    ordered = [masks.get(site) for site in OPERATOR_SITES[mode]]
    tensors = (x, *states, *weights.to_list(), *ordered)
    needs_backward = torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in tensors
    )
    w_ih, w_hh, b_ih, b_hh = weights.w_ih, weights.w_hh, weights.b_ih, weights.b_hh
    if mode == "LSTM":
        bias = None if b_ih is None or b_hh is None else b_ih + b_hh
        h0, c0 = states
        lstm_weights = LSTMWeights(w_ih, w_hh, bias)
        inputs = LSTMInputs(x, h0, c0, lstm_weights, LSTMMasks(*ordered), reverse)
        hs, c, *_ = lstm(inputs, needs_backward)
        return hs, (hs[0 if reverse else -1], c)
    (h0,) = states
    gru_weights = GRUWeights(w_ih, w_hh, b_ih, b_hh)
    hs, h, *_ = gru(GRUInputs(x, h0, gru_weights, GRUMasks(*ordered), reverse), needs_backward)
    return hs, (h,)
