"""Running a random call of a PyTorch layer, and measuring what comes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import dropout_policies_torch as dpt
import pytest
import torch
from dropout_policies_kernels import kernel_selection, operators, products
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.checkpoint import checkpoint

from .torch_fuzz_calls import KINDS, SAVED, Call, Interrupted, Tensors
from .torch_layouts import FAULTS, laid_out, plain


@dataclass
class Outcome:
    """The outputs of a call, its gradients by input; and those of a second pass, if there was one.

    `refused`: the error that the backward pass ended with, where it may.
    """

    outputs: Tensors
    grads: Tensors = field(default_factory=dict)
    again: Tensors = field(default_factory=dict)
    refused: Exception | None = None


def values(call: Call) -> Tensors:
    """The numbers of a call, contiguous."""
    generator = torch.Generator().manual_seed(call.draw)

    def normal(name: str, shape: tuple[int, ...]) -> Tensor:
        scale = 0.8 / shape[-1] ** 0.5 if name.startswith("weight") else 0.5
        made = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        return made.to(call.device, call.dtype)

    found = {name: normal(name, shape) for name, shape in call.shapes.items()}
    if call.tied:
        _tie(found)
    return found


def _tie(tensors: Tensors) -> None:
    first, second = [name for name in tensors if name.startswith("weight_hh")][:2]
    tensors[second] = tensors[first]


def tensors_of(call: Call) -> Tensors:
    """What the call is given: its numbers in their layouts, as leaves."""
    found = values(call)
    if call.one_buffer:
        names = list(call.weights)
        buffer = torch.cat([found[name].flatten() for name in names])
        parts = buffer.split([found[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            found[name] = part.view(found[name].shape).requires_grad_(call.needs_gradient(name))
    for name, value in found.items():
        if not (call.one_buffer and name in call.weights):
            layout = call.layouts.get(name, "contiguous")
            found[name] = laid_out(value, layout, call.needs_gradient(name))
    if call.tied:
        _tie(found)
    return found


def plain_tensors(call: Call, tensors: Tensors) -> Tensors:
    """The same numbers in double precision, each in memory of its own."""
    found = {
        name: plain(value, torch.float64).requires_grad_(call.needs_gradient(name))
        for name, value in tensors.items()
    }
    if call.tied:
        _tie(found)
    return found


def build(call: Call, tensors: Tensors, stock: bool = False, **arguments: Any) -> nn.Module:
    """The layer of a call, or the stock one, with these weights.

    Args:
        arguments: in place of `policy` and `seed`.
    """
    ours, theirs, _, more = KINDS[call.kind]
    if call.proj_size:
        more = more | {"proj_size": call.proj_size}
    if not stock:
        more = {"policy": call.policy, "seed": 5} | more | arguments
    layer = (theirs if stock else ours)(
        call.input_size,
        call.hidden_size,
        call.layers,
        bias=call.bias,
        batch_first=call.form == "batch first",
        bidirectional=call.bidirectional,
        dtype=call.dtype,
        device=call.device,
        **more,
    )
    if call.owner != "functional_call":
        for name in call.weights:
            setattr(layer, name, _parameter(tensors[name]))
        if call.tied:
            first, second = [name for name in call.weights if name.startswith("weight_hh")][:2]
            setattr(layer, second, getattr(layer, first))
    return copy.deepcopy(layer) if call.owner == "deep copy" else layer


def _parameter(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(value.detach(), requires_grad=value.requires_grad)


def forward(layer: nn.Module, call: Call, tensors: Tensors) -> Tensors:
    """The outputs of one call by name: y, h, and of an LSTM c."""
    x: Any = tensors["x"]
    if call.packed:
        lengths = torch.tensor(call.lengths)
        order = None
        if call.form == "packed":
            lengths, order = lengths.sort(descending=True)
        sizes = (torch.arange(call.steps)[:, None] < lengths).sum(1)
        back = None if order is None else order.argsort()
        order, back = (each if each is None else each.to(call.device) for each in (order, back))
        x = PackedSequence(x, sizes, order, back)
    states = tuple(tensors[name] for name in call.states)
    hx = None if not states else states if call.kind == "LSTM" else states[0]
    if call.owner == "functional_call":
        weights = {name: tensors[name] for name in call.weights}
        y, end = torch.func.functional_call(layer, weights, (x, hx), tie_weights=False)
    else:
        y, end = layer(x, hx)
    y = y.data if call.packed else y
    return dict(zip(call.outputs, (y, *end) if call.kind == "LSTM" else (y, end), strict=True))


def leaves(layer: nn.Module, call: Call, tensors: Tensors) -> Tensors:
    """What gradients are taken of, by name."""
    found = {name: tensors[name] for name in call.shapes if name not in call.weights}
    for name in call.weights:
        found[name] = tensors[name] if call.owner == "functional_call" else getattr(layer, name)
    every = {name: leaf for name, leaf in found.items() if getattr(leaf, "requires_grad", False)}
    return {name: leaf for name, leaf in every.items() if name in call.wanted} or every


def grad_outputs(call: Call, outputs: Tensors) -> Tensors:
    """The gradients of the outputs that the loss depends on, in their layouts."""
    generator = torch.Generator().manual_seed(call.draw + 1)
    found = {}
    for name in call.outputs:  # all are drawn, so that each has the same numbers in every loss
        output = outputs[name]
        made = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        if name in call.grad_layouts:
            made = made.to(output.device, output.dtype)
            found[name] = laid_out(made, call.grad_layouts[name])
    return found


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def plain_loop() -> Iterator[None]:
    """Every sequence by the plain loop, which autograd differentiates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "supports", lambda *_: False)
        yield


