"""How the recurrent layers of a model are connected, as observed in a run on an example.

This works on any backend and through any function, because it follows values by changing them. The
model runs once on the example, and the results of its layers are kept. Then its code runs again
once for each recurrent layer and dropout, with the output of that one changed. If an input of
another layer changes too, it comes from there. Layers with weights do not run again, but return
their recorded output. So a connection ends at them, and all these runs together cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dropout_policies.adapter import (
    PolicyError,
    RecurrentLayer,
    Wiring,
    as_dropout_use,
    as_layer_uses,
)

from ..model_layers import Layer, layers_of, variables_of
from ..tracing import values_only
from .call_connections import CallConnections, Seen
from .example_calls import as_function, build, name_errors
from .existing_dropout import find_dropouts
from .model_state import (
    capture_attributes,
    capture_state,
    restore_attributes,
    restore_state,
)
from .observer import Recording, Targets, WatchedRun


def observe_wiring(model: Layer, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Run a model on an example, and observe how its recurrent layers are connected.

    The model runs in evaluation and again in training, because some code calls dropout only in
    training. Both runs leave the model as it was, except that they build it if it is not built.

    Args:
        model: the model.
        found: its recurrent layers.
        example: an example, as `dropout_policies.apply` takes it.

    Raises:
        PolicyError: the model does not run on the example.
    """
    run = as_function(model, example)
    build(model, run)
    dropouts = find_dropouts(model, found)
    targets = Targets.of(model, found, dropouts)
    seen = _observe(model, targets, run, training=False)
    notes = [*_notes_on_own_weights(model, targets), *seen.notes]
    calls = seen.dropout_calls
    try:
        trained = _observe(model, targets, run, training=True, known=seen)
    except PolicyError as error:
        notes.append(f"seen in evaluation only: in training {error}")
    else:
        if trained.items != seen.items:
            notes.append(
                "in training, the code calls its layers in another way; this shows evaluation"
            )
        again = {call.dropout for call in trained.dropout_calls}
        calls = [call for call in calls if call.dropout not in again] + trained.dropout_calls
    uses, feedback = as_layer_uses(seen.layer_calls)
    notes += [
        f"what leaves {source.name} comes back into {target.name} at a later step: a mask on the "
        f"output of {source.name} and a mask on the input of {target.name} both fall on it"
        for source, target in feedback
    ]
    ran = {call.dropout for call in calls}
    return Wiring(
        found,
        uses,
        [as_dropout_use(call) for call in calls],
        [dropout for dropout in dict.fromkeys(dropouts.values()) if dropout not in ran],
        notes=list(dict.fromkeys(notes)),
        observed=True,
    )


def _notes_on_own_weights(model: Layer, targets: Targets) -> Iterator[str]:
    """Note weights that code uses itself between layers that it calls. These cannot be observed."""
    for layer in layers_of(model):
        inner = {id(w) for part in layers_of(layer, recursive=False) for w in part.weights}
        if id(layer) in targets.containers and any(id(w) not in inner for w in layer.weights):
            yield (
                f"{layer.name} has weights of its own: what its code puts through them counts as "
                f"one connection, and stacks= can say otherwise"
            )


def _observe(
    model: Layer,
    targets: Targets,
    run: Callable[[], Any],
    training: bool,
    known: Seen | None = None,
) -> Seen:
    """Observe how layers are connected in one mode.

    Args:
        model: the model.
        targets: the layers to watch.
        run: the function that runs the model.
        training: the mode.
        known: the observations in the other mode. They are returned if the same layers and dropouts
            run in this mode. None: there are none.
    """
    state = capture_state(variables_of(model))
    changing = capture_state(v for v in variables_of(model) if not v.trainable)
    attributes = capture_attributes(layers_of(model))

    def run_again(change: Mapping[int, Any]) -> WatchedRun:
        restore_state(changing)
        restore_attributes(attributes)
        again = WatchedRun(targets, training, recording, change)
        again.run(run)
        return again

    try:
        recording = Recording()
        with values_only():
            with name_errors(model):
                WatchedRun(targets, training, recording).run(run)
            dropouts = [call.target for call in recording.calls if call.role in ("dropout", "draw")]
            items = [call.target for call in recording.calls if call.role == "layer"]
            if known is not None and (dropouts, items) == (known.dropouts, known.items):
                return known
            seen = CallConnections(recording, run_again).find()
        seen.dropouts, seen.items = dropouts, items
        return seen
    finally:
        restore_state(state)
        restore_attributes(attributes)
