"""A run of a model that watches the calls of its layers, to record or to repeat them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras

from dropout_policies.adapter import (
    ExistingDropout,
    PolicyError,
    RecurrentLayer,
    models_in_sequence,
    number_text,
)

from ..model_layers import Layer, layers_of, takes_training
from ..tracing import has_no_value
from .call_arguments import sequence_and_state
from .changed_values import any_differ, copied, tensors_in
from .function_observer import DRAWS, caller, functions_watched, is_certain

END = (10**9, "inputs")
"""The place of the model's own result."""


class CodeDiffers(Exception):  # noqa: N818  it ends a run, and is no error
    """A repeated run did not make the calls of the recorded run."""


@dataclass(frozen=True)
class Targets:
    """The layers of a model that are watched.

    Args:
        items: the recurrent layers, by id.
        dropouts: the active dropouts, by id.
        containers: the ids of layers that contain any of these, so that calls inside are watched.
        functions: the functions that were seen to drop or draw, by file, line and name.
    """

    items: Mapping[int, RecurrentLayer]
    dropouts: Mapping[int, ExistingDropout]
    containers: frozenset[int]
    functions: dict[tuple[str, int, str], ExistingDropout] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Layer,
        found: Sequence[RecurrentLayer],
        dropouts: Mapping[int, ExistingDropout],
    ) -> Targets:
        """Collect the targets of a model, given its recurrent layers and its dropouts."""
        items = {id(item.layer): item for item in found}
        containers = frozenset(
            id(layer)
            for layer in layers_of(model)
            if any(
                id(inner) in items or id(inner) in dropouts
                for inner in layers_of(layer)
                if inner is not layer
            )
        )
        return cls(items, dropouts, containers | {id(model)} - items.keys())


@dataclass(eq=False)
class WatchedCall:
    """One recorded call.

    Args:
        role: the kind of target: a recurrent layer, a dropout, any other layer with weights, or a
            function that draws random numbers.
        target: the recurrent layer, the dropout, the layer, or the line of code that draws.
        inputs: copies of the input tensors.
        state: copies of the tensors of the initial state.
        output: a copy of the result.
        given: the result itself, which the model's code may change in place.
        taken: the initial state itself.
        in_sequence: whether the call was made inside `dropout_policies.sequence`.
    """

    role: Literal["layer", "dropout", "weights", "draw"]
    target: Any
    inputs: list[Any]
    state: list[Any]
    output: Any = None
    given: Any = None
    taken: Sequence[Any] = ()
    in_sequence: bool = False


@dataclass
class Recording:
    """The calls of a run in order, and its result."""

    calls: list[WatchedCall] = field(default_factory=list)
    result: Any = None


