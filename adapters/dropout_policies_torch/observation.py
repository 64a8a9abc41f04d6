"""How the recurrent layers of a model are connected, seen in a run of it on an example.

Every function of PyTorch that runs is seen, and every call of a module. What is known of a tensor
(its `Origin`) passes through operations without weights, and ends at those with weights.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from dropout_policies.adapter import (
    DropoutUse,
    ExistingDropout,
    LayerUse,
    PolicyError,
    RecurrentLayer,
    Wiring,
)

from .existing_dropout import find_dropouts
from .model_state import capture_state, restore_state

DROPOUT_FUNCTIONS = frozenset(
    name + suffix
    for name in (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "native_dropout"),
        *("alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    )
    for suffix in ("", "_")
)
"""PyTorch's functions `(input, p, training, ...)`."""

ASSEMBLING = frozenset(
    {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "where", "__setitem__"}
)
"""Functions that put values side by side: a weight among them, such as a learned first input,
leaves the others what they are."""

LIKE_FIRST = frozenset(
    {"type_as", "view_as", "expand_as", "reshape_as", "to", "__getitem__", "index_select"}
)
"""Functions whose other arguments only say in what form the first one is wanted."""

MADE_NEW = ("new_", "zeros_like", "ones_like", "empty_like", "full_like", "rand", "zero_", "fill_")
"""How functions begin that take nothing of their argument but its form."""


@dataclass(eq=False)
class LayerCall:
    """One call of a recurrent layer.

    Args:
        item: the layer.
        steps: T.
        inputs: where its input comes from.
        state: where its initial state comes from.
        output_goes: where its output was seen to go.
        state_is_used: whether another layer, or an operation with weights, took its last state.
    """

    item: RecurrentLayer
    steps: int
    inputs: Origin
    state: Origin
    output_goes: set[Any] = field(default_factory=set)
    state_is_used: bool = False


@dataclass(eq=False)
class DropoutCall:
    """One call of a dropout."""

    dropout: ExistingDropout
    inputs: Origin
    is_active: bool = True
    layers: list[RecurrentLayer] = field(default_factory=list)
    goes_elsewhere: bool = False


@dataclass(frozen=True)
class Origin:
    """What is known of a tensor.

    Args:
        outputs: the layer calls whose output it comes from, through operations without weights.
        states: the layer calls whose last state it comes from so.
        dropouts: the dropout calls on the way.
        is_weight: whether it is a parameter, or made of parameters alone.
    """

    outputs: frozenset[LayerCall] = frozenset()
    states: frozenset[LayerCall] = frozenset()
    dropouts: frozenset[DropoutCall] = frozenset()
    is_weight: bool = False

    def __or__(self, other: Origin) -> Origin:
        return Origin(
            self.outputs | other.outputs,
            self.states | other.states,
            self.dropouts | other.dropouts,
        )


NOWHERE = Origin()


def observe_wiring(model: nn.Module, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Run a model on an example, and see how its recurrent layers are connected.

    It runs in evaluation mode; and once more in training mode, since dropout may be in code that
    runs only there. Nothing of either run remains.

    Args:
        model: the model.
        found: its recurrent layers.
        example: as `dropout_policies.apply` takes it.

    Raises:
        PolicyError: the model does not run on the example.
    """
    run = as_function(model, example)
    dropouts = find_dropouts(model, found)
    seen = _observe(model, found, dropouts, run, training=False)
    notes: list[str] = []
    try:
        trained = _observe(model, found, dropouts, run, training=True)
    except PolicyError as error:
        trained = None
        notes.append(f"seen in evaluation mode alone: in training {error}")
    calls = seen.dropout_calls
    if trained is not None:
        again = {call.dropout.layer for call in trained.dropout_calls}
        calls = [c for c in calls if c.dropout.layer is not None and c.dropout.layer not in again]
        calls += [call for call in trained.dropout_calls if call.is_active]
    ran = {call.dropout for call in calls}
    uses, feedback = _as_layer_uses(seen.layer_calls)
    notes += [
        f"what leaves {source.name} comes back into {target.name} at a later step: a mask on the "
        f"output of the one and a mask on the input of the other both fall on it"
        for source, target in feedback
    ]
    return Wiring(
        found,
        uses,
        [_as_dropout_use(call) for call in calls],
        [dropout for dropout in dropouts.values() if dropout not in ran],
        notes=[*notes, *seen.notes],
        observed=True,
    )


def as_function(model: nn.Module, example: Any) -> Callable[[], Any]:
    """What runs a model on an example: the example itself if it is a function, or a call with it as
    one input, several, or keywords, as the model's `forward` can take it."""
    is_data = isinstance(example, Tensor | PackedSequence | Mapping | nn.Module)
    if callable(example) and not is_data:
        return example  # type: ignore[no-any-return]
    model = _unwrapped(model)
    if hasattr(example, "__next__"):
        example = next(example)
    many: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((example,), {})]
    if isinstance(example, tuple) and not hasattr(example, "_fields"):
        many.insert(0, (example, {}))
    elif isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        many.insert(0, ((), dict(example)))
    signature = inspect.signature(model.forward)
    args, kwargs = next((one for one in many if _binds(signature, *one)), many[0])
    return lambda: model(*args, **kwargs)


