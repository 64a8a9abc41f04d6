"""Operators of whole sequences with a backward pass of their own, and the plain loop that computes
the gradients that this pass does not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_policies.adapter import Site

from ..cells import STEP_FUNCTIONS, Weights, compute_input_gates, loop_over_steps
from ..tracing import has_batched_gradients, has_dispatch_mode, retains_graph
from .kernel_memory import is_plain
from .operator_arguments import (
    OPERATOR_SITES,
    FlatSignature,
    GradOutputs,
    Inputs,
    flatten,
)


class SequenceOperator:
    """A computation over a whole sequence that has a backward pass of its own.

    In graphs, and where a dispatch mode handles every operation, it is an operator of
    `torch.library`. Elsewhere it is an autograd function, because a call of such an operator takes
    as long as several steps of a small layer. Both take the fields of their arguments one by one.

    Args:
        name: of the operator.
        forward: `(inputs, needs_backward) -> outputs`, records of `operator_arguments`; annotated.
        fake_forward: of the same arguments, outputs of the same shapes.
        backward: `(grad_outputs, saved, inputs, ...)` to the gradients of the inputs before the
            masks, as a tuple; annotated.
        fake_backward: of the same arguments, gradients of the same shapes.
        setup_context: `(ctx, inputs, outputs)`: saves what `compute_gradients` needs.
        compute_gradients: `(ctx, run_backward, in_graph, grad_hs, grad_last)`: the gradients of the
            inputs before the masks. `run_backward` takes the arguments of `backward`; `in_graph`
            says that it is an operator of `torch.library`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        fake_forward: Callable[..., Any],
        backward: Callable[..., Any],
        fake_backward: Callable[..., Any],
        setup_context: Callable[..., None],
        compute_gradients: Callable[..., tuple[Any, ...]],
    ) -> None:
        forward, backward = _without_autocast(forward), _without_autocast(backward)
        signature = FlatSignature(forward)
        library_backward = _library_operator(f"{name}_backward", backward, fake_backward)

        def run_library_backward(*arguments: Any) -> Any:
            return library_backward(*flatten(arguments))

        def setup_library_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
            setup_context(ctx, signature.group(inputs)[0], signature.returned(*output))

        def run_forward(ctx: Any, *flat: Any) -> tuple[Any, ...]:
            inputs, needs_backward = signature.group(flat)
            outputs = forward(inputs, needs_backward)
            setup_context(ctx, inputs, outputs)
            return tuple(outputs)

        def flat_gradients(
            ctx: Any, run_backward: Callable[..., Any], in_graph: bool, grad_outputs: Sequence[Any]
        ) -> tuple[Any, ...]:
            grads = compute_gradients(ctx, run_backward, in_graph, *grad_outputs[:2])
            return *grads, *[None] * (signature.size - len(grads))

        self.library_operator = _library_operator(name, forward, fake_forward)
        self.library_operator.register_autograd(
            lambda ctx, *grads: flat_gradients(ctx, run_library_backward, True, grads),
            setup_context=setup_library_context,
        )
        # It has no setup_context of its own: with one, each call of an autograd function would look
        # at its signature anew.
        methods = {
            "forward": run_forward,
            "backward": lambda ctx, *grads: flat_gradients(ctx, backward, False, grads),
        }
        self.autograd_function: Any = type(
            name,
            (torch.autograd.Function,),
            {method: staticmethod(function) for method, function in methods.items()},
        )

    def __call__(self, inputs: Inputs, needs_backward: bool) -> Any:
        """The outputs, one by one.

        Args:
            inputs: what the operator runs on.
            needs_backward: whether a backward pass may follow.
        """
        flat = (*flatten(inputs), needs_backward)
        if torch.compiler.is_compiling() or has_dispatch_mode():
            return self.library_operator(*flat)
        return self.autograd_function.apply(*flat)


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of records that computes in the type of its tensors, also under autocast: the
    products of a pass that runs there would come in a narrower type."""

    @functools.wraps(function)
    def run(*records: Any) -> Any:
        device = next(each for each in flatten(records) if isinstance(each, Tensor)).device.type
        if device == "meta" or not torch.is_autocast_enabled(device):
            return function(*records)
        with torch.autocast(device, enabled=False):
            return function(*records)

    return run


def _library_operator(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """A function of records as an operator of `torch.library`."""
    signature = FlatSignature(function)

    def flat_function(*flat: Any) -> tuple[Any, ...]:
        return tuple(function(*signature.group(flat)))

    def flat_fake(*flat: Any) -> tuple[Any, ...]:
        return tuple(fake(*signature.group(flat)))

    operator = torch.library.custom_op(
        f"dropout_policies::{name}", flat_function, mutates_args=(), schema=signature.schema
    )
    operator.register_fake(flat_fake)
    return operator


def zeros_if_none(gradient: Tensor | None, like: Tensor) -> Tensor:
    """An output's gradient; zeros where autograd has none. (If autograd were told to make the zeros
    itself, it would make them for the outputs that are not differentiable too.)"""
    return torch.zeros_like(like) if gradient is None else gradient


def save_for_backward(ctx: Any, saved: tuple[Tensor, ...], inputs: Inputs) -> None:
    """Save an operator's inputs, and what else its backward pass needs."""
    flat: list[Any] = [*saved, *flatten(inputs)]
    *tensors, ctx.reverse = flat
    ctx.save_for_backward(*tensors)
    ctx.saved_kinds = None
    if not torch.compiler.is_compiling():
        ctx.saved_kinds = [None if x is None else (x.shape, x.dtype, x.device) for x in tensors]


