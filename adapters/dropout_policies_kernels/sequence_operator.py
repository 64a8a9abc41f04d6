"""Operators of whole sequences with their own backward pass.

The plain loop computes the gradients that this backward pass cannot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_policies.adapter import Site

from .cells import STEP_FUNCTIONS, Weights, compute_input_gates, loop_over_steps
from .kernel_memory import is_plain
from .operator_arguments import (
    OPERATOR_SITES,
    FlatSignature,
    GradOutputs,
    Inputs,
    flatten,
)
from .tracing import has_batched_gradients, has_dispatch_mode, retains_graph


class SequenceOperator:
    """A computation over a whole sequence with its own backward pass.

    In graphs, and when a dispatch mode handles every operation, it is an operator of
    `torch.library`. Elsewhere it is an autograd function, because a call of such an operator takes
    as long as several steps of a small layer. Both take the fields of their arguments one by one.

    Args:
        name: the name of the operator.
        forward: `(inputs, needs_backward) -> outputs`, annotated. Inputs and outputs are records of
            `operator_arguments`.
        fake_forward: takes the same arguments and returns outputs of the same shapes.
        backward: maps `(grad_outputs, saved, inputs, ...)` to the gradients of the inputs that come
            before the masks, as a tuple. It is annotated.
        fake_backward: takes the same arguments and returns gradients of the same shapes.
        setup_context: `(ctx, inputs, outputs)`. It saves what `compute_gradients` needs.
        compute_gradients: maps `(ctx, run_backward, in_graph, grad_hs, grad_last)` to the gradients
            of the inputs that come before the masks. `run_backward` takes the arguments of
            `backward`. `in_graph` is True for an operator of `torch.library`.
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
        # It has no setup_context of its own. With one, each call of an autograd function would
        # inspect its signature again.
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
        """Run the operator.

        Args:
            inputs: the inputs of the operator.
            needs_backward: whether a backward pass may follow.

        Returns:
            The outputs, one by one.
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
    """Make an operator of `torch.library` from a function that takes records."""
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
    """Return the gradient of an output, or zeros if autograd has none.

    Autograd could make the zeros itself, but then it would also make them for the outputs that are
    not differentiable.
    """
    return torch.zeros_like(like) if gradient is None else gradient


def save_for_backward(ctx: Any, saved: tuple[Tensor, ...], inputs: Inputs) -> None:
    """Save an operator's inputs, and the results of the forward pass that backward needs."""
    flat: list[Any] = [*saved, *flatten(inputs)]
    *tensors, ctx.reverse = flat
    ctx.save_for_backward(*tensors)
    ctx.saved_kinds = None
    if not torch.compiler.is_compiling():
        ctx.saved_kinds = [None if x is None else (x.shape, x.dtype, x.device) for x in tensors]


def load_saved(
    ctx: Any, names: Sequence[str], saved: Any, group_inputs: Callable[[Sequence[Any]], Any]
) -> tuple[Any, Any]:
    """Load what `save_for_backward` saved.

    Args:
        ctx: the context of the autograd function.
        names: the names that errors use for the saved tensors.
        saved: the type of the record of the forward pass's results.
        group_inputs: a function that maps flat values to the record of the inputs.

    Returns:
        The two records.

    Raises:
        RuntimeError: a hook on saved tensors returned a tensor of another shape or dtype, or on
            another device.
    """
    tensors = checked_saved_tensors(ctx, names)
    count = len(saved._fields)
    return saved(*tensors[:count]), group_inputs((*tensors[count:], ctx.reverse))


def checked_saved_tensors(ctx: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the saved tensors, checked as `load_saved` describes."""
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
    """Decides whether a backward pass may overwrite the gates that were saved for it.

    The last pass through a graph may overwrite them if their memory is still the operator's own. A
    hook on saved tensors may have moved the values, for instance into a read-only file. If that
    pass fails after it began to write, the gates are lost, and the next attempt computes them
    again.

    Args:
        gates: the gates to save.
    """

    def __init__(self, gates: Tensor) -> None:
        self.is_overwritten = False
        self._address = gates.data_ptr() if is_plain(gates) else None

    def may_overwrite(self, gates: Tensor) -> bool:
        """Whether a pass that loaded these gates may overwrite them."""
        return (
            self._address is not None
            and is_plain(gates)
            and gates.data_ptr() == self._address
            and not retains_graph()
        )


def needs_loop(grad_outputs: GradOutputs, in_graph: bool) -> bool:
    """Whether the plain loop must compute an operator's gradients.

    This is so if their own gradients are wanted too, or if the given gradients are batched and so
    have no memory of their own. Outside a graph, it is also so if a given gradient is of a tensor
    subclass.
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
    """Compute the gradients of an operator whose backward pass may overwrite the saved gates.

    Args:
        ctx: the context of the autograd function, with `SavedGates` as `gates`.
        run_backward: the backward pass.
        in_graph: whether the operator is in a graph, and must not change any of its arguments.
        mode: PyTorch's name for the kind of layer.
        grad_outputs: the gradients of the operator's outputs.
        saved: the results of the forward pass.
        inputs: the operator's inputs.
    """
    if ctx.gates.is_overwritten or needs_loop(grad_outputs, in_graph):
        return gradients_by_loop(mode, inputs, grad_outputs)
    may_overwrite = not in_graph and ctx.gates.may_overwrite(saved.gates)
    ctx.gates.is_overwritten = may_overwrite
    return run_backward(grad_outputs, saved, inputs, may_overwrite)


def gradients_by_loop(mode: str, inputs: Inputs, grad_outputs: GradOutputs) -> tuple[Any, ...]:
    """Compute the gradients of an operator's inputs with the plain loop.

    If gradients are enabled, the result is differentiable itself.

    Args:
        mode: PyTorch's name for the kind of layer.
        inputs: the operator's inputs.
        grad_outputs: the gradients of the operator's outputs.

    Returns:
        The gradients of x, the states and the weights. None where no gradient is wanted.
    """
    create_graph, count = torch.is_grad_enabled(), 1 + len(inputs.states)
    with torch.enable_grad():
        # These are views, so that the derivatives end here. One input may have been computed from
        # another: a state that is carried over was computed from the weights.
        tensors = [
            x.view_as(x) if x is not None and x.requires_grad else x
            for x in (inputs.x, *inputs.states, *inputs.weights)
        ]
        x, *states = tensors[:count]
        # The one bias of an LSTM or a simple RNN is the sum of both.
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
