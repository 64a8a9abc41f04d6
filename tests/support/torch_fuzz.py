"""Random calls of the PyTorch layers, whose tensors lie in memory in any way: as the layer runs
them, by the plain loop, and by the stock layer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
from dropout_policies_torch import engine, operators, products
from dropout_policies_torch.sequence import SITES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.checkpoint import checkpoint

import dropout_policies as dp
from dropout_policies.sites import UPDATES
from dropout_policies.tape import Record
from dropout_policies.testing.strategies import MIXED, policies, published

from .cases import CELLS
from .torch_layouts import ALL_LAYOUTS, FAULTS, LAYOUTS, laid_out, plain

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
"""Calls of each kind of layer in the long version of each test."""

KINDS: dict[str, tuple[type, type, str, dict[str, Any]]] = {
    "LSTM": (dpt.LSTM, nn.LSTM, "lstm", {}),
    "GRU": (dpt.GRU, nn.GRU, "gru", {}),
    "RNN": (dpt.RNN, nn.RNN, "rnn_tanh", {}),
    "RNN, relu": (dpt.RNN, nn.RNN, "rnn_relu", {"nonlinearity": "relu"}),
}
"""Our layer, the stock layer, the kind of cell, and the arguments beside the sizes."""

COMBINED = {
    "all of the update": dp.semeniuta() | dp.zoneout(0.2, 0.1) | dp.rnndrop(0.2),
    "all of the recurrence": dp.variational() | dp.semeniuta() | dp.zoneout(0.3, 0.2),
    "hidden and weights": dp.naive(0.3) | dp.weight_drop(0.4),
    "state": dp.Policy(state=dp.drop(0.2), hidden=dp.drop(0.3), name="state"),
}
"""Policies that are more than one of the catalogue's."""

SIZES = (1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33)
"""Small ones, and those around the edges of a vector of the processor."""

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}
"""How far two results may lie apart, as a part of 1 and the largest number."""

FORMS = ("steps first", "batch first", "unbatched", "packed", "packed, sorted")

BACKWARDS = (
    "once",
    "twice",
    "accumulated",
    "checkpointed",
    "second order",
    "interrupted",
    "input changed",
    "no_grad",
    "inference_mode",
)
"""What happens after the call: `interrupted` has an exception in a hook and then a second try, and
`input changed` changes a tensor in place before the gradient is taken."""


