"""Follows tensors through PyTorch's functions: which layer and which dropout each comes from.

The knowledge of a tensor (its `Origin`) passes through operations without weights, and ends at
operations with weights. On the way, dropout functions are noted, and masks that code draws itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from dropout_policies.adapter import (
    NOWHERE,
    DropoutCall,
    ExistingDropout,
    Origin,
    consume,
    number_text,
    union,
)

from .known_tensors import KnownTensors, find_values, shape_of
from .own_masks import (
    CONSTANT,
    LIKE_FIRST,
    Numbers,
    OwnMask,
    draw,
    is_chosen,
    made_of_numbers,
    own_mask,
)

DROPOUT_FUNCTIONS = frozenset(
    name + suffix
    for name in (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "native_dropout"),
        *("alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    )
    for suffix in ("", "_")
)
"""PyTorch's dropout functions, with the arguments `(input, p, training, ...)`."""

ASSEMBLING = frozenset(
    {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "where", "__setitem__"}
)
"""Functions that put values side by side. A weight among the values, such as a learned first input,
does not change the others."""

OWN_FOLDER = str(Path(__file__).parent) + os.sep
"""The folder in which masks belong to a policy, such as the mask of an embedding."""


class FunctionObserver(TorchFunctionMode):
    """Sees every function of PyTorch that runs outside of layers, while it is entered as a context.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.dropout_calls: list[DropoutCall] = []
        self._functions: dict[tuple[str, int, str], ExistingDropout] = {}
        self._draws: dict[DropoutCall, frozenset[int]] = {}
        self._inside: list[nn.Module] = []
        self._known: KnownTensors[Origin | Numbers] = KnownTensors()
        self._weights = {id(weight) for weight in model.parameters()}
        for buffer in model.buffers():
            self._known.set(buffer, CONSTANT)

    def origin(self, *values: Any) -> Origin:
        """Return the union of the origins of some tensors."""
        known = [self._origin_of(tensor) for tensor in find_values(values)]
        return union(known)

    def _find(self, tensor: Tensor) -> Origin | Numbers | None:
        """Return what is known of a tensor. None if nothing is."""
        return Origin(is_weight=True) if id(tensor) in self._weights else self._known.get(tensor)

    def _origin_of(self, tensor: Tensor) -> Origin:
        known = self._find(tensor)
        return known if isinstance(known, Origin) else NOWHERE

    def _set(self, value: Any, known: Origin | Numbers) -> None:
        for tensor in find_values(value):
            if id(tensor) not in self._weights:
                self._known.set(tensor, known)

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
        if self._inside:
            return result
        if name in DROPOUT_FUNCTIONS:
            return self._see_dropout_function(name, args, kwargs, result)
        target = args[0] if result is None and name == "__setitem__" else result
        numbers = made_of_numbers(name, args, kwargs, self._find)
        if numbers is not None:
            self._set_result(name, target, numbers)
            return result
        mask = own_mask(name, args, kwargs, result, self._find)
        if mask is not None and not _caller()[0].startswith(OWN_FOLDER):
            self._see_own_mask(name, mask, target)
            return result
        values = args[:1] if name in LIKE_FIRST else (args, tuple(kwargs.values()))
        known = [self._origin_of(tensor) for tensor in find_values(values)]
        self._see_result(name, args, target, known)
        return result

    def _see_result(
        self, name: str, args: Sequence[Any], result: Any, known: Sequence[Origin]
    ) -> None:
        """Set the origin of a function's result from the origins of its arguments."""
        with_weights = [origin.is_weight for origin in known]
        if not known or all(with_weights):
            if known:
                self._set(result, Origin(is_weight=True))
            return
        origin = union(known)
        if any(with_weights) and name not in ASSEMBLING:
            consume(origin)
            self._set(result, NOWHERE)
            return
        tensors = list(find_values(result))
        values = [t for t in tensors if t.is_floating_point() or t.is_complex()]
        # Integers next to values are lengths or positions, such as those of packing or sorting.
        if not values and (tensors or name in ("item", "tolist", "numpy", "__array__")):
            consume(origin)
        self._set_result(name, values, self._after_choice(name, args, origin))

    def _set_result(self, name: str, result: Any, known: Origin | Numbers) -> None:
        """Store what is known of a function's result, and of the tensor that it wrote to."""
        for tensor in find_values(result):
            self._set(tensor, known)
            base = tensor._base if name.endswith("_") else None  # it wrote to a view of this tensor
            before = None if base is None else self._find(base)
            if isinstance(known, Origin) and base is not None:
                self._set(base, known | self._origin_of(base))
            elif isinstance(known, Numbers) and isinstance(before, Numbers):
                self._set(base, known if known.draws else before)

    def _see_own_mask(self, name: str, mask: OwnMask, result: Any) -> None:
        """Note a mask that the model's code draws: on one value, or to choose between several."""
        origin = self.origin(mask.values)
        if all(self._origin_of(value).is_weight for value in mask.values):
            self._set(result, Origin(is_weight=True))
            return
        call = mask.noise.call
        if call is not None:  # a dropout module made the mask, so it can be switched off
            call.inputs |= origin
        else:
            is_choice = len(mask.values) > 1
            dropout = self._in_code(f"a mask by {mask.noise.function}", "drawn in code")
            inputs, shape = NOWHERE if is_choice else origin, shape_of(mask.values[0])
            call = DropoutCall(dropout, inputs, shape, is_choice=is_choice)
            self._draws[call] = mask.noise.draws
            self.dropout_calls.append(call)
        self._set_result(name, result, origin | Origin(dropouts=frozenset({call})))

    def _after_choice(self, name: str, args: Sequence[Any], origin: Origin) -> Origin:
        """Return the origin of a function's result.

        Zoneout written by hand is a sum of two values that the same noise masks in turn. The origin
        of such a sum is that of a choice between the two values.
        """
        masks = [self.origin(value).dropouts & self._draws.keys() for value in args[:2]]
        turns = [
            (a, b)
            for a, b in (product(*masks) if len(masks) == 2 else ())
            if a is not b and self._draws[a] & self._draws[b]
        ]
        if not turns or not is_chosen(name, args):
            return origin
        old = {call for turn in turns for call in turn}
        self.dropout_calls = [call for call in self.dropout_calls if call not in old]
        call = DropoutCall(turns[0][0].dropout, NOWHERE, is_choice=True)
        self.dropout_calls.append(call)
        return replace(origin, dropouts=origin.dropouts - old | {call})

    def _in_code(self, kind: str, rate: str) -> ExistingDropout:
        """Return the dropout that stands for the line of code that is running."""
        file, line = _caller()
        known = self._functions.get((file, line, kind))
        if known is None:
            known = ExistingDropout(f"{Path(file).name}:{line}", kind, rate, can_switch_off=False)
            self._functions[file, line, kind] = known
        return known

    def _see_dropout_function(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> Any:
        """Note a dropout function of the model's code.

        The result is a new tensor, so that its origin stays apart from that of the input.
        """
        names = ("input", "p", "training", "inplace")
        named = dict(zip(names, args, strict=False)) | dict(kwargs)
        given, rate = named["input"], named.get("p", 0.5)
        is_active = bool(named.get("training", named.get("train", True)))
        known = self._find(given)
        if isinstance(known, Numbers):
            is_mask = rate and is_active  # a mask that the code applies to a value itself
            self._set(result, draw(f"torch.nn.functional.{name}") if is_mask else known)
            return result
        if not rate or (known is not None and known.is_weight):
            self._set(result, known or NOWHERE)
            return result
        inputs = self.origin(given)
        dropout = self._in_code(f"torch.nn.functional.{name}", f"p={number_text(rate)}")
        call = DropoutCall(dropout, inputs, tuple(given.shape), float(rate), is_active)
        self.dropout_calls.append(call)
        origin = inputs | Origin(dropouts=frozenset({call}))
        if name.endswith("_") or named.get("inplace"):
            self._set(given, origin)
        return self._passed_on(result, origin)

    def _passed_on(self, value: Any, origin: Origin) -> Any:
        """Return the same values as new tensors with this origin."""
        if isinstance(value, Tensor):
            value = value.view_as(value)
            self._set(value, origin)
        elif isinstance(value, PackedSequence):
            return value._replace(data=self._passed_on(value.data, origin))
        elif type(value) in (tuple, list):
            return type(value)(self._passed_on(part, origin) for part in value)
        return value


def _caller() -> tuple[str, int]:
    """Return the file and line of the model's code that called a function of PyTorch."""
    frame = sys._getframe(1)
    own = (str(Path(torch.__file__).parent), __file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
