"""An LSTM over a whole sequence under masks, with or without a projection of h.

It has its own backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import kernel_selection, lstm_steps, masked_products, products
from .kernel_memory import make_contiguous, resolve_bits
from .operator_arguments import (
    OPERATOR_SITES,
    GradOutputs,
    LSTMInputs,
    LSTMOutputs,
    LSTMSaved,
    LSTMWeights,
    make_grouping,
)
from .sequence_kernel import KernelArrays, SequenceKernel
from .sequence_operator import (
    SavedGates,
    SequenceOperator,
    gradients_of_saved_gates,
    load_saved,
    save_for_backward,
    zeros_if_none,
)
from .time_steps import (
    masks_in_chunk,
    previous_hidden,
    split_steps,
    step_order,
)

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""The gradients of x, h0, c0, w_ih, w_hh, the bias and the projection."""


def _forward(inputs: LSTMInputs, needs_backward: bool) -> LSTMOutputs:
    """Run an LSTM over all steps.

    Args:
        inputs: the inputs of the operator.
        needs_backward: whether a backward pass may follow.
    """
    inputs = _with_plain_memory(inputs)
    x, h, c, weights, masks, reverse = inputs
    steps, batch, size = len(x), *h.shape
    hs = x.new_empty(steps, batch, size)
    recurrent = products.RecurrentWeight(
        weights.w_hh, batch, masks=masked_products.count_masks(masks.hidden, size)
    )
    kernel_class = kernel_selection.select_kernel("lstm", x, c, recurrent, weights.w_hr)
    last = 0 if reverse else -1
    if needs_backward:
        saved = _run_steps(inputs, hs, recurrent, kernel_class, saves_every_step=True)
        return LSTMOutputs(hs, saved.cs[last].clone(), saved.cs, saved.gates, saved.tanh_cell)
    in_one = kernel_selection.computes_input(kernel_class, masks.input)
    for chunk in [slice(None)] if in_one else split_steps(steps, batch, reverse):
        part = LSTMInputs(x[chunk], h, c, weights, masks_in_chunk(masks, chunk), reverse)
        saved = _run_steps(part, hs[chunk], recurrent, kernel_class, saves_every_step=False)
        h, c = saved.hs[last], saved.cs[last]
    return LSTMOutputs(hs, c.clone(), *(hs.new_empty(0) for _ in range(3)))


def _with_plain_memory(inputs: LSTMInputs) -> LSTMInputs:
    """Return the same inputs in memory that compiled code can read."""
    x, h0, c0, weights, masks, reverse = inputs
    w_ih, w_hh, bias, w_hr = weights
    return LSTMInputs(
        resolve_bits(x),
        make_contiguous(h0),
        make_contiguous(c0),
        LSTMWeights(
            resolve_bits(w_ih),
            resolve_bits(w_hh),
            bias,
            None if w_hr is None else resolve_bits(w_hr),
        ),
        masks,
        reverse,
    )


def _run_steps(
    inputs: LSTMInputs,
    hs: Tensor,
    recurrent: products.RecurrentWeight,
    kernel_class: type[SequenceKernel] | None,
    saves_every_step: bool,
) -> LSTMSaved:
    """Run the steps for some inputs, and fill `hs`.

    Returns:
        The results. If not every step is saved, `cs` and `tanh_cell` hold the last step. The gates
        are then left out, so that the gates of the next steps can use their memory.
    """
    weights, masks, (steps, batch, _) = inputs.weights, inputs.masks, hs.shape
    size, x, input_weight = inputs.c0.shape[1], None, None
    saved_steps = steps if saves_every_step else 1
    if kernel_selection.computes_input(kernel_class, masks.input):
        x, input_weight = inputs.x.contiguous(), products.InputWeight(weights.w_ih, weights.bias)
        gates = x.new_empty(saved_steps, batch, 4 * size)
    else:
        gates = masked_products.input_gates(inputs.x, weights.w_ih, weights.bias, masks.input)
    cs, tanh_cell = (gates.new_empty(saved_steps, batch, size) for _ in range(2))
    saved = LSTMSaved(hs, cs, gates, tanh_cell)
    if kernel_class is None:
        lstm_steps.run_steps(inputs, saved, recurrent)
    else:
        arrays = KernelArrays(gates, hs, cs=cs, tanh_cell=tanh_cell, c0=inputs.c0, x=x)
        order = step_order(steps, inputs.reverse)
        kernel = kernel_class(
            "lstm", inputs.h0, masks, order, arrays, saves_every_step, input_weight
        )
        kernel.forward(recurrent, weights.w_hr)
    return saved if saves_every_step else saved._replace(gates=hs.new_empty(0))


