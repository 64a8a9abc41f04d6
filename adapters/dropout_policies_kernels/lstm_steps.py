"""The steps of an LSTM with PyTorch's own functions, one after another, if no kernel runs them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import masked_products, products
from .operator_arguments import GradOutputs, LSTMInputs, LSTMSaved
from .time_steps import (
    by_step,
    grad_previous_outputs,
    mask_by_step,
    previous_values,
    split_four_gates,
    step_order,
)


def run_steps(inputs: LSTMInputs, saved: LSTMSaved, recurrent: products.RecurrentWeight) -> None:
    """Run all steps with PyTorch's own functions.

    Args:
        inputs: the inputs of the LSTM.
        saved: the arrays to fill. Before the call, the gates hold the input's part.
        recurrent: the weight that h is multiplied by.
    """
    hs, cs, gates, tanh_cell = saved
    steps, batch, width = hs.shape
    size, w_hr = inputs.c0.shape[1], inputs.weights.w_hr
    masked_h = gates.new_empty(batch, recurrent.masks * width)
    scratch, new, unprojected = (gates.new_empty(batch, size) for _ in range(3))
    gates_by_step = gates.unbind(0)
    i_and_f = gates[:, :, : 2 * size].unbind(0)
    i, f, g, o = (gate.unbind(0) for gate in split_four_gates(gates).unbind(2))
    h_by_step = hs.unbind(0)
    c_by_step, tanh_by_step = (by_step(array, steps) for array in (cs, tanh_cell))
    h, c, masks = inputs.h0, inputs.c0, inputs.masks
    hidden, state, h_update = (
        mask_by_step(mask, steps, h) for mask in (masks.hidden, masks.state, masks.hidden_update)
    )
    candidate, cell, c_update = (
        mask_by_step(mask, steps, c) for mask in (masks.candidate, masks.cell, masks.cell_update)
    )
    for t in step_order(steps, inputs.reverse):
        hidden_mask = None if hidden is None else hidden[t]
        recurrent.add_product(
            gates_by_step[t], masked_products.mask_each(h, hidden_mask, out=masked_h)
        )
        i_and_f[t].sigmoid_()
        g[t].tanh_()
        o[t].sigmoid_()
        new_c = c_by_step[t] if c_update is None else new
        torch.mul(f[t], c, out=new_c)
        masked_i = i[t] if candidate is None else torch.mul(i[t], candidate[t], out=scratch)
        new_c.addcmul_(masked_i, g[t])
        if cell is not None:
            new_c.mul_(cell[t])
        torch.tanh(new_c, out=tanh_by_step[t])
        if c_update is not None:
            torch.lerp(new_c, c, c_update[t], out=c_by_step[t])
        new_h = h_by_step[t]
        if w_hr is None:
            torch.mul(o[t], tanh_by_step[t], out=new_h)
        else:
            torch.mm(torch.mul(o[t], tanh_by_step[t], out=unprojected), w_hr.t(), out=new_h)
        if state is not None:
            new_h.mul_(state[t])
        if h_update is not None:
            new_h.lerp_(h, h_update[t])
        h, c = new_h, c_by_step[t]


def run_steps_backward(
    grad_gates: Tensor,
    grad_projected: Tensor | None,
    grad_outputs: GradOutputs,
    saved: LSTMSaved,
    inputs: LSTMInputs,
    recurrent: products.RecurrentWeight,
) -> tuple[Tensor, Tensor]:
    """Run the backward pass of all steps with PyTorch's own functions.

    Args:
        grad_gates: filled with the gradients of the gates.
        grad_projected: with a projection, filled with the gradients of h after it. None without.
        grad_outputs: the gradients of the outputs.
        saved: the results of the forward pass.
        inputs: the inputs of the LSTM.
        recurrent: the weight that the gradients of the gates are multiplied by.

    Returns:
        The gradients of h0 and c0.
    """
    grad_hs, grad_last_c = grad_outputs
    _, cs, gates, tanh_cell = saved
    h0, c0, masks, reverse, steps = *inputs.states, inputs.masks, inputs.reverse, len(grad_hs)
    i, f, g, o = split_four_gates(gates).unbind(2)
    # The derivatives of c̃ by the pre-activations of i, f and g, and of h̃ by that of o, for all
    # steps at once. The loop turns them into gradients.
    by_gate = split_four_gates(grad_gates)
    grad_i, grad_f, grad_g, grad_o = by_gate.unbind(2)
    masked_i = i if masks.candidate is None else i * masks.candidate
    torch.mul(masked_i, g, out=grad_i).mul_(1.0 - i)
    torch.sub(1.0, f, out=grad_f).mul_(f)
    for some, previous_c in previous_values(c0, cs, reverse):
        grad_f[some].mul_(previous_c)
    torch.mul(g, g, out=grad_g).neg_().add_(1.0).mul_(masked_i)
    torch.sub(1.0, o, out=grad_o).mul_(o).mul_(tanh_cell)
    hidden_by_cell = torch.mul(tanh_cell, tanh_cell).neg_().add_(1.0).mul_(o)  # h̃ by c̃
    grad_gates_by_step = grad_gates.unbind(0)
    grad_ifg_by_step, grad_o_by_step = by_gate[:, :, :3].unbind(0), by_gate[:, :, 3].unbind(0)
    hidden_by_cell_by_step, f_by_step = hidden_by_cell.unbind(0), f.unbind(0)
    hidden, state, h_update = (
        mask_by_step(mask, steps, h0) for mask in (masks.hidden, masks.state, masks.hidden_update)
    )
    cell, c_update = (mask_by_step(mask, steps, c0) for mask in (masks.cell, masks.cell_update))
    grad_c = grad_last_c.clone()
    grad_c_of_gates = grad_c.unsqueeze(1)  # the same memory
    zoned_out_c, zoned_out_h = torch.empty_like(c0), torch.empty_like(h0)
    grad_unprojected, w_hr = torch.empty_like(c0), inputs.weights.w_hr
    grad_previous = grad_previous_outputs(grad_hs, reverse)
    grad_h = grad_hs[0 if reverse else -1].clone()
    for t in step_order(steps, not reverse):
        if h_update is not None:
            torch.mul(grad_h, h_update[t], out=zoned_out_h)
            grad_h.sub_(zoned_out_h)
        if state is not None:
            grad_h.mul_(state[t])
        grad_new = grad_h
        if w_hr is not None and grad_projected is not None:
            grad_projected[t].copy_(grad_h)
            grad_new = torch.mm(grad_h, w_hr, out=grad_unprojected)
        if c_update is not None:
            torch.mul(grad_c, c_update[t], out=zoned_out_c)
            grad_c.sub_(zoned_out_c)
        grad_c.addcmul_(grad_new, hidden_by_cell_by_step[t])
        if cell is not None:
            grad_c.mul_(cell[t])
        grad_ifg_by_step[t].mul_(grad_c_of_gates)
        grad_o_by_step[t].mul_(grad_new)
        if c_update is None:
            grad_c.mul_(f_by_step[t])
        else:
            torch.addcmul(zoned_out_c, grad_c, f_by_step[t], out=grad_c)
        grad_masked = recurrent.multiply(grad_gates_by_step[t])
        hidden_mask = None if hidden is None else hidden[t]
        grad_hidden = masked_products.sum_under_masks(grad_masked, hidden_mask, h0.shape[1])
        torch.add(grad_previous[t], grad_hidden, out=grad_h)
        if h_update is not None:
            grad_h.add_(zoned_out_h)
    return grad_h, grad_c
