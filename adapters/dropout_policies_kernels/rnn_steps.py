"""The steps of a simple RNN with PyTorch's own functions, if no kernel runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import masked_products, products
from .operator_arguments import GradOutputs, RNNInputs, RNNSaved
from .time_steps import grad_previous_outputs, mask_by_step, step_order

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rnn_tanh": torch.tanh_,
    "rnn_relu": torch.relu_,
}
"""The in-place activation of the one gate, by the operator's name."""


def _derivative(name: str, activated: Tensor) -> Tensor:
    """Compute the derivative of an activation from its result."""
    if name == "rnn_tanh":
        return torch.mul(activated, activated).neg_().add_(1.0)
    return (activated <= 0).logical_not_().to(activated.dtype)  # a NaN passes, as in PyTorch


def run_steps(
    name: str, inputs: RNNInputs, saved: RNNSaved, recurrent: products.RecurrentWeight
) -> None:
    """Run all steps with PyTorch's own functions.

    Args:
        name: the operator's name.
        inputs: the inputs of the RNN.
        saved: the arrays to fill. Before the call, the gates hold the input's part.
        recurrent: the weight that h is multiplied by.
    """
    hs, gates = saved
    h, masks, steps = inputs.h0, inputs.masks, len(hs)
    masked_h, activate = torch.empty_like(h), ACTIVATIONS[name]
    h_by_step, gates_by_step = hs.unbind(0), gates.unbind(0)
    hidden, state, h_update = (
        mask_by_step(mask, steps, h) for mask in (masks.hidden, masks.state, masks.hidden_update)
    )
    for t in step_order(steps, inputs.reverse):
        hidden_mask = None if hidden is None else hidden[t]
        recurrent.add_product(
            gates_by_step[t], masked_products.mask_each(h, hidden_mask, out=masked_h)
        )
        activated, new_h = activate(gates_by_step[t]), h_by_step[t]
        if state is None:
            new_h.copy_(activated)
        else:
            torch.mul(activated, state[t], out=new_h)
        if h_update is not None:
            new_h.lerp_(h, h_update[t])
        h = new_h


def run_steps_backward(
    name: str,
    grad_outputs: GradOutputs,
    saved: RNNSaved,
    inputs: RNNInputs,
    recurrent: products.RecurrentWeight,
) -> tuple[Tensor, Tensor]:
    """Run the backward pass of all steps with PyTorch's own functions.

    Returns:
        The gradients of the gates and of h0.
    """
    grad_hs, grad_last = grad_outputs
    h0, masks, reverse, steps = inputs.h0, inputs.masks, inputs.reverse, len(grad_hs)
    # The derivatives by the pre-activations, for all steps. The loop turns them into gradients.
    grad_gates = _derivative(name, saved.gates)
    grad_gates_by_step = grad_gates.unbind(0)
    hidden, state, h_update = (
        mask_by_step(mask, steps, h0) for mask in (masks.hidden, masks.state, masks.hidden_update)
    )
    grad_previous = grad_previous_outputs(grad_hs, reverse)
    grad_h = grad_hs[0 if reverse else -1] + grad_last
    zoned_out = torch.empty_like(grad_h)
    for t in step_order(steps, not reverse):
        if h_update is not None:
            torch.mul(grad_h, h_update[t], out=zoned_out)
            grad_h.sub_(zoned_out)
        if state is not None:
            grad_h.mul_(state[t])
        grad_masked = recurrent.multiply(grad_gates_by_step[t].mul_(grad_h))
        if hidden is None:
            torch.add(grad_previous[t], grad_masked, out=grad_h)
        else:
            torch.addcmul(grad_previous[t], grad_masked, hidden[t], out=grad_h)
        if h_update is not None:
            grad_h.add_(zoned_out)
    return grad_gates, grad_h