def load_saved(
    ctx: Any, names: Sequence[str], saved: Any, group_inputs: Callable[[Sequence[Any]], Any]
) -> tuple[Any, Any]:
    """What `save_for_backward` saved.

    Args:
        ctx: the context of the autograd function.
        names: how errors call the saved tensors.
        saved: the type of the first record.
        group_inputs: the function from flat values to the second.

    Raises:
        RuntimeError: a hook on saved tensors gave back a tensor of another shape or type, or on
            another device.
    """
    tensors = checked_saved_tensors(ctx, names)
    count = len(saved._fields)
    return saved(*tensors[:count]), group_inputs((*tensors[count:], ctx.reverse))


def checked_saved_tensors(ctx: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """The saved tensors; see `load_saved`."""
    tensors: tuple[Any, ...] = ctx.saved_tensors
    for name, kind, x in zip(names, ctx.saved_kinds or (), tensors, strict=False):
        if kind is not None and (x.shape, x.dtype, x.device) != kind:
            shape, dtype, device = kind
            raise RuntimeError(
                f"the saved tensor {name} had the shape {list(shape)}, {dtype}, on {device}. "
                f"Received from a hook on saved tensors: {list(x.shape)}, {x.dtype}, on {x.device}"
            )
    return tensors


class SavedGates:
    """Whether a backward pass may overwrite the gates that were saved for it.

    The last pass through a graph may, if the memory is still the operator's own: a hook on saved
    tensors may have moved the values, for instance into a file that is read only. If that pass
    fails after it began to write, the gates are lost, and the next attempt computes them again.

    Args:
        gates: the gates that are saved.
    """

    def __init__(self, gates: Tensor) -> None:
        self.is_overwritten = False
        self._address = gates.data_ptr() if is_plain(gates) else None

    def may_overwrite(self, gates: Tensor) -> bool:
        """Whether a pass that got these gates back may overwrite them."""
        return (
            self._address is not None
            and is_plain(gates)
            and gates.data_ptr() == self._address
            and not retains_graph()
        )


def needs_loop(grad_outputs: GradOutputs, in_graph: bool) -> bool:
    """Whether an operator's gradients must be computed by the plain loop: where gradients of them
    are wanted too; where they are batched, and have no memory of their own; and where one is of a
    subclass, unless the pass is part of a graph.
    """
    if torch.is_grad_enabled() or has_batched_gradients(grad_outputs):
        return True
    return not in_graph and not all(is_plain(gradient) for gradient in grad_outputs)


def gradients_of_saved_gates(
    ctx: Any,
    run_backward: Callable[..., tuple[Any, ...]],
    in_graph: bool,
    mode: str,
    grad_outputs: GradOutputs,
    saved: Any,
    inputs: Inputs,
) -> tuple[Any, ...]:
    """The gradients of an operator whose backward pass may overwrite the gates that were saved.

    Args:
        ctx: the context of the autograd function, with `SavedGates` as `gates`.
        run_backward: the backward pass.
        in_graph: whether the operator is in a graph, and may change nothing that it is given.
        mode: PyTorch's name for the kind of layer.
        grad_outputs: the gradients of its outputs.
        saved: what the forward pass computed.
        inputs: the operator's inputs.
    """
    if ctx.gates.is_overwritten or needs_loop(grad_outputs, in_graph):
        return gradients_by_loop(mode, inputs, grad_outputs)
    may_overwrite = not in_graph and ctx.gates.may_overwrite(saved.gates)
    ctx.gates.is_overwritten = may_overwrite
    return run_backward(grad_outputs, saved, inputs, may_overwrite)


def gradients_by_loop(mode: str, inputs: Inputs, grad_outputs: GradOutputs) -> tuple[Any, ...]:
    """The gradients of an operator's inputs, computed by the plain loop; differentiable themselves
    where gradients are on.

    Args:
        mode: PyTorch's name for the kind of layer.
        inputs: the operator's inputs.
        grad_outputs: the gradients of its outputs.

    Returns:
        The gradients of x, the states and the weights; None where none is wanted.
    """
    create_graph, count = torch.is_grad_enabled(), 1 + len(inputs.states)
    with torch.enable_grad():
        # Views, so that derivatives end here: one input may have been computed from another, as a
        # state that is carried over was computed from the weights.
        tensors = [
            x.view_as(x) if x is not None and x.requires_grad else x
            for x in (inputs.x, *inputs.states, *inputs.weights)
        ]
        x, *states = tensors[:count]
        # An LSTM's and a simple RNN's one bias is the sum of both.
        names = ("b_ih" if name == "bias" else name for name in inputs.weights._fields)
        weights = Weights(**dict(zip(names, tensors[count:], strict=True)))
        sites = zip(OPERATOR_SITES[mode], inputs.masks, strict=True)
        masks = {site: mask for site, mask in sites if mask is not None}
        input_mask = masks.pop(Site.INPUT, None)
        input_gates = compute_input_gates(mode, x, weights, input_mask).unbind(0)
        step = STEP_FUNCTIONS[mode]
        hs, end = loop_over_steps(
            lambda t, previous, masks: step(input_gates[t], previous, weights, masks),
            len(x),
            tuple(states),
            masks,
            None,
            inputs.reverse,
        )
    wanted = [each for each in tensors if each is not None and each.requires_grad]
    gradients = torch.autograd.grad(
        (hs, end[-1]), wanted, grad_outputs, create_graph=create_graph, allow_unused=True
    )
    by_id = {id(each): gradient for each, gradient in zip(wanted, gradients, strict=True)}
    return tuple(by_id.get(id(each)) for each in tensors)