@contextmanager
def settings_of(call: Call) -> Iterator[None]:
    """Which functions take the steps of a call."""
    with pytest.MonkeyPatch.context() as patch:
        if not call.compiled:
            patch.setattr(kernel_selection, "select_kernel", lambda *_: None)
        if call.large:
            patch.setattr(products, "MIN_PACKED_ENTRIES", 1)
        yield


class Saved:
    """Hooks for saved tensors, which give back the same numbers, or something wrong.

    Args:
        call: `saved` says what; of faults, `number` says which tensor has it.
    """

    def __init__(self, call: Call) -> None:
        self.call, self.count = call, 0

    def pack(self, saved: Tensor) -> tuple[int, Tensor]:
        self.count += 1
        return self.count - 1, saved

    def unpack(self, packed: tuple[int, Tensor]) -> Any:
        number, saved = packed
        change = SAVED.get(self.call.saved)
        if change is not None:
            return change(saved)
        if number != self.call.number % self.count or not saved.dim():
            return saved
        wrong = FAULTS[self.call.saved](saved)
        # Other numbers alone, as of a square matrix that was transposed, nobody could tell.
        return saved if _looks_like(wrong, saved) else wrong


def _looks_like(found: Any, saved: Tensor) -> bool:
    """Whether something is a tensor with the shape, type and place of a saved one."""
    return (
        isinstance(found, Tensor)
        and (found.layout, found.is_nested, found.is_quantized) == (saved.layout, False, False)
        and (found.shape, found.dtype, found.device) == (saved.shape, saved.dtype, saved.device)
    )