def _moved(layout: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A saved tensor in another place; those that are no plain numbers stay where they are."""

    def move(saved: Tensor) -> Tensor:
        if saved.layout != torch.strided or not saved.is_floating_point() or not saved.dim():
            return saved
        return layout(saved.detach())

    return move


SAVED: dict[str, Callable[[Tensor], Tensor]] = {
    "the same": lambda saved: saved,
    "copied": _moved(Tensor.clone),
    **{name: _moved(layout) for name, layout in LAYOUTS.items() if name != "subclass"},
}
"""What hooks for saved tensors can give back: the same numbers in another place."""

WRONGLY_SAVED = tuple(sorted(set(FAULTS) - {"nested", "quantized"}))
"""What hooks for saved tensors give back wrongly."""


class Interrupted(Exception):  # noqa: N818 - no error of the code under test
    """What a hook raises in the middle of a backward pass."""


@dataclass(frozen=True)
class Call:
    """One call of one layer, as data.

    Args:
        kind: one of `KINDS`.
        policy: what falls on it.
        input_size, hidden_size, proj_size, layers, bidirectional, bias: the layer's own arguments.
        form: one of `FORMS`.
        batch, lengths: the samples; `lengths` are their steps.
        state: whether a state is given.
        dtype, autocast: of the tensors; and of autocast, if it is on.
        device: where all of it is.
        layouts: how tensors lie in memory, by name; those that are not there are contiguous.
        one_buffer: all weights are parts of one array.
        tied: the first two layers or directions have one recurrent weight.
        owner: whose weights run: the "layer", a "deep copy", or those of a "functional_call".
        frozen: names of tensors that need no gradient.
        wanted: of those that do, which are asked for; all if it is empty.
        pulled: the outputs that the loss depends on, with the layout of each one's gradient.
        backward: one of `BACKWARDS`.
        saved: what a hook for saved tensors gives back, one of `SAVED` or `FAULTS`; None for none.
        number: which hook raises, or which tensor changes or is wrongly given back.
        threads: in the call, and in the backward pass.
        compiled: whether compiled functions take the steps where they can.
        large: whether weights are laid out for oneDNN as large ones are.
        masks: how masks that are put in lie in memory; None where they are drawn.
        draw: what the numbers are drawn from.
    """

    kind: str
    policy: dp.Policy
    input_size: int = 3
    hidden_size: int = 4
    proj_size: int = 0
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    form: str = "steps first"
    batch: int = 3
    lengths: tuple[int, ...] = (4, 4, 4)
    state: bool = True
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    device: str = "cpu"
    layouts: Mapping[str, str] = field(default_factory=dict)
    one_buffer: bool = False
    tied: bool = False
    owner: str = "layer"
    frozen: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    pulled: Mapping[str, str] = field(default_factory=lambda: {"y": "contiguous"})
    backward: str = "once"
    saved: str | None = None
    number: int = 0
    threads: tuple[int, int] = (1, 1)
    compiled: bool = True
    large: bool = False
    masks: str | None = None
    draw: int = 0

    @property
    def packed(self) -> bool:
        return self.form.startswith("packed")

    @property
    def steps(self) -> int:
        return max(self.lengths)

    @property
    def states(self) -> tuple[str, ...]:
        if not self.state:
            return ()
        return ("h0", "c0") if self.kind == "LSTM" else ("h0",)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("y", "h", "c") if self.kind == "LSTM" else ("y", "h")

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the layer's weights by name."""
        directions, out = 1 + self.bidirectional, self.proj_size or self.hidden_size
        rows = CELLS[KINDS[self.kind][2]].inside.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            width = self.input_size if layer == 0 else directions * out
            for way in range(directions):
                end = f"_l{layer}" + "_reverse" * way
                shapes["weight_ih" + end] = (rows, width)
                shapes["weight_hh" + end] = (rows, out)
                if self.bias:
                    shapes["bias_ih" + end] = shapes["bias_hh" + end] = (rows,)
                if self.proj_size:
                    shapes["weight_hr" + end] = (out, self.hidden_size)
        return shapes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors that the call is given, by name."""
        count, batch = self.layers * (1 + self.bidirectional), (self.batch,)
        x: tuple[int, ...] = (self.steps, self.batch, self.input_size)
        if self.packed:
            x = (sum(self.lengths), self.input_size)
        elif self.form == "batch first":
            x = (self.batch, self.steps, self.input_size)
        elif self.form == "unbatched":
            x, batch = (self.steps, self.input_size), ()
        widths = {"h0": self.proj_size or self.hidden_size, "c0": self.hidden_size}
        states = {name: (count, *batch, widths[name]) for name in self.states}
        return {"x": x, **states, **self.weights}

    def needs_gradient(self, name: str) -> bool:
        return self.backward not in ("no_grad", "inference_mode") and name not in self.frozen


Tensors = dict[str, Tensor]


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


def pulls(call: Call, outputs: Tensors) -> Tensors:
    """The gradients of the outputs that the loss depends on, in their layouts."""
    generator = torch.Generator().manual_seed(call.draw + 1)
    found = {}
    for name in call.outputs:  # all are drawn, so that each has the same numbers whatever is pulled
        output = outputs[name]
        made = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        if name in call.pulled:
            made = made.to(output.device, output.dtype)
            found[name] = laid_out(made, call.pulled[name])
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
        patch.setattr(operators, "has", lambda *_: False)
        yield


@contextmanager
def settings_of(call: Call) -> Iterator[None]:
    """Which functions take the steps of a call."""
    with pytest.MonkeyPatch.context() as patch:
        if not call.compiled:
            patch.setattr(engine, "engine", lambda *_: None)
        if call.large:
            patch.setattr(products, "LARGE", 1)
        yield


class Saved:
    """Hooks for saved tensors, which give back the same numbers, or something wrong.

    Args:
        call: `saved` says what; of faults, `number` says which tensor has it.
    """

    def __init__(self, call: Call) -> None:
        self.call, self.count, self.wrong = call, 0, 0

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
        self.wrong += 1
        return FAULTS[self.call.saved](saved)


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
    pulled = {n: pull for n, pull in pulls(call, outputs).items() if outputs[n].requires_grad}
    wanted = leaves(layer, call, tensors)
    if not pulled or not wanted:
        return

    def grads(**how: Any) -> Tensors:
        got = torch.autograd.grad(
            [outputs[name] for name in pulled],
            list(wanted.values()),
            list(pulled.values()),
            allow_unused=True,
            **how,
        )
        return {n: grad for n, grad in zip(wanted, got, strict=True) if grad is not None}

    if way == "twice":
        found.again = grads(retain_graph=True)
    elif way == "accumulated":
        torch.autograd.backward([outputs[name] for name in pulled], list(pulled.values()))
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
        _interrupt(call, [outputs[name] for name in pulled], grads)
    elif way == "input changed":
        change = [*(leaves(layer, call, tensors).values()), *outputs.values()]
        with torch.no_grad():
            change[call.number % len(change)].mul_(3.0)
    found.grads = grads()


def _interrupt(call: Call, outputs: Sequence[Tensor], grads: Callable[[], Tensors]) -> None:
    """Try to take the gradients, with an exception before or after one of the graph's nodes."""
    nodes = [output.grad_fn for output in outputs]
    for node in nodes:
        nodes += [n for n, _ in node.next_functions if n is not None and n not in nodes]
    number, where = divmod(call.number, 4)
    ours = [node for node in nodes if node.name() in ("lstmBackward", "gruBackward")]
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


def check_close(call: Call, what: str, ours: Tensor, theirs: Tensor) -> None:
    """Make sure that two results are the same, to rounding."""
    tolerance = TOLERANCES[call.autocast or call.dtype]
    ours, theirs = plain(ours, torch.float64), plain(theirs, torch.float64)
    assert ours.shape == theirs.shape, what
    if theirs.numel() == 0:
        return
    most = tolerance * (1.0 + theirs.abs().max())
    distance = (ours - theirs).abs().max()
    assert distance <= most, (
        f"{what}: {float(distance):.3g} apart, of {float(theirs.abs().max()):.3g}"
    )


def check_outcomes(call: Call, ours: Outcome, theirs: Outcome) -> None:
    """Make sure that a call gave the reference's outputs and gradients."""
    for name in call.outputs:
        check_close(call, name, ours.outputs[name], theirs.outputs[name])
    if ours.refused is not None:
        return
    passes = {"gradient": (ours.grads, theirs.grads)}
    if ours.again:
        second = theirs.again if call.backward == "second order" else theirs.grads
        passes["first gradient"] = (ours.again, second)
    for what, (found, expected) in passes.items():
        for name in found.keys() | expected.keys():
            some = found.get(name, expected.get(name))
            nothing = torch.zeros_like(plain(some))
            check_close(
                call, f"{what} of {name}", found.get(name, nothing), expected.get(name, nothing)
            )


def _simple(call: Call) -> Call:
    """The call as a reference makes it."""
    return replace(call, owner="layer", autocast=None, dtype=torch.float64)


def equals_plain_loop(call: Call) -> None:
    """Hold a call to the plain loop in double precision on plain copies of its tensors."""
    tensors = tensors_of(call)
    simple = _simple(call)
    copies = plain_tensors(call, tensors)
    reference = build(simple, copies)
    with plain_loop(), dp.record(reference) as drawn:
        expected = measure(reference, simple, copies, reference=True)
    layer = build(call, tensors)
    found = _measured(layer, call, tensors, _masks_put_in(layer, call, drawn))
    if found is not None:
        check_outcomes(call, found, expected)


def _measured(layer: nn.Module, call: Call, tensors: Tensors, masks: Any) -> Outcome | None:
    """What a call gives in the context that puts its masks in; or None where neither the layer nor
    the stock one has half precision."""
    try:
        with masks:
            return measure(layer, call, tensors)
    except RuntimeError:
        half = call.autocast or call.dtype
        if half in (torch.float32, torch.float64):
            raise
        given = tensors_of(call)
        with pytest.raises(RuntimeError):
            measure(build(call, given, stock=True), call, given)
        return None


def _masks_put_in(layer: nn.Module, call: Call, drawn: Record) -> Any:
    if call.masks is None:
        return nullcontext()
    lay = MASK_LAYOUTS[call.masks]
    return _replayed(
        layer,
        {
            name: [{slot: lay(mask) for slot, mask in masks.items()} for masks in each]
            for name, each in drawn.items()
        },
    )


def _replayed(layer: nn.Module, masks: Mapping[str, Any]) -> Any:
    """The context in which these are a layer's masks; where there are none, one of no effect."""
    there = any(each for made in masks.values() for each in made)
    return dp.replay(layer, masks) if there else nullcontext()


def _strided(mask: np.ndarray) -> np.ndarray:
    room = np.full([2 * size + 1 for size in mask.shape], np.nan, mask.dtype)
    part = room[tuple(slice(1, None, 2) for _ in mask.shape)]
    part[...] = mask
    return part


def _read_only(mask: np.ndarray) -> np.ndarray:
    made = mask.copy()
    made.flags.writeable = False
    return made


MASK_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "contiguous": lambda mask: mask,
    "columns first": np.asfortranarray,
    "against its order": lambda mask: np.flip(np.flip(mask).copy()),
    "every other element": _strided,
    "read only": _read_only,
    "other byte order": lambda mask: mask.astype(mask.dtype.newbyteorder()),
    "tensor": torch.from_numpy,
}
"""How masks for `dp.replay` can lie in memory."""