def _binds(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of DDP or DataParallel, whose call may wait for other processes."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _observe(
    model: nn.Module,
    found: Sequence[RecurrentLayer],
    dropouts: Mapping[nn.Module, ExistingDropout],
    run: Callable[[], Any],
    training: bool,
) -> Observer:
    """One run of the model under observation."""
    observer = Observer(model, found, dropouts)
    modes = [(module, module.training) for module in model.modules()]
    state = capture_state(model)
    try:
        model.train(training)
        with torch.no_grad(), _run_uncompiled(), observer.watching():
            result = run()
        observer.consume(*find_values(result))
    except Exception as error:
        raise PolicyError(
            f"{type(model).__name__} does not run on the example: {type(error).__name__}: {error}. "
            f"Write example=x for one input, example=(x, y) for several, example={{'name': x}} for "
            f"keywords, or example=lambda: model(...) for any call."
        ) from error
    finally:
        restore_state(state)
        for module, mode in modes:
            module.training = mode
    return observer


def _run_uncompiled() -> AbstractContextManager[Any]:
    """Have what `torch.compile` compiled run as it was written, so that it can be seen."""
    is_used = "torch._dynamo" in sys.modules  # which nothing should load for this alone
    return torch.compiler.set_stance("force_eager") if is_used else nullcontext()


