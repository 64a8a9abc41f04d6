"""The steps of a GRU with PyTorch's own functions, one after another, if no kernel runs them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import masked_products, products
from .operator_arguments import GradOutputs, GRUInputs, GRUSaved
from .time_steps import (
    by_step,
    grad_previous_outputs,
    mask_by_step,
    previous_hidden,
    split_four_gates,
    step_order,
)


def run_steps(inputs: GRUInputs, saved: GRUSaved, recurrent: products.RecurrentWeight) -> None:
    """Run all steps with PyTorch's own functions.

    Args:
        inputs: the inputs of the GRU.
        saved: the arrays to fill. Before the call, the gates hold the input's part.
        recurrent: the weight that h is multiplied by.
    """
    hs, gates, hidden_n = saved
    steps, batch, size = hs.shape
    scratch = gates.new_empty(batch, size)
    masked_h = gates.new_empty(batch, recurrent.masks * size)
    r_and_z = gates[:, :, : 2 * size].unbind(0)
    r, z, n = (gates[:, :, k * size : (k + 1) * size].unbind(0) for k in range(3))
    h_by_step, hidden_n_by_step = hs.unbind(0), by_step(hidden_n, steps)
    _, hidden, candidate, state, h_update = (
        mask_by_step(mask, steps, inputs.h0) for mask in inputs.masks
    )
    h = inputs.h0
    for t in step_order(steps, inputs.reverse):
        hidden_mask = None if hidden is None else hidden[t]
        product = recurrent.multiply(masked_products.mask_each(h, hidden_mask, out=masked_h))
        r_and_z[t].add_(product[:, : 2 * size]).sigmoid_()
        n[t].addcmul_(r[t], hidden_n_by_step[t].copy_(product[:, 2 * size :])).tanh_()
        masked_n = n[t] if candidate is None else torch.mul(n[t], candidate[t], out=scratch)
        new_h = torch.lerp(masked_n, h, z[t], out=h_by_step[t])
        if state is not None:
            new_h.mul_(state[t])
        if h_update is not None:
            new_h.lerp_(h, h_update[t])
        h = new_h


def run_steps_backward(
    grad_gates: Tensor,
    grad_outputs: GradOutputs,
    saved: GRUSaved,
    inputs: GRUInputs,
    recurrent: products.RecurrentWeight,
) -> Tensor:
    """Run the backward pass of all steps with PyTorch's own functions, and fill `grad_gates`.

    Returns:
        The gradient of h0.
    """
    grad_hs, grad_last = grad_outputs
    hs, gates, hidden_n = saved
    h0, masks, reverse = inputs.h0, inputs.masks, inputs.reverse
    steps, batch, size = hs.shape
    r, z, n = gates.view(steps, batch, 3, size).unbind(2)
    # The derivatives of h̃ by the pre-activations of n, r and z, and by hidden_n, for all steps at
    # once. The loop turns them into gradients.
    by_gate = split_four_gates(grad_gates)
    grad_n, grad_r, grad_z, grad_hidden_n = by_gate.unbind(2)
    one_minus_z = 1.0 - z
    previous = previous_hidden(h0, hs, reverse)
    masked_n = n if masks.candidate is None else n * masks.candidate
    torch.sub(previous, masked_n, out=grad_z).mul_(z).mul_(one_minus_z)
    torch.mul(n, n, out=grad_n).neg_().add_(1.0).mul_(one_minus_z)
    if masks.candidate is not None:
        grad_n.mul_(masks.candidate)
    torch.mul(grad_n, r, out=grad_hidden_n)
    torch.sub(1.0, r, out=grad_r).mul_(grad_hidden_n).mul_(hidden_n)
    grad_gates_by_step, hidden_gates_by_step = by_gate.unbind(0), grad_gates[:, :, size:].unbind(0)
    z_by_step = z.unbind(0)
    hidden, state, h_update = (
        mask_by_step(mask, steps, h0) for mask in (masks.hidden, masks.state, masks.hidden_update)
    )
    grad_previous = grad_previous_outputs(grad_hs, reverse)
    grad_h = grad_hs[0 if reverse else -1] + grad_last
    grad_h_of_gates = grad_h.unsqueeze(1)  # the same memory
    zoned_out = torch.empty_like(grad_h)
    for t in step_order(steps, not reverse):
        if h_update is not None:
            torch.mul(grad_h, h_update[t], out=zoned_out)
            grad_h.sub_(zoned_out)
        if state is not None:
            grad_h.mul_(state[t])
        grad_gates_by_step[t].mul_(grad_h_of_gates)
        grad_masked = recurrent.multiply(hidden_gates_by_step[t])
        torch.addcmul(grad_previous[t], grad_h, z_by_step[t], out=grad_h)
        hidden_mask = None if hidden is None else hidden[t]
        grad_h.add_(masked_products.sum_under_masks(grad_masked, hidden_mask, size))
        if h_update is not None:
            grad_h.add_(zoned_out)
    return grad_h
