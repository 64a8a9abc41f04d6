"""A simple RNN over a whole sequence under masks, with its own backward pass.

There is one operator for each activation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import kernel_selection, masked_products, products, rnn_steps
from .kernel_memory import make_contiguous, resolve_bits
from .operator_arguments import (
    OPERATOR_SITES,
    GradOutputs,
    RNNInputs,
    RNNOutputs,
    RNNSaved,
    RNNWeights,
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

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""The gradients of x, h0, w_ih, w_hh and the bias."""


def _run(name: str, inputs: RNNInputs, needs_backward: bool) -> RNNOutputs:
    """Run a simple RNN over all steps.

    Args:
        name: the name of the operator.
        inputs: the inputs of the operator.
        needs_backward: whether a backward pass may follow.
    """
    inputs = _with_plain_memory(inputs)
    x, h, weights, masks, reverse = inputs
    steps, batch, size = len(x), *h.shape
    hs = x.new_empty(steps, batch, size)
    recurrent, last = products.RecurrentWeight(weights.w_hh, batch), 0 if reverse else -1
    kernel_class = kernel_selection.select_kernel(name, x, h, recurrent)
    if needs_backward:
        saved = _run_steps(name, inputs, hs, recurrent, kernel_class, saves_every_step=True)
        return RNNOutputs(hs, hs[last].clone(), saved.gates)
    in_one = kernel_selection.computes_input(kernel_class, None)
    for chunk in [slice(None)] if in_one else split_steps(steps, batch, reverse):
        part = RNNInputs(x[chunk], h, weights, masks_in_chunk(masks, chunk), reverse)
        h = _run_steps(name, part, hs[chunk], recurrent, kernel_class, saves_every_step=False).hs[
            last
        ]
    return RNNOutputs(hs, h.clone(), hs.new_empty(0))


def _with_plain_memory(inputs: RNNInputs) -> RNNInputs:
    """Return the same inputs in memory that compiled code can read."""
    x, h0, (w_ih, w_hh, bias), masks, reverse = inputs
    weights = RNNWeights(resolve_bits(w_ih), resolve_bits(w_hh), bias)
    return RNNInputs(resolve_bits(x), make_contiguous(h0), weights, masks, reverse)


def _run_steps(
    name: str,
    inputs: RNNInputs,
    hs: Tensor,
    recurrent: products.RecurrentWeight,
    kernel_class: type[SequenceKernel] | None,
    saves_every_step: bool,
) -> RNNSaved:
    """Run the steps for some inputs, and fill `hs`."""
    (w_ih, _, bias), masks, x, input_weight = inputs.weights, inputs.masks, None, None
    if kernel_selection.computes_input(kernel_class, None):
        x, input_weight = inputs.x.contiguous(), products.InputWeight(w_ih, bias)
        gates = hs.new_empty(len(hs) if saves_every_step else 1, *hs.shape[1:])
    else:
        gates = products.linear(inputs.x, w_ih, bias)
    saved = RNNSaved(hs, gates)
    if kernel_class is None:
        rnn_steps.run_steps(name, inputs, saved, recurrent)
    else:
        arrays, order = KernelArrays(gates, hs, x=x), step_order(len(hs), inputs.reverse)
        kernel = kernel_class(name, inputs.h0, masks, order, arrays, saves_every_step, input_weight)
        kernel.forward(recurrent)
    return saved


def _fake_forward(inputs: RNNInputs, needs_backward: bool) -> RNNOutputs:
    x, h0 = inputs.x, inputs.h0
    hs = x.new_empty(x.shape[0], *h0.shape)
    gates = torch.empty_like(hs) if needs_backward else hs.new_empty(0)
    return RNNOutputs(hs, h0.new_empty(h0.shape), gates)


def _run_backward(
    name: str, grad_outputs: GradOutputs, saved: RNNSaved, inputs: RNNInputs, may_overwrite: bool
) -> Gradients:
    """Compute the gradients of a simple RNN's inputs.

    Args:
        name: the name of the operator.
        grad_outputs: the gradients of every h and of the last h.
        saved: the results of the forward pass.
        inputs: the inputs of the forward pass.
        may_overwrite: whether the saved gates may be overwritten.
    """
    grad_outputs = GradOutputs(*map(make_contiguous, grad_outputs))
    saved = RNNSaved(*map(make_contiguous, saved))
    inputs = _with_plain_memory(inputs)
    x, h0, weights, masks, reverse = inputs
    grad_gates, grad_h0 = _grad_gates(name, grad_outputs, saved, inputs, may_overwrite)
    rows = grad_gates.flatten(0, 1)
    previous = previous_hidden(h0, saved.hs, reverse, masks.hidden)
    return (
        products.linear(grad_gates, weights.w_ih.t()),
        grad_h0,
        products.sum_outer_products(rows, x.flatten(0, 1)),
        products.sum_outer_products(rows, previous.flatten(0, 1)),
        rows.sum(0),
    )


