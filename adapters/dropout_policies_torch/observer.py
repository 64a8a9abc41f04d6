"""Follows the tensors of a model through a run: from which layer each comes, and through which
dropout.

Every function of PyTorch that runs is seen, and every call of a module. What is known of a tensor
(its `Origin`) passes through operations without weights, and ends at those with weights.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, is_dataclass
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
    NOWHERE,
    DropoutCall,
    ExistingDropout,
    LayerCall,
    Origin,
    RecurrentLayer,
    consume,
    note_uses,
    union,
)

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


def find_values(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of tuples, lists, mappings and objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(find_values, value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from chain.from_iterable(map(find_values, value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from chain.from_iterable(find_values(getattr(value, f.name)) for f in fields(value))
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
        return union(known)

    def consume(self, *tensors: Tensor) -> None:
        """Some tensors come into something that is no recurrent layer and ends the connection."""
        consume(self.origin(*tensors))

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
        origin = union(known)
        if any(with_weights) and name not in ASSEMBLING:
            consume(origin)
            self._set_origin(result, NOWHERE)
            return
        tensors = list(find_values(result))
        values = [t for t in tensors if t.is_floating_point() or t.is_complex()]
        # Whole numbers beside values are lengths or places, as those of packing or sorting.
        if not values and (tensors or name in ("item", "tolist", "numpy", "__array__")):
            consume(origin)
        for tensor in values:
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
        shape = tuple(named["input"].shape)
        call = DropoutCall(self._functions[place], inputs, shape, float(rate), is_active)
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
            inputs = self.origin(args, kwargs)
            shape = shape_of(next(iter(args), None) if args else next(iter(kwargs.values()), None))
            call = DropoutCall(self.dropouts[module], inputs, shape)
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
            consume(inputs)
        else:
            self._set_origin(unknown, inputs)

    def _see_layer(
        self, item: RecurrentLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        given = [*args, *kwargs.values()]  # which a subclass may call by other names
        sequence = kwargs["input"] if "input" in kwargs else given[0]
        states = [value for value in given if value is not sequence]
        inputs, state = self.origin(sequence), self.origin(*states)
        result = output[0] if isinstance(output, tuple) else output
        steps = _steps(item.layer, sequence)
        shapes = shape_of(sequence), shape_of(result)
        call = LayerCall(item, steps, inputs, state, *shapes)
        self.layer_calls.append(call)
        note_uses(call)
        mine = frozenset({call})
        if isinstance(item.layer, nn.RNNCellBase):
            h, *others = (output,) if isinstance(output, Tensor) else output
            self._set_origin(h, Origin(outputs=mine, states=mine))
            self._set_origin(others, Origin(states=mine))
        else:
            self._set_origin(output[0], Origin(outputs=mine))
            self._set_origin(output[1], Origin(states=mine))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a tensor; of a packed sequence only the last axis, and of anything else ()."""
    if isinstance(value, PackedSequence):
        return tuple(value.data.shape[-1:])
    return tuple(value.shape) if isinstance(value, Tensor) else ()


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