class WatchedRun:
    """A run of a model.

    Args:
        targets: the layers to watch.
        training: the mode of the run.
        recording: the recording of calls.
        change: other results for some calls, by number. All calls are then answered from the
            recording. None: record the calls.
    """

    def __init__(
        self,
        targets: Targets,
        training: bool,
        recording: Recording,
        change: Mapping[int, Any] | None = None,
    ) -> None:
        self.targets, self.training = targets, training
        self.recording, self.change = recording, change
        self.changed: set[tuple[int, str]] = set()
        """The calls whose "inputs" or initial "state" differed from the recorded ones."""
        self.inputs: dict[tuple[int, str], list[Any]] = {}
        """The inputs of each call, in a repeated run."""
        self.result_differs = False
        self.stopped = ""
        """Why a repeated run ended early, or ""."""
        self._number = 0
        self._depth = 0
        self._inside = False
        self._thread = threading.get_ident()

    def run(self, function: Callable[[], Any]) -> None:
        """Run a model's code under watch.

        Args:
            function: the function that runs it.
        """
        with self._watching():
            if self.change is None:
                self.recording.result = function()
                return
            try:
                result = function()
                self.result_differs = any_differ(result, self.recording.result)
                self.inputs[END] = tensors_in(result)
            except Exception as error:
                # Some code does not run on values that no layer returns.
                self.stopped = f"{type(error).__name__}: {error}"

    @contextmanager
    def _watching(self) -> Iterator[None]:
        layer_type: Any = keras.layers.Layer
        original = layer_type.__call__

        def watched(layer: Layer, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(layer, *args, **kwargs)
            return self._call(original, layer, args, kwargs)

        with ExitStack() as stack:
            layer_type.__call__ = watched
            stack.callback(setattr, layer_type, "__call__", original)
            stack.enter_context(functions_watched(self._watched_function))
            yield

    def _call(
        self, original: Any, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the result of a layer's call in this run."""
        if self._depth == 0 and kwargs.get("training") is None and takes_training(layer):
            kwargs = {**kwargs, "training": self.training}
        call = None if self._inside else self._as_watched(layer, args, kwargs)
        if call is not None:
            return self._answer(call, args[:1], lambda: original(layer, *args, **kwargs))
        self._depth += 1
        try:
            return original(layer, *args, **kwargs)
        finally:
            self._depth -= 1

    def _as_watched(
        self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> WatchedCall | None:
        """Make the record of a call. None if the call is not watched."""
        if id(layer) in self.targets.items:
            sequence, state = sequence_and_state(args, kwargs)
            item = self.targets.items[id(layer)]
            made = WatchedCall("layer", item, tensors_in(sequence), tensors_in(state))
            made.in_sequence = any(layer in layers_of(model) for model in models_in_sequence())
            return made
        given = tensors_in((args, kwargs))
        if id(layer) in self.targets.dropouts:
            return WatchedCall("dropout", self.targets.dropouts[id(layer)], given, [])
        if id(layer) in self.targets.containers or not layer.weights:
            return None
        return WatchedCall("weights", layer, given, [])

    def _answer(self, call: WatchedCall, given: Sequence[Any], run: Callable[[], Any]) -> Any:
        """Run and record a call, or compare it with its record and return the recorded result."""
        number, self._number = self._number, self._number + 1
        if self.change is None:
            if any(map(has_no_value, (*call.inputs, *call.state))):
                raise PolicyError(
                    f"{call.target.name} runs inside a function that the backend compiles, where "
                    f"values cannot be seen. Call the model itself: example=lambda: model(x)"
                )
            state = call.state
            call.inputs, call.state = copied(call.inputs), copied(state)
            self._inside, self._depth = True, self._depth + 1
            try:
                call.given = run()
            finally:
                self._inside, self._depth = False, self._depth - 1
            call.output, call.taken = copied(call.given), state
            self.recording.calls.append(call)
            return call.given
        calls = self.recording.calls
        recorded = calls[number] if number < len(calls) else None
        if recorded is None or recorded.target is not call.target:
            raise CodeDiffers("which layers it calls depends on values")
        self.inputs[number, "inputs"] = copied(call.inputs)
        self.inputs[number, "state"] = copied(call.state)
        inputs_differ = any_differ(call.inputs, recorded.inputs)
        self.changed |= {(number, "inputs")} if inputs_differ else set()
        self.changed |= {(number, "state")} if any_differ(call.state, recorded.state) else set()
        if number in self.change:
            return copied(self.change[number])
        if recorded.role == "dropout" and inputs_differ:
            return given[0]  # no noise, so that nothing else differs from run to run
        return copied(recorded.output)

    def _watched_function(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that drops or draws, so that it is watched.

        A watched dropout drops nothing. So it does not draw from a generator whose state cannot be
        restored.
        """

        def dropout(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            rate = args[0] if args else kwargs.get("rate", kwargs.get("p", 0.5))
            names = ("rate", "training") if title.startswith("torch") else ("rate",)
            named = dict(zip(names, args, strict=False)) | kwargs
            is_off = (
                not named.get("training", True) or not isinstance(rate, int | float) or not rate
            )
            if is_off or threading.get_ident() != self._thread:
                return function(inputs, *args, **kwargs)
            if self._inside:
                return inputs
            call = WatchedCall(
                "dropout", self._in_code(title, f"rate={number_text(rate)}"), [inputs], []
            )
            # Nothing is dropped: the result is the input.
            return self._answer(call, [inputs], lambda: inputs)

        def draw(*args: Any, **kwargs: Any) -> Any:
            if self._inside or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self._inside = True  # a function may draw with another one
            try:
                drawn = function(*args, **kwargs)
            finally:
                self._inside = False
            if has_no_value(drawn) or is_certain(title, args, kwargs):
                return drawn
            target = self._in_code(f"a mask by {title}", "drawn in code")
            answer = self._answer(WatchedCall("draw", target, [], []), [], lambda: drawn)
            return args[0].copy_(answer) if title.endswith("_") else answer

        return draw if title in DRAWS else dropout

    def _in_code(self, kind: str, rate: str) -> ExistingDropout:
        """Return the dropout that stands for the line of code that is running."""
        file, line = caller()
        known = self.targets.functions.get((file, line, kind))
        if known is None:
            known = ExistingDropout(f"{Path(file).name}:{line}", kind, rate, None, False)
            self.targets.functions[file, line, kind] = known
        return known