def measure(layer: nn.Module, call: Call, tensors: Tensors, reference: bool = False) -> Outcome:
    """Make a call, and take its gradients as the call says.

    Args:
        layer: the layer, or the stock one.
        call: what is to be done.
        tensors: what it is given.
        reference: only the numbers are wanted, in the plainest way.
    """
    way = "once" if reference and call.backward not in NUMBERS else call.backward
    modes = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    with ExitStack() as stack:
        stack.enter_context(modes.get(way, nullcontext)())
        if not reference:
            stack.enter_context(settings_of(call))
            stack.enter_context(threads(call.threads[0]))
            if call.autocast is not None:
                stack.enter_context(torch.autocast(call.device, call.autocast))
            if call.saved is not None:
                hooks = Saved(call)
                stack.enter_context(
                    torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack)
                )
        if way == "checkpointed":
            outputs = _checkpointed(layer, call, tensors)
        else:
            outputs = forward(layer, call, tensors)
    found = Outcome({name: output.detach().clone() for name, output in outputs.items()})
    if way in modes:
        return found
    with ExitStack() as stack:
        if not reference:
            stack.enter_context(settings_of(call))
            stack.enter_context(threads(call.threads[1]))
        try:
            _take_gradients(found, layer, call, tensors, outputs, way)
        except Exception as error:
            # Saved tensors that come back wrong, or that somebody has changed.
            if reference or not (way in MAY_REFUSE or call.saved in FAULTS):
                raise
            found.refused = error
    return found


NUMBERS = ("no_grad", "inference_mode", "second order")
"""Ways of a backward pass that give other numbers than "once"."""

MAY_REFUSE = ("interrupted", "input changed")

REFUSALS = (RuntimeError, TypeError, ValueError)


def _checkpointed(layer: nn.Module, call: Call, tensors: Tensors) -> Tensors:
    return checkpoint(
        lambda: forward(layer, call, tensors),
        use_reentrant=False,
        context_fn=lambda: dpt.same_masks(layer),
    )


def _take_gradients(
    found: Outcome, layer: nn.Module, call: Call, tensors: Tensors, outputs: Tensors, way: str
) -> None:
    loss_grads = {
        n: grad for n, grad in grad_outputs(call, outputs).items() if outputs[n].requires_grad
    }
    wanted = leaves(layer, call, tensors)
    if not loss_grads or not wanted:
        return

    def grads(**how: Any) -> Tensors:
        got = torch.autograd.grad(
            [outputs[name] for name in loss_grads],
            list(wanted.values()),
            list(loss_grads.values()),
            allow_unused=True,
            **how,
        )
        return {n: grad for n, grad in zip(wanted, got, strict=True) if grad is not None}

    if way == "twice":
        found.again = grads(retain_graph=True)
    elif way == "accumulated":
        torch.autograd.backward([outputs[name] for name in loss_grads], list(loss_grads.values()))
        found.grads = {n: leaf.grad for n, leaf in wanted.items() if leaf.grad is not None}
        return
    elif way == "second order":
        first = grads(create_graph=True)
        loss = sum(grad.sin().sum() for grad in first.values() if grad.requires_grad)
        found.again = {name: grad.detach() for name, grad in first.items()}
        if not isinstance(loss, Tensor):
            return
        got = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        found.grads = {n: grad for n, grad in zip(wanted, got, strict=True) if grad is not None}
        return
    elif way == "interrupted":
        _interrupt(call, [outputs[name] for name in loss_grads], grads)
    elif way == "input changed":
        change = [*(leaves(layer, call, tensors).values()), *outputs.values()]
        with torch.no_grad():
            change[call.number % len(change)].mul_(3.0)
    found.grads = grads()


OPERATOR_NODES = tuple(f"{name}Backward" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"))
"""How autograd calls the operators."""


def _interrupt(call: Call, outputs: Sequence[Tensor], grads: Callable[[], Tensors]) -> None:
    """Try to take the gradients, with an exception before or after one of the graph's nodes."""
    nodes = [output.grad_fn for output in outputs]
    for node in nodes:
        nodes += [n for n, _ in node.next_functions if n is not None and n not in nodes]
    number, where = divmod(call.number, 4)
    ours = [node for node in nodes if node.name() in OPERATOR_NODES]
    # After one of ours, for it has then begun to write over what was saved for it.
    nodes = ours if ours and where > 1 else nodes

    def interrupt(*_: Any) -> None:
        raise Interrupted

    node = nodes[number % len(nodes)]
    hook = (node.register_prehook if where == 0 else node.register_hook)(interrupt)
    try:
        grads()
    except Interrupted:
        pass
    finally:
        hook.remove()
