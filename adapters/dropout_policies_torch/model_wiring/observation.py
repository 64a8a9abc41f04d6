"""How the recurrent layers of a model are connected, as observed in a run on an example."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from dropout_policies.adapter import (
    ExistingDropout,
    PolicyError,
    RecurrentLayer,
    Wiring,
    as_dropout_use,
    as_layer_uses,
)

from .example_calls import as_function
from .existing_dropout import find_dropouts
from .model_state import capture_state, restore_state
from .observer import Observer


def observe_wiring(model: nn.Module, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Run a model on an example, and observe how its recurrent layers are connected.

    The model runs once in evaluation mode and once in training mode, because some code calls
    dropout only in training. Both runs leave the model as it was.

    Args:
        model: the model.
        found: its recurrent layers.
        example: an example, as `dropout_policies.apply` takes it.

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
    uses, feedback = as_layer_uses(seen.layer_calls)
    notes += [
        f"what leaves {source.name} comes back into {target.name} at a later step: a mask on the "
        f"output of {source.name} and a mask on the input of {target.name} both fall on it"
        for source, target in feedback
    ]
    return Wiring(
        found,
        uses,
        [as_dropout_use(call) for call in calls],
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
    """Observe a run in evaluation mode and a run in training mode.

    Returns:
        The observer of evaluation; the observer of training, or None if the model does not run in
        training mode; and notes for the report.

    Raises:
        PolicyError: the model does not run on the example.
    """
    run = as_function(model, example)
    seen = _observe(model, found, dropouts, run, training=False)
    try:
        return seen, _observe(model, found, dropouts, run, training=True), []
    except PolicyError as error:
        return seen, None, [f"seen in evaluation mode only: in training {error}"]


def _observe(
    model: nn.Module,
    found: Sequence[RecurrentLayer],
    dropouts: Mapping[nn.Module, ExistingDropout],
    run: Callable[[], Any],
    training: bool,
) -> Observer:
    """Run the model once under observation."""
    observer = Observer(model, found, dropouts)
    modes = [(module, module.training) for module in model.modules()]
    state = capture_state(model)
    try:
        model.train(training)
        with torch.no_grad(), _run_uncompiled(), observer.watching():
            result = run()
        observer.finish(result)
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
    """Make compiled functions of `torch.compile` run as plain Python, so that they can be seen."""
    is_used = "torch._dynamo" in sys.modules  # do not import it only for this
    return torch.compiler.set_stance("force_eager") if is_used else nullcontext()
