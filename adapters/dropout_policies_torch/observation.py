"""How the recurrent layers of a model are connected, seen in a run of it on an example."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from dropout_policies.adapter import (
    DropoutUse,
    ExistingDropout,
    LayerUse,
    PolicyError,
    RecurrentLayer,
    Wiring,
)

from .example_calls import as_function
from .existing_dropout import find_dropouts
from .model_state import capture_state, restore_state
from .observer import DropoutCall, LayerCall, Observer, find_values


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
    dropouts = find_dropouts(model, found)
    seen, trained, notes = observe_runs(model, found, dropouts, example)
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
        notes=notes,
        observed=True,
    )


def observe_runs(
    model: nn.Module,
    found: Sequence[RecurrentLayer],
    dropouts: Mapping[nn.Module, ExistingDropout],
    example: Any,
) -> tuple[Observer, Observer | None, list[str]]:
    """What was seen in evaluation mode; in training mode, or None if the model does not run there;
    and what the report should say of it.

    Raises:
        PolicyError: the model does not run on the example.
    """
    run = as_function(model, example)
    seen = _observe(model, found, dropouts, run, training=False)
    try:
        return seen, _observe(model, found, dropouts, run, training=True), []
    except PolicyError as error:
        return seen, None, [f"seen in evaluation mode alone: in training {error}"]


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
    def items(calls: Iterable[LayerCall]) -> list[RecurrentLayer]:
        in_order = sorted(calls, key=lambda layer_call: layer_call.number)
        return list(dict.fromkeys(layer_call.item for layer_call in in_order))

    return DropoutUse(
        call.dropout,
        items(call.inputs.outputs),
        items(call.inputs.states),
        items(call.comes_into),
        call.goes_elsewhere,
    )