def whole(drawn: Record) -> Record:
    """Masks of the same shapes that keep everything."""
    return {
        name: [
            {
                slot: np.zeros_like(mask) if slot.site in UPDATES else np.ones_like(mask)
                for slot, mask in masks.items()
            }
            for masks in each
        ]
        for name, each in drawn.items()
    }


def equals_stock_under_whole_masks(call: Call) -> None:
    """Hold a call, all of whose masks keep everything, to the stock layer in double precision."""
    tensors = tensors_of(call)
    simple = _simple(call)
    copies = plain_tensors(call, tensors)
    reference_layer = build(simple, copies)
    expected = measure(build(simple, copies, stock=True), simple, copies, reference=True)
    layer = build(call, tensors)
    with plain_loop(), dp.record(reference_layer) as drawn:
        forward(reference_layer, simple, copies)
    found = _measured(layer, call, tensors, _replayed(layer, whole(drawn)))
    if found is not None:
        check_outcomes(call, found, expected)


STILL = ("no policy", "rate 0", "evaluation")
"""When a layer is the stock one, bit for bit."""


def equals_stock_exactly(call: Call, still: str) -> None:
    """Hold a call under no mask to the stock layer's on the same tensors, bit for bit.

    Args:
        call: the call.
        still: one of `STILL`; "rate 0" stands for an evaluation that is not the stock layer's.
    """
    policy, more = call.policy, {}
    if still == "evaluation" and policy.evaluation != "identity":
        still = "rate 0"
    if still == "no policy":
        more = {"policy": None, "seed": None}
    elif still == "rate 0":
        more = {"policy": policy.with_rates(0.0) if policy else policy}

    def attempt(stock: bool) -> Outcome | Exception:
        tensors = tensors_of(call)
        try:
            layer = build(call, tensors, stock, **({} if stock else more))
            return measure(layer.train(still != "evaluation"), call, tensors)
        except REFUSALS as error:
            return error

    theirs, ours = attempt(True), attempt(False)
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), (ours, theirs)
        return
    assert not isinstance(ours, Exception), ours
    assert type(ours.refused) is type(theirs.refused), (ours.refused, theirs.refused)
    for found, expected in (
        (ours.outputs, theirs.outputs),
        (ours.grads, theirs.grads),
        (ours.again, theirs.again),
    ):
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert torch.equal(plain(tensor), plain(expected[name])), name


