"""A GRU over a whole sequence under masks, with its own backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import gru_steps, kernel_selection, masked_products, products
from .kernel_memory import make_contiguous, resolve_bits
from .operator_arguments import (
    OPERATOR_SITES,
    GradOutputs,
    GRUInputs,
    GRUOutputs,
    GRUSaved,
    GRUWeights,
    make_grouping,
)
from .sequence_kernel import KernelArrays, SequenceKernel
from .sequence_operator import (
    SequenceOperator,
    gradients_by_loop,
    load_saved,
    needs_loop,
    save_for_backward,
    zeros_if_none,
)
from .time_steps import (
    masks_in_chunk,
    previous_hidden,
    split_steps,
    step_order,
)

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""The gradients of x, h0, w_ih, w_hh, b_ih and b_hh."""


def _forward(inputs: GRUInputs, needs_backward: bool) -> GRUOutputs:
    """Run a GRU over all steps.

    Args:
        inputs: the inputs of the operator.
        needs_backward: whether a backward pass may follow.
    """
    inputs = _with_plain_memory(inputs)
    x, h, weights, masks, reverse = inputs
    steps, batch, size = len(x), *h.shape
    hs = x.new_empty(steps, batch, size)
    count = masked_products.count_masks(masks.hidden, size)
    recurrent = products.RecurrentWeight(weights.w_hh, batch, weights.b_hh, count)
    kernel_class = kernel_selection.select_kernel("gru", x, h, recurrent)
    last = 0 if reverse else -1
    if needs_backward:
        saved = _run_steps(inputs, hs, recurrent, kernel_class, saves_every_step=True)
        return GRUOutputs(hs, hs[last].clone(), saved.gates, saved.hidden_n)
    in_one = kernel_selection.computes_input(kernel_class, masks.input)
    for chunk in [slice(None)] if in_one else split_steps(steps, batch, reverse):
        part = GRUInputs(x[chunk], h, weights, masks_in_chunk(masks, chunk), reverse)
        h = _run_steps(part, hs[chunk], recurrent, kernel_class, saves_every_step=False).hs[last]
    return GRUOutputs(hs, h.clone(), hs.new_empty(0), hs.new_empty(0))


def _with_plain_memory(inputs: GRUInputs) -> GRUInputs:
    """Return the same inputs in memory that compiled code can read."""
    x, h0, weights, masks, reverse = inputs
    w_ih, w_hh, b_ih, b_hh = weights
    weights = GRUWeights(resolve_bits(w_ih), resolve_bits(w_hh), b_ih, b_hh)
    return GRUInputs(resolve_bits(x), make_contiguous(h0), weights, masks, reverse)


def _run_steps(
    inputs: GRUInputs,
    hs: Tensor,
    recurrent: products.RecurrentWeight,
    kernel_class: type[SequenceKernel] | None,
    saves_every_step: bool,
) -> GRUSaved:
    """Run the steps for some inputs, and fill `hs`.

    Returns:
        The results. If not every step is saved, `hidden_n` holds the last step. The gates are then
        left out, so that the gates of the next steps can use their memory.
    """
    steps, batch, size = hs.shape
    weights, masks, x, input_weight = inputs.weights, inputs.masks, None, None
    saved_steps = steps if saves_every_step else 1
    if kernel_selection.computes_input(kernel_class, masks.input):
        x, input_weight = inputs.x.contiguous(), products.InputWeight(weights.w_ih, weights.b_ih)
        gates = x.new_empty(saved_steps, batch, 3 * size)
    else:
        gates = masked_products.input_gates(inputs.x, weights.w_ih, weights.b_ih, masks.input)
    hidden_n = gates.new_empty(saved_steps, batch, size)
    saved = GRUSaved(hs, gates, hidden_n)
    if kernel_class is None:
        gru_steps.run_steps(inputs, saved, recurrent)
    else:
        arrays = KernelArrays(gates, hs, x=x, hidden_n=hidden_n)
        order = step_order(steps, inputs.reverse)
        kernel = kernel_class(
            "gru", inputs.h0, masks, order, arrays, saves_every_step, input_weight
        )
        kernel.forward(recurrent)
    return saved if saves_every_step else saved._replace(gates=hs.new_empty(0))


def _fake_forward(inputs: GRUInputs, needs_backward: bool) -> GRUOutputs:
    x, h0 = inputs.x, inputs.h0
    hs = x.new_empty(x.shape[0], *h0.shape)
    gates = x.new_empty(*x.shape[:2], 3 * h0.shape[1])
    gates, hidden_n = (
        torch.empty_like(each) if needs_backward else each.new_empty(0) for each in (gates, hs)
    )
    return GRUOutputs(hs, h0.new_empty(h0.shape), gates, hidden_n)