def find_values(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of tuples, lists, mappings and objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(find_values, value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from chain.from_iterable(map(find_values, value))
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        for part in vars(value).values():
            if isinstance(part, Tensor | list | tuple | dict):
                yield from find_values(part)


class Observer(TorchFunctionMode):
    """Follows tensors through a run.

    Args:
        model: the model.
        found: its recurrent layers.
        dropouts: its dropout modules.
    """

    def __init__(
        self,
        model: nn.Module,
        found: Sequence[RecurrentLayer],
        dropouts: Mapping[nn.Module, ExistingDropout],
    ) -> None:
        super().__init__()
        self.layers = {item.layer: item for item in found}
        self.dropouts = dropouts
        self.layer_calls: list[LayerCall] = []
        self.dropout_calls: list[DropoutCall] = []
        self.notes: list[str] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._functions: dict[tuple[str, int], ExistingDropout] = {}
        self._inside: list[nn.Module] = []
        # By identity, and only as long as a tensor lives: a run under observation needs no more
        # memory than another.
        self._origins: dict[int, tuple[weakref.ref[Tensor], Origin]] = {}
        self._weights = {id(weight) for weight in model.parameters()}

    def watching(self) -> AbstractContextManager[Any]:
        """While it is entered, this observer sees every function and every module."""
        stack = ExitStack()
        before = register_module_forward_pre_hook(self._enter_module)
        stack.callback(before.remove)
        after = register_module_forward_hook(self._leave_module, with_kwargs=True, always_call=True)
        stack.callback(after.remove)
        stack.enter_context(self)
        return stack

    def origin(self, *values: Any) -> Origin:
        """What is known of some tensors together."""
        known = [self._origin_of(tensor) for tensor in find_values(values)]
        return _union(known)

    def consume(self, *tensors: Tensor) -> None:
        """Some tensors come into something that is no recurrent layer and ends the connection."""
        self._consume(self.origin(*tensors))

    def _consume(self, origin: Origin) -> None:
        for call in origin.outputs:
            call.output_goes.add("elsewhere")
        for call in origin.states:
            call.state_is_used = True
        for dropout in origin.dropouts:
            dropout.goes_elsewhere = True

    def _known_origin(self, tensor: Tensor) -> Origin | None:
        if id(tensor) in self._weights:
            return Origin(is_weight=True)
        entry = self._origins.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _origin_of(self, tensor: Tensor) -> Origin:
        return self._known_origin(tensor) or NOWHERE

    def _set_origin(self, value: Any, origin: Origin) -> None:
        for tensor in find_values(value):
            if id(tensor) not in self._weights:
                self._origins[id(tensor)] = (weakref.ref(tensor), origin)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if self._inside or name.startswith(MADE_NEW):
            return result
        if name in DROPOUT_FUNCTIONS:
            return self._see_dropout_function(name, args, kwargs, result)
        target = args[0] if result is None and name == "__setitem__" else result
        values = args[:1] if name in LIKE_FIRST else (args, tuple(kwargs.values()))
        known = [self._origin_of(tensor) for tensor in find_values(values)]
        self._set_result(name, target, known)
        return result

    def _set_result(self, name: str, result: Any, known: Sequence[Origin]) -> None:
        """Set the origin of what a function gave, from those of its arguments."""
        with_weights = [origin.is_weight for origin in known]
        if not known or all(with_weights):
            if known:
                self._set_origin(result, Origin(is_weight=True))
            return
        origin = _union(known)
        if any(with_weights) and name not in ASSEMBLING:
            self._consume(origin)
            self._set_origin(result, NOWHERE)
            return
        tensors = list(find_values(result))
        if not tensors and name in ("item", "tolist", "numpy", "__array__"):
            self._consume(origin)
        for tensor in tensors:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                self._consume(origin)
                continue
            self._set_origin(tensor, origin)
            changed = tensor._base if name.endswith("_") else None  # a view that was written to
            if changed is not None:
                self._set_origin(changed, origin | self._origin_of(changed))

    def _see_dropout_function(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> Any:
        """A dropout function of the model's code; its result is a tensor of its own, so that what
        it was given stays apart."""
        named = dict(zip(("input", "p", "training"), args, strict=False)) | dict(kwargs)
        inputs = self.origin(named.get("input"))
        rate = named.get("p", 0.5)
        if not rate or self._origin_of(named["input"]).is_weight:
            return result
        place = _caller()
        if place not in self._functions:
            file, line = place
            self._functions[place] = ExistingDropout(
                f"{Path(file).name}:{line}",
                f"torch.nn.functional.{name}",
                f"p={float(rate):g}",
                can_switch_off=False,
            )
        is_active = bool(named.get("training", named.get("train", True)))
        call = DropoutCall(self._functions[place], inputs, is_active)
        self.dropout_calls.append(call)
        return self._passed_on(result, inputs | Origin(dropouts=frozenset({call})))

    def _passed_on(self, value: Any, origin: Origin) -> Any:
        """The same values as tensors of their own, with an origin of their own."""
        if isinstance(value, Tensor):
            value = value.view_as(value)
            self._set_origin(value, origin)
        elif isinstance(value, PackedSequence):
            return value._replace(data=self._passed_on(value.data, origin))
        elif type(value) in (tuple, list):
            return type(value)(self._passed_on(part, origin) for part in value)
        return value

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        if self._inside or module in self.layers or module in self.dropouts:
            self._inside.append(module)

    def _leave_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self._inside:
            self._inside.pop()
            if self._inside or output is None:
                return None
        if module in self.layers:
            self._see_layer(self.layers[module], args, kwargs, output)
        elif module in self.dropouts:
            call = DropoutCall(self.dropouts[module], self.origin(args, kwargs))
            self.dropout_calls.append(call)
            return self._passed_on(output, call.inputs | Origin(dropouts=frozenset({call})))
        else:
            self._see_module(module, args, kwargs, output)
        return None

    def _see_module(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """What code does that PyTorch does not show (a script, an operator of one's own): a module
        without weights passes on what comes in."""
        inputs = self.origin(args, kwargs)
        unknown = [t for t in find_values(output) if self._known_origin(t) is None]
        if inputs == NOWHERE or not unknown:
            return
        if next(module.parameters(), None) is not None:
            self._consume(inputs)
        else:
            self._set_origin(unknown, inputs)

    def _see_layer(
        self, item: RecurrentLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        named = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
        sequence = named["input"]
        inputs, state = self.origin(sequence), self.origin(named.get("hx"))
        call = LayerCall(item, _steps(item.layer, sequence), inputs, state)
        self.layer_calls.append(call)
        for source in inputs.outputs:
            source.output_goes.add("layer")
        for source in inputs.states:
            source.state_is_used = True
        for source in state.outputs - state.states:  # a cell's h is both
            source.output_goes.add("state")
        for source in state.states:
            source.state_is_used |= source.item is not item
        for dropout in inputs.dropouts:
            dropout.layers.append(item)
        for dropout in state.dropouts:
            dropout.goes_elsewhere = True
        mine = frozenset({call})
        if isinstance(item.layer, nn.RNNCellBase):
            h, *others = (output,) if isinstance(output, Tensor) else output
            self._set_origin(h, Origin(outputs=mine, states=mine))
            self._set_origin(others, Origin(states=mine))
        else:
            self._set_origin(output[0], Origin(outputs=mine))
            self._set_origin(output[1], Origin(states=mine))


def _union(known: Sequence[Origin]) -> Origin:
    together = NOWHERE
    for origin in known:
        together = together | origin
    return together


def _steps(layer: Any, sequence: Any) -> int:
    """T of a call."""
    if isinstance(layer, nn.RNNCellBase):
        return 1
    if isinstance(sequence, PackedSequence):
        return len(sequence.batch_sizes)
    is_batched = sequence.dim() == 3
    return int(sequence.shape[1 if is_batched and layer.batch_first else 0])


def _caller() -> tuple[str, int]:
    """The file and line of the model's code that called a function of PyTorch."""
    frame = sys._getframe(1)
    own = (str(Path(torch.__file__).parent), __file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _as_layer_uses(
    calls: Sequence[LayerCall],
) -> tuple[list[LayerUse], list[tuple[RecurrentLayer, RecurrentLayer]]]:
    """The sequences that calls make: a call that starts from the state that an earlier call of the
    same layer left goes on with its sequence.

    Returns:
        The sequences in the order in which they began, and the pairs of layers of which the first
        feeds the second only at later steps.
    """
    sequences: list[list[LayerCall]] = []
    numbers: dict[LayerCall, int] = {}
    for call in calls:
        given = call.state.states | call.state.outputs
        number = next((numbers[c] for c in given if c.item is call.item), len(sequences))
        if number == len(sequences):
            sequences.append([])
        sequences[number].append(call)
        numbers[call] = number
    uses: list[LayerUse] = []
    feedback: list[tuple[RecurrentLayer, RecurrentLayer]] = []
    for number, sequence in enumerate(sequences):
        inputs = [c for call in sequence for c in call.inputs.outputs]
        states = [c for call in sequence for c in call.state.states | call.state.outputs]
        feedback += [(c.item, sequence[0].item) for c in inputs if numbers[c] >= number]
        earlier_inputs, earlier_states = (
            [uses[n] for n in sorted({numbers[c] for c in found if numbers[c] < number})]
            for found in (inputs, states)
        )
        uses.append(
            LayerUse(
                sequence[0].item,
                earlier_inputs,
                earlier_states,
                frozenset().union(*(call.output_goes for call in sequence)),
                calls=len(sequence),
                steps=sum(call.steps for call in sequence),
                state_is_used=any(call.state_is_used for call in sequence),
            )
        )
    return uses, list(dict.fromkeys(feedback))


def _as_dropout_use(call: DropoutCall) -> DropoutUse:
    def items(calls: frozenset[LayerCall]) -> list[RecurrentLayer]:
        return list(dict.fromkeys(call.item for call in calls))

    return DropoutUse(
        call.dropout,
        items(call.inputs.outputs),
        items(call.inputs.states),
        list(dict.fromkeys(call.layers)),
        call.goes_elsewhere,
    )