@dataclass(frozen=True)
class Wrong:
    """A call with something wrong in one place.

    Args:
        call: the call.
        name: a tensor of the call's, or an output whose gradient is wrong: "gradient of y".
        fault: one of `FAULTS`.
    """

    call: Call
    name: str
    fault: str


def treated_as_by_stock(wrong: Wrong) -> None:
    """Make sure that what the stock layer refuses is refused with an error of its type, or of ours,
    and that what it takes gives the same numbers where every mask keeps everything."""
    call = wrong.call
    theirs = _attempt(wrong, stock=True)
    drawn: Record = {}
    ours = _attempt(wrong, drawn=drawn)
    if isinstance(theirs, Exception):
        assert isinstance(ours, Exception), f"accepted; the stock layer: {theirs!r}"
        # RuntimeError stands for its subclasses. Where the stock layer stumbles, as by an
        # AttributeError, any of these types is better.
        same = [kind for kind in REFUSALS if isinstance(theirs, kind)] or [type(theirs), *REFUSALS]
        assert isinstance(ours, (*same, dp.PolicyError)), f"{ours!r}; the stock layer: {theirs!r}"
        return
    if isinstance(ours, Exception):
        # A bias that broadcasts, a sparse weight, a state of integers: the stock layer takes them
        # by chance. But nothing is wrong with an input of more steps or samples.
        if isinstance(ours, REFUSALS) and (wrong.name != "x" or call.packed) and _changes(wrong):
            return
        raise AssertionError("the stock layer takes it") from ours
    found = _attempt(wrong, masks=whole(drawn))
    assert isinstance(found, Outcome), found
    check_outcomes(call, found, theirs)