def _backward(grad_outputs: GradOutputs, saved: GRUSaved, inputs: GRUInputs) -> Gradients:
    """Compute the gradients of a GRU's inputs.

    Args:
        grad_outputs: the gradients of every h and of the last h.
        saved: the results of the forward pass.
        inputs: the inputs of the forward pass.
    """
    grad_outputs = GradOutputs(*map(make_contiguous, grad_outputs))
    saved = GRUSaved(*map(make_contiguous, saved))
    inputs = _with_plain_memory(inputs)
    x, h0, weights, masks, reverse = inputs
    size = h0.shape[1]
    grad_gates, grad_h0 = _grad_gates(grad_outputs, saved, inputs)
    rows = grad_gates.flatten(0, 1)
    input_rows, hidden_rows = rows[:, : 3 * size], rows[:, size:]  # n, r, z; and r, z, hidden_n
    hidden_masks = masked_products.split_mask(masks.hidden, size)
    input_masks = list(masked_products.split_mask(masks.input, x.shape[2]))
    input_masks = input_masks[-1:] + input_masks[:-1]  # n, r, z
    grad_w_ih = masked_products.grad_weight(
        input_rows, lambda mask: masked_products.apply_mask(mask, x), input_masks, x.shape[2]
    )
    return (
        masked_products.grad_input(
            grad_gates[:, :, : 3 * size], weights.w_ih.roll(size, 0), input_masks
        ),
        grad_h0,
        grad_w_ih.roll(-size, 0),
        masked_products.grad_weight(
            hidden_rows,
            lambda mask: previous_hidden(h0, saved.hs, reverse, mask),
            hidden_masks,
            size,
        ),
        input_rows.sum(0).roll(-size, 0),
        hidden_rows.sum(0),
    )


def _grad_gates(
    grad_outputs: GradOutputs, saved: GRUSaved, inputs: GRUInputs
) -> tuple[Tensor, Tensor]:
    """Compute the gradients that the loop over the steps gives.

    Returns:
        The gradients of n, r and z before activation and of `hidden_n`, in one array
        `[T, B, 4*H]`; and the gradient of h0. In this order, the three gradients of the input's
        part are contiguous, and so are the three of the hidden state's part.
    """
    h0, masks = inputs.h0, inputs.masks
    steps, batch, size = saved.hs.shape
    grad_gates = saved.hs.new_empty(steps, batch, 4 * size)
    count = masked_products.count_masks(masks.hidden, size)
    recurrent = products.RecurrentWeight(inputs.weights.w_hh, batch, masks=count, backward=True)
    kernel_class = kernel_selection.select_kernel("gru", inputs.x, h0, recurrent)
    if kernel_class is None:
        return grad_gates, gru_steps.run_steps_backward(
            grad_gates, grad_outputs, saved, inputs, recurrent
        )
    grad_h = grad_outputs.grad_last.clone()
    arrays = KernelArrays(
        saved.gates,
        saved.hs,
        hidden_n=saved.hidden_n,
        grad_hs=grad_outputs.grad_hs,
        grad_gates=grad_gates,
        grad_h=grad_h,
    )
    order = step_order(steps, inputs.reverse)
    kernel = kernel_class("gru", h0, masks, order, arrays, saves_every_step=True)
    grad_masked = kernel.backward(recurrent)
    first = None if masks.hidden is None else masks.hidden[-1 if inputs.reverse else 0]
    grad_h.add_(masked_products.sum_under_masks(grad_masked, first, size))
    return grad_gates, grad_h


def _fake_backward(
    grad_outputs: GradOutputs,  # noqa: ARG001
    saved: GRUSaved,  # noqa: ARG001
    inputs: GRUInputs,
) -> Gradients:
    x, h0, w_ih, w_hh = (
        each.new_empty(each.shape)
        for each in (inputs.x, inputs.h0, inputs.weights.w_ih, inputs.weights.w_hh)
    )
    return x, h0, w_ih, w_hh, *(w_hh.new_empty(w_hh.shape[0]) for _ in range(2))  # type: ignore[return-value]


SAVED_NAMES = (
    *("h", "gates", "hidden part of n"),
    *("x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    *(f"{site.value} mask" for site in OPERATOR_SITES["GRU"]),
)
"""The names that errors use for the tensors saved for backward: `GRUSaved`, then the inputs."""

_group_inputs = make_grouping(GRUInputs)


def _setup_context(ctx: Any, inputs: GRUInputs, outputs: GRUOutputs) -> None:
    save_for_backward(ctx, outputs.saved, inputs)
    ctx.mark_non_differentiable(outputs.gates, outputs.hidden_n)
    ctx.set_materialize_grads(False)


def _compute_gradients(
    ctx: Any,
    run_backward: Callable[..., Gradients],
    in_graph: bool,
    grad_hs: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Any, ...]:
    saved, inputs = load_saved(ctx, SAVED_NAMES, GRUSaved, _group_inputs)
    grad_outputs = GradOutputs(
        zeros_if_none(grad_hs, saved.hs), zeros_if_none(grad_last, inputs.h0)
    )
    gradients: tuple[Any, ...]
    if needs_loop(grad_outputs, in_graph):
        gradients = gradients_by_loop("GRU", inputs, grad_outputs)
    else:
        gradients = run_backward(grad_outputs, saved, inputs)
    return gradients if inputs.weights.b_ih is not None else (*gradients[:4], None, None)


gru = SequenceOperator(
    "gru",
    _forward,
    _fake_forward,
    _backward,
    _fake_backward,
    _setup_context,
    _compute_gradients,
)
