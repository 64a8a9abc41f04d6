"""Observes a run of a model.

It records every call of a recurrent layer and of a dropout, and where their input tensors come
from. `function_observer` follows the tensors through the code between these calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.adapter import (
    NOWHERE,
    DropoutCall,
    ExistingDropout,
    LayerCall,
    Origin,
    RecurrentLayer,
    consume,
    models_in_sequence,
    note_uses,
)

from .function_observer import FunctionObserver
from .known_tensors import find_values, shape_of
from .own_masks import CONSTANT, Numbers, draw


class Observer(FunctionObserver):
    """Follows tensors through a run of a model.

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
        super().__init__(model)
        self.layers = {item.layer: item for item in found}
        self.dropouts = dropouts
        self.layer_calls: list[LayerCall] = []

    def watching(self) -> AbstractContextManager[Any]:
        """Make a context in which this observer sees every function and every module."""
        stack = ExitStack()
        before = register_module_forward_pre_hook(self._enter_module)
        stack.callback(before.remove)
        after = register_module_forward_hook(self._leave_module, with_kwargs=True, always_call=True)
        stack.callback(after.remove)
        stack.enter_context(self)
        return stack

    def finish(self, result: Any) -> None:
        """Finish the run. Its result counts as used by something that is not a recurrent layer."""
        consume(self.origin(result))
        choices = {call.dropout for call in self.dropout_calls if call.is_choice}
        for call in self.dropout_calls:
            if call.dropout in choices:  # also at a first step, whose state is zeros
                call.is_choice, call.inputs = True, NOWHERE
        self.dropout_calls = [c for c in self.dropout_calls if not c.is_choice or c.starts]

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        if self._inside or module in self.layers or module in self.dropouts:
            self._inside.append(module)

    def _leave_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None
    ) -> Any:
        if self._inside:
            self._inside.pop()
        if self._inside or output is None:  # after an error, PyTorch passes no output or keywords
            return None
        if module in self.layers:
            self._see_layer(self.layers[module], args, kwargs, output)
        elif module in self.dropouts:
            inputs = self.origin(args, kwargs)
            shape = shape_of(next(iter(args), None) if args else next(iter(kwargs.values()), None))
            call = DropoutCall(self.dropouts[module], inputs, shape)
            self.dropout_calls.append(call)
            if all(isinstance(self._find(t), Numbers) for t in find_values((args, kwargs))):
                self._set(output, draw(call.dropout.name, call=call))  # it makes a mask for a value
                return None
            return self._passed_on(output, call.inputs | Origin(dropouts=frozenset({call})))
        else:
            self._see_module(module, args, kwargs, output)
        return None

    def _see_module(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Follow tensors through code that PyTorch does not show, such as a custom operator.

        A module without weights passes on its inputs.
        """
        inputs = self.origin(args, kwargs)
        unknown = [t for t in find_values(output) if self._find(t) in (None, CONSTANT)]
        if inputs == NOWHERE or not unknown:
            return
        if next(module.parameters(), None) is not None:
            consume(inputs)
        else:
            self._set(unknown, inputs)

    def _see_layer(
        self, item: RecurrentLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        given = [*args, *kwargs.values()]  # a subclass may use other names for them
        sequence = kwargs["input"] if "input" in kwargs else given[0]
        states = [value for value in given if value is not sequence]
        inputs, state = self.origin(sequence), self.origin(*states)
        result = output[0] if isinstance(output, tuple) else output
        steps = _steps(item.layer, sequence)
        shapes = shape_of(sequence), shape_of(result)
        in_sequence = any(item.layer in model.modules() for model in models_in_sequence())
        call = LayerCall(item, steps, inputs, state, *shapes, in_sequence)
        self.layer_calls.append(call)
        note_uses(call)
        mine = frozenset({call})
        if isinstance(item.layer, nn.RNNCellBase):
            h, *others = (output,) if isinstance(output, Tensor) else output
            self._set(h, Origin(outputs=mine, states=mine))
            self._set(others, Origin(states=mine))
        else:
            self._set(output[0], Origin(outputs=mine))
            self._set(output[1], Origin(states=mine))


def _steps(layer: Any, sequence: Any) -> int:
    """Return T, the number of steps of a call."""
    if isinstance(layer, nn.RNNCellBase):
        return 1
    if isinstance(sequence, PackedSequence):
        return len(sequence.batch_sizes)
    is_batched = sequence.dim() == 3
    return int(sequence.shape[1 if is_batched and layer.batch_first else 0])