def _attempt(
    wrong: Wrong,
    stock: bool = False,
    drawn: Record | None = None,
    masks: Record | None = None,
) -> Outcome | Exception:
    """The outcome of a wrong call, or its error; on new tensors.

    Args:
        stock: whether it is the stock layer's.
        drawn: where the masks are noted.
        masks: those that are put in.
    """
    call, tensors = wrong.call, tensors_of(wrong.call)
    change = FAULTS[wrong.fault]
    try:
        if wrong.name in tensors:
            value = tensors[wrong.name]
            tensors[wrong.name] = _wrong_leaf(change(plain(value)), value.requires_grad)
        layer = build(call, tensors, stock)
        with ExitStack() as stack:
            if drawn is not None:
                record = stack.enter_context(dp.record(layer))
            elif masks is not None:
                stack.enter_context(_replayed(layer, masks))
            stack.enter_context(threads(call.threads[0]))
            if stock:  # oneDNN's LSTM checks no weight: a wrong one ends the process
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            outputs = forward(layer, call, tensors)
            if drawn is not None:
                drawn.update(record)
        found = Outcome({name: output.detach() for name, output in outputs.items()})
        for name, output in outputs.items():
            if wrong.name == f"gradient of {name}":
                output.register_hook(change)
        named = leaves(layer, call, tensors)
        loss = [output for output in outputs.values() if output.requires_grad]
        grads = [torch.ones_like(output) for output in loss]
        got = torch.autograd.grad(loss, list(named.values()), grads, allow_unused=True)
        found.grads = {n: g for n, g in zip(named, got, strict=True) if g is not None}
    except Exception as error:  # of whatever type: it is compared
        return error
    return found


def _changes(wrong: Wrong) -> bool:
    """Whether the fault makes a tensor another one."""
    before = tensors_of(wrong.call).get(wrong.name)
    if before is None:
        return True
    after = FAULTS[wrong.fault](plain(before))
    return not (
        isinstance(after, Tensor)
        and (after.layout, after.is_nested, after.is_quantized) == (torch.strided, False, False)
        and (after.shape, after.dtype, after.device) == (before.shape, before.dtype, before.device)
    )