def _fake_forward(inputs: LSTMInputs, needs_backward: bool) -> LSTMOutputs:
    x, c0 = inputs.x, inputs.c0
    hs, cs = (x.new_empty(x.shape[0], *state.shape) for state in inputs.states)
    gates = x.new_empty(*x.shape[:2], 4 * c0.shape[1])
    cs, gates, tanh_cell = (
        torch.empty_like(each) if needs_backward else each.new_empty(0) for each in (cs, gates, cs)
    )
    return LSTMOutputs(hs, c0.new_empty(c0.shape), cs, gates, tanh_cell)


def _backward(
    grad_outputs: GradOutputs, saved: LSTMSaved, inputs: LSTMInputs, may_overwrite: bool
) -> Gradients:
    """Compute the gradients of an LSTM's inputs.

    Args:
        grad_outputs: the gradients of every h and of the last c.
        saved: the results of the forward pass.
        inputs: the inputs of the forward pass.
        may_overwrite: whether the saved gates may be overwritten.
    """
    grad_outputs = GradOutputs(*map(make_contiguous, grad_outputs))
    saved = LSTMSaved(*map(make_contiguous, saved))
    inputs = _with_plain_memory(inputs)
    x, h0, c0, weights, masks, reverse = inputs
    input_masks = masked_products.split_mask(masks.input, x.shape[2])
    hidden_masks = masked_products.split_mask(masks.hidden, h0.shape[1])
    w_hr, unprojected = weights.w_hr, None
    if w_hr is not None:  # computed from the gates, before they may be overwritten
        unprojected = saved.gates[:, :, -c0.shape[1] :] * saved.tanh_cell
    grad_gates, grad_projected, grad_h0, grad_c0 = _grad_gates(
        grad_outputs, saved, inputs, may_overwrite
    )
    rows = grad_gates.flatten(0, 1)
    grad_w_hr = weights.w_hh.new_empty(0)
    if grad_projected is not None and unprojected is not None:
        grad_w_hr = products.sum_outer_products(
            grad_projected.flatten(0, 1), unprojected.flatten(0, 1)
        )
    return (
        masked_products.grad_input(grad_gates, weights.w_ih, input_masks),
        grad_h0,
        grad_c0,
        masked_products.grad_weight(
            rows, lambda mask: masked_products.apply_mask(mask, x), input_masks, x.shape[2]
        ),
        masked_products.grad_weight(
            rows,
            lambda mask: previous_hidden(h0, saved.hs, reverse, mask),
            hidden_masks,
            h0.shape[1],
        ),
        rows.sum(0),
        grad_w_hr,
    )