def _grad_gates(
    name: str, grad_outputs: GradOutputs, saved: RNNSaved, inputs: RNNInputs, may_overwrite: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of the gates before activation, `[T, B, H]`, and of h0."""
    h0, masks = inputs.h0, inputs.masks
    recurrent = products.RecurrentWeight(inputs.weights.w_hh, len(h0), backward=True)
    kernel_class = kernel_selection.select_kernel(name, inputs.x, h0, recurrent)
    if kernel_class is None:
        return rnn_steps.run_steps_backward(name, grad_outputs, saved, inputs, recurrent)
    grad_gates = saved.gates if may_overwrite else torch.empty_like(saved.gates)
    grad_h = grad_outputs.grad_last.clone()
    arrays = KernelArrays(
        saved.gates,
        saved.hs,
        grad_hs=grad_outputs.grad_hs,
        grad_gates=grad_gates,
        grad_h=grad_h,
    )
    order = step_order(len(saved.hs), inputs.reverse)
    kernel = kernel_class(name, h0, masks, order, arrays, saves_every_step=True)
    grad_masked = kernel.backward(recurrent)
    first = None if masks.hidden is None else masks.hidden[-1 if inputs.reverse else 0]
    grad_h.add_(masked_products.sum_under_masks(grad_masked, first, h0.shape[1]))
    return grad_gates, grad_h


def _fake_backward(
    grad_outputs: GradOutputs,  # noqa: ARG001
    saved: RNNSaved,  # noqa: ARG001
    inputs: RNNInputs,
    may_overwrite: bool,  # noqa: ARG001
) -> Gradients:
    w_ih, w_hh, _ = inputs.weights
    x, h0, w_ih, w_hh = (each.new_empty(each.shape) for each in (inputs.x, inputs.h0, w_ih, w_hh))
    return x, h0, w_ih, w_hh, w_hh.new_empty(len(w_hh))


SAVED_NAMES = (
    *("h", "gates"),
    *("x", "h0", "weight_ih", "weight_hh", "bias"),
    *(f"{site.value} mask" for site in OPERATOR_SITES["RNN_TANH"]),
)
"""The names that errors use for the tensors saved for backward: `RNNSaved`, then the inputs."""

_group_inputs = make_grouping(RNNInputs)


def _setup_context(ctx: Any, inputs: RNNInputs, outputs: RNNOutputs) -> None:
    save_for_backward(ctx, outputs.saved, inputs)
    ctx.gates = SavedGates(outputs.gates)
    ctx.mark_non_differentiable(outputs.gates)
    ctx.set_materialize_grads(False)


def _make_operator(name: str) -> SequenceOperator:
    def forward(inputs: RNNInputs, needs_backward: bool) -> RNNOutputs:
        return _run(name, inputs, needs_backward)

    def backward(
        grad_outputs: GradOutputs, saved: RNNSaved, inputs: RNNInputs, may_overwrite: bool
    ) -> Gradients:
        return _run_backward(name, grad_outputs, saved, inputs, may_overwrite)

    def compute_gradients(
        ctx: Any,
        run_backward: Callable[..., Gradients],
        in_graph: bool,
        grad_hs: Tensor | None,
        grad_last: Tensor | None,
    ) -> tuple[Any, ...]:
        saved, inputs = load_saved(ctx, SAVED_NAMES, RNNSaved, _group_inputs)
        grad_outputs = GradOutputs(
            zeros_if_none(grad_hs, saved.hs), zeros_if_none(grad_last, inputs.h0)
        )
        gradients = gradients_of_saved_gates(
            ctx, run_backward, in_graph, name.upper(), grad_outputs, saved, inputs
        )
        return gradients if inputs.weights.bias is not None else (*gradients[:4], None)

    return SequenceOperator(
        name, forward, _fake_forward, backward, _fake_backward, _setup_context, compute_gradients
    )


rnn_tanh = _make_operator("rnn_tanh")
rnn_relu = _make_operator("rnn_relu")