def _wrong_leaf(value: Any, requires_grad: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    real = value.is_floating_point() or value.is_complex()
    return value.detach().requires_grad_(requires_grad and real and not value.is_quantized)


WITHIN = ("semeniuta", "zoneout", "rnndrop")
"""Policies under which nothing but the recurrence keeps tensors for its gradient."""


@st.composite
def chosen_policies(draw: st.DrawFn, kind: str, layers: int, double: bool, inside: bool) -> Any:
    """Policies of the catalogue, combined ones; and in double precision, any.

    Args:
        double: whether it is for double precision.
        inside: whether masks fall inside the recurrence, for which there are operators.
    """
    cell = CELLS[KINDS[kind][2]].type
    if draw(st.sampled_from([False, False, True])):
        name = draw(st.sampled_from(sorted(COMBINED)))
        rules = {site.value: rule for site, rule in COMBINED[name].items() if site in cell.sites}
        return dp.Policy(name=name, **rules)
    names = [name for name in dp.names() if published(name, cell) is not None]
    if inside:
        names = [name for name in names if name in ("variational", "naive", *WITHIN)]
    elif double and draw(st.booleans()):
        return draw(policies(cell, layers, (MIXED,)))
    return published(draw(st.sampled_from(names)), cell)


@st.composite
def calls(draw: st.DrawFn, kind: str, devices: Sequence[str] = ("cpu",)) -> Call:
    """Random calls of one kind of layer."""

    def one_of(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    single, double = torch.float32, torch.float64
    dtypes = [(single, None), (double, None)]
    # Most calls are such as compiled functions take.
    usual = one_of(True, True, True, False)
    if not usual:
        low = (torch.bfloat16, torch.float16)
        dtypes += [*((single, half) for half in low), *((half, None) for half in low)]
    dtype, autocast = one_of(*dtypes)
    hidden_size, layers = one_of(*SIZES), one_of(1, 1, 1, 2, 2, 3)
    bidirectional = one_of(False, False, True)
    projected = not usual and kind == "LSTM" and hidden_size > 1 and one_of(False, True)
    form = one_of("steps first", *FORMS)
    batch = 1 if form == "unbatched" else one_of(1, 2, 3, 4, 7, 13, 17, 33)
    steps = one_of(1, 2, 3, 4, 5, 6, 11)
    lengths = (steps,) * batch
    if form.startswith("packed"):
        drawn = draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
        lengths = (steps, *sorted(drawn[1:], reverse=True))
        if form == "packed":
            lengths = lengths[1:] + lengths[:1]
    call = Call(
        kind=kind,
        policy=draw(chosen_policies(kind, layers, dtype is double, usual)),
        input_size=one_of(*SIZES),
        hidden_size=hidden_size,
        proj_size=draw(st.integers(1, hidden_size - 1)) if projected else 0,
        layers=layers,
        bidirectional=bidirectional,
        bias=one_of(True, True, False),
        form=form,
        batch=batch,
        lengths=lengths,
        state=one_of(True, True, False),
        dtype=dtype,
        autocast=autocast,
        device=one_of(*devices),
        one_buffer=one_of(False, False, False, True),
        owner=one_of("layer", "layer", "layer", "deep copy", "functional_call"),
        threads=one_of(*[(1, 1)] * 8, *[(3, 3), (3, 1), (1, 3)] * 2, (2, 2)),
        compiled=usual or one_of(True, False),
        large=one_of(False, False, False, True),
        masks=one_of(None, None, None, *MASK_LAYOUTS),
        draw=draw(st.integers(0, 2**16)),
    )
    names = list(call.shapes)
    # The tensors whose layouts matter most come up more often than the many weights.
    often = [name for name in names if name not in call.weights] * 3
    layouts = st.dictionaries(
        st.sampled_from(names + often), st.sampled_from(sorted(ALL_LAYOUTS)), max_size=4
    )
    some = st.frozensets(st.sampled_from(names), max_size=3)
    gradients = st.sampled_from(sorted(ALL_LAYOUTS))
    pulled = st.dictionaries(st.sampled_from(call.outputs), gradients, min_size=1)
    ways = [way for way in BACKWARDS if way != "second order" or dtype is double]
    backward = one_of("once", "once", "interrupted", "interrupted", *ways)
    saved = None
    if backward in ("once", "twice", "accumulated") and one_of(False, True):
        saved = one_of(*SAVED if _runs_ours(call) else ("the same", "copied"))
    frozen, wanted, laid = draw(some), draw(st.just(frozenset()) | some), draw(layouts)
    # PyTorch copies tensors of its own classes alone, and forgets others' in a backward pass.
    if call.owner == "deep copy" or backward == "checkpointed":
        laid = {name: layout for name, layout in laid.items() if layout != "subclass"}
    return replace(
        call,
        layouts=laid,
        tied=_can_be_tied(call) and one_of(False, False, False, True),
        frozen=frozen,
        wanted=wanted - frozen,
        pulled=draw(pulled),
        backward=backward,
        saved=saved,
        number=draw(st.integers(0, 40)),
    )


def _runs_ours(call: Call) -> bool:
    """Whether no layer runs in oneDNN's kernel for an LSTM, whose own gradient is wrong where what
    it saved comes back in another layout."""
    inside = set(SITES["LSTM"]) & set(call.policy)
    return call.kind != "LSTM" or call.dtype is torch.float64 or bool(inside)


def _can_be_tied(call: Call) -> bool:
    return call.layers * (1 + call.bidirectional) > 1 and not call.one_buffer


@st.composite
def wrongly_saved(draw: st.DrawFn, kind: str) -> Call:
    """Calls for which a hook for saved tensors gives something wrong back."""
    call = draw(calls(kind))
    cell = CELLS[KINDS[kind][2]].type
    names = [name for name in WITHIN if published(name, cell) is not None]
    packed, half = call.packed, call.dtype not in (torch.float32, torch.float64)
    return replace(
        call,
        policy=published(draw(st.sampled_from(names)), cell),
        form="steps first" if packed else call.form,
        lengths=(call.steps,) * call.batch,
        proj_size=0,
        # A subclass runs in the plain loop, of whose saved tensors only PyTorch knows.
        layouts={n: layout for n, layout in call.layouts.items() if layout != "subclass"},
        dtype=torch.float32 if half else call.dtype,
        autocast=None,
        compiled=True,
        backward=draw(st.sampled_from(["once", "twice", "accumulated"])),
        saved=draw(st.sampled_from(WRONGLY_SAVED)),
    )


@st.composite
def wrong_calls(draw: st.DrawFn, kind: str, faults: Sequence[str] = tuple(FAULTS)) -> Wrong:
    """Calls with something wrong in one place."""
    call = draw(calls(kind))
    owner = "layer" if call.owner == "deep copy" else call.owner
    call = replace(
        call,
        dtype=call.dtype if _runs_ours(call) else torch.float64,
        autocast=None,
        owner=owner,
        layouts={},
        one_buffer=False,
        tied=False,
        frozen=frozenset(),
        wanted=frozenset(),
        backward="once",
        saved=None,
        masks=None,
        compiled=True,
    )
    gradients = [f"gradient of {name}" for name in call.outputs]
    names = [*call.shapes, *(name for name in call.shapes if name not in call.weights), *gradients]
    return Wrong(call, draw(st.sampled_from(names)), draw(st.sampled_from(list(faults))))


def fuzz(
    check: Callable[[Any], None],
    cases: st.SearchStrategy[Any],
    examples: int,
    shrink: bool = True,
) -> None:
    """Check random cases.

    Args:
        check: of one case; raises if it is not as it must be.
        cases: what to draw from.
        examples: how many to draw.
        shrink: whether to look for a smaller case than the first that fails.
    """
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    @settings(
        max_examples=examples,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def holds(case: Any) -> None:
        check(case)

    holds()