def _grad_gates(
    grad_outputs: GradOutputs, saved: LSTMSaved, inputs: LSTMInputs, may_overwrite: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Compute the gradients that the loop over the steps gives.

    Returns:
        The gradients of the gates before activation, `[T, B, 4*H]`; of h after the projection,
        `[T, B, P]`, or None without a projection; of h0; and of c0.
    """
    h0, weights, masks = inputs.h0, inputs.weights, inputs.masks
    (batch, width), w_hr = h0.shape, weights.w_hr
    count = masked_products.count_masks(masks.hidden, width)
    recurrent = products.RecurrentWeight(weights.w_hh, batch, masks=count, backward=True)
    grad_projected = None if w_hr is None else torch.empty_like(saved.hs)
    kernel_class = kernel_selection.select_kernel("lstm", inputs.x, inputs.c0, recurrent, w_hr)
    if kernel_class is None:
        grad_gates = torch.empty_like(saved.gates)
        grad_states = lstm_steps.run_steps_backward(
            grad_gates, grad_projected, grad_outputs, saved, inputs, recurrent
        )
        return grad_gates, grad_projected, *grad_states
    grad_gates = saved.gates if may_overwrite else torch.empty_like(saved.gates)
    grad_h, grad_c = torch.zeros_like(h0), grad_outputs.grad_last.clone()
    arrays = KernelArrays(
        saved.gates,
        saved.hs,
        cs=saved.cs,
        tanh_cell=saved.tanh_cell,
        c0=inputs.c0,
        grad_hs=grad_outputs.grad_hs,
        grad_gates=grad_gates,
        grad_projected=grad_projected,
        grad_h=grad_h,
        grad_c=grad_c,
    )
    order = step_order(len(saved.hs), inputs.reverse)
    kernel = kernel_class("lstm", h0, masks, order, arrays, saves_every_step=True)
    grad_masked = kernel.backward(recurrent, w_hr)
    first = None if masks.hidden is None else masks.hidden[-1 if inputs.reverse else 0]
    grad_h.add_(masked_products.sum_under_masks(grad_masked, first, width))
    return grad_gates, grad_projected, grad_h, grad_c


def _fake_backward(
    grad_outputs: GradOutputs,  # noqa: ARG001
    saved: LSTMSaved,  # noqa: ARG001
    inputs: LSTMInputs,
    may_overwrite: bool,  # noqa: ARG001
) -> Gradients:
    w_ih, w_hh, _, w_hr = inputs.weights
    x, h0, c0, w_ih, w_hh = (
        each.new_empty(each.shape) for each in (inputs.x, inputs.h0, inputs.c0, w_ih, w_hh)
    )
    bias, projection = w_hh.new_empty(len(w_hh)), w_hh.new_empty(0 if w_hr is None else w_hr.shape)
    return x, h0, c0, w_ih, w_hh, bias, projection


SAVED_NAMES = (
    *("h", "c", "gates", "tanh(c)"),
    *("x", "h0", "c0", "weight_ih", "weight_hh", "bias", "weight_hr"),
    *(f"{site.value} mask" for site in OPERATOR_SITES["LSTM"]),
)
"""The names that errors use for the tensors saved for backward: `LSTMSaved`, then the inputs."""

_group_inputs = make_grouping(LSTMInputs)


def _setup_context(ctx: Any, inputs: LSTMInputs, outputs: LSTMOutputs) -> None:
    save_for_backward(ctx, outputs.saved, inputs)
    ctx.gates = SavedGates(outputs.gates)
    ctx.mark_non_differentiable(outputs.cs, outputs.gates, outputs.tanh_cell)
    ctx.set_materialize_grads(False)


def _compute_gradients(
    ctx: Any,
    run_backward: Callable[..., Gradients],
    in_graph: bool,
    grad_hs: Tensor | None,
    grad_last_c: Tensor | None,
) -> tuple[Any, ...]:
    saved, inputs = load_saved(ctx, SAVED_NAMES, LSTMSaved, _group_inputs)
    grad_outputs = GradOutputs(
        zeros_if_none(grad_hs, saved.hs), zeros_if_none(grad_last_c, inputs.c0)
    )
    *others, grad_bias, grad_w_hr = gradients_of_saved_gates(
        ctx, run_backward, in_graph, "LSTM", grad_outputs, saved, inputs
    )
    weights = inputs.weights
    return (
        *others,
        None if weights.bias is None else grad_bias,
        None if weights.w_hr is None else grad_w_hr,
    )


lstm = SequenceOperator(
    "lstm",
    _forward,
    _fake_forward,
    _backward,
    _fake_backward,
    _setup_context,
    _compute_gradients,
)
