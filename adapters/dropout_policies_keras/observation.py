"""How the recurrent layers of a model are connected, seen in a run of it on an example.

Values are followed on any backend, through any function, by changing them: the model runs once on
the example, and what its layers give is kept. Then its code runs again for each recurrent layer
and dropout, with that one's output changed; where an input of another layer has changed too, it
comes from there. Layers with weights do not run again, but give what they gave. So a connection
ends at them, and all these runs together cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from dropout_policies.adapter import (
    DropoutCall,
    LayerCall,
    Origin,
    PolicyError,
    RecurrentLayer,
    Wiring,
    as_dropout_use,
    as_layer_uses,
    consume,
    note_uses,
)

from .call_arguments import count_outputs
from .example_calls import as_function, build, name_errors
from .existing_dropout import find_dropouts
from .model_layers import Layer, layers_of, variables_of
from .model_state import (
    capture_attributes,
    capture_state,
    restore_attributes,
    restore_state,
)
from .observer import (
    Recording,
    Targets,
    WatchedCall,
    WatchedRun,
    tensors_in,
)
from .policy_cells import is_cell
from .tracing import values_only

MOST_RUNS = 100
"""Where more calls of layers than this would be changed one by one, all calls of a layer are
changed together."""


def observe_wiring(model: Layer, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Run a model on an example, and see how its recurrent layers are connected.

    It runs in evaluation; and once more in training, since dropout may be in code that runs only
    there. Nothing of either run remains, but that a model that is not built yet is built.

    Args:
        model: the model.
        found: its recurrent layers.
        example: as `dropout_policies.apply` takes it.

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
        notes.append(f"seen in evaluation alone: in training {error}")
    else:
        if trained.items != seen.items:
            notes.append("in training the code calls its layers otherwise; this is evaluation")
        again = {call.dropout for call in trained.dropout_calls}
        calls = [call for call in calls if call.dropout not in again] + trained.dropout_calls
    uses, feedback = as_layer_uses(seen.layer_calls)
    notes += [
        f"what leaves {source.name} comes back into {target.name} at a later step: a mask on the "
        f"output of the one and a mask on the input of the other both fall on it"
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
    """What cannot be seen: weights that code uses itself, between layers that it calls."""
    for layer in layers_of(model):
        inner = {id(w) for part in layers_of(layer, recursive=False) for w in part.weights}
        if id(layer) in targets.containers and any(id(w) not in inner for w in layer.weights):
            yield (
                f"{layer.name} has weights of its own: what its code puts through them counts as "
                f"one connection, and stacks= can say otherwise"
            )


@dataclass
class Seen:
    """What was seen in one mode.

    Args:
        layer_calls: the calls of recurrent layers.
        dropout_calls: the calls of dropouts.
        dropouts: the dropouts in the order of their calls.
        items: the recurrent layers likewise.
        notes: what could not be seen.
    """

    layer_calls: list[LayerCall] = field(default_factory=list)
    dropout_calls: list[DropoutCall] = field(default_factory=list)
    dropouts: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _observe(
    model: Layer,
    targets: Targets,
    run: Callable[[], Any],
    training: bool,
    known: Seen | None = None,
) -> Seen:
    """See how layers are connected in one mode.

    Args:
        model: the model.
        targets: the layers to watch.
        run: runs the model.
        training: the mode.
        known: what was seen in the other mode; where the same dropouts run, there is no more.
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
            dropouts = [call.target for call in recording.calls if call.role == "dropout"]
            items = [call.target for call in recording.calls if call.role == "layer"]
            if known is not None and (dropouts, items) == (known.dropouts, known.items):
                return known
            seen = _Connections(recording, run_again).find()
        seen.dropouts, seen.items = dropouts, items
        return seen
    finally:
        restore_state(state)
        restore_attributes(attributes)


class _Connections:
    """Finds how recorded calls are connected, by running the code between them again.

    Args:
        recording: the calls.
        run_again: runs the model's code with the outputs of some calls changed.
    """

    def __init__(
        self, recording: Recording, run_again: Callable[[Mapping[int, Any]], WatchedRun]
    ) -> None:
        self.calls, self.run_again = recording.calls, run_again
        self.notes: list[str] = []
        self.origins: dict[tuple[int, str], Origin] = {}
        self.layer_calls: dict[int, LayerCall] = {}
        self.dropout_calls: dict[int, DropoutCall] = {}
        self.random: set[tuple[int, str]] = set()
        """The inputs that differ from run to run anyway."""

    def find(self) -> Seen:
        """Find all connections."""
        numbers = [n for n, call in enumerate(self.calls) if call.role == "layer"]
        for n in numbers:
            self.layer_calls[n] = _new_layer_call(self.calls[n])
        groups = self._sequences(numbers)
        unchanged = self.run_again({})
        self.random = unchanged.changed | ({END} if unchanged.result_differs else set())
        if self.random - {END}:
            names = {self.calls[n].target.name: None for n, _ in self.random - {END}}
            self.notes.append(
                f"what comes into {', '.join(names)} is random in every call, so what feeds it "
                f"could not be seen: say so with stacks="
            )
        for number in [n for n, call in enumerate(self.calls) if call.role == "dropout"]:
            self.dropout_calls[number] = DropoutCall(self.calls[number].target, Origin())
        reached = [(group, part, self._reach(group, part)) for group in groups for part in PARTS]
        for group, part, places in reached:
            for place in places:
                made = frozenset({self.layer_calls[_latest_before(place[0], group)]})
                new = Origin(outputs=made) if part == "outputs" else Origin(states=made)
                self.origins[place] = self.origins.get(place, Origin()) | new
        for number, call in self.dropout_calls.items():
            call.inputs = self.origins.get((number, "inputs"), Origin())
        of_dropouts = [(group, self._reach(group, "outputs")) for group in self._alike_dropouts()]
        for group, places in of_dropouts:
            new = Origin(dropouts=frozenset({self.dropout_calls[group[0]]}))
            for place in places:
                self.origins[place] = self.origins.get(place, Origin()) | new
        self._note_uses()
        return Seen(
            list(self.layer_calls.values()), list(self.dropout_calls.values()), notes=self.notes
        )

    def _note_uses(self) -> None:
        for number, call in self.layer_calls.items():
            call.inputs = self.origins.get((number, "inputs"), Origin())
            call.state = self.origins.get((number, "state"), Origin())
            note_uses(call)
        for number, seen in enumerate(self.calls):
            if seen.role == "weights":
                consume(self.origins.get((number, "inputs"), Origin()))
        consume(self.origins.get(END, Origin()))

    def _sequences(self, numbers: Sequence[int]) -> list[list[int]]:
        """The calls that go on with one sequence: each takes the very state that the one before
        gave."""
        groups: list[list[int]] = []
        for number in numbers:
            call = self.calls[number]
            given = {id(tensor) for tensor in call.state}
            before = (
                group
                for group in groups
                if self.calls[group[0]].target is call.target
                and given & {id(t) for t in tensors_in(self.calls[group[-1]].output)}
            )
            group = next(before, None)
            if group is None:
                groups.append(group := [])
            group.append(number)
        if len(groups) <= MOST_RUNS:
            return groups
        together: dict[int, list[int]] = {}
        for number in numbers:
            together.setdefault(id(self.calls[number].target), []).append(number)
        return list(together.values())

    def _alike_dropouts(self) -> list[list[int]]:
        """The calls of dropouts, those of one dropout on what comes from the same layers together;
        they count as one."""
        alike: dict[Any, list[int]] = {}
        for number, call in self.dropout_calls.items():
            before = frozenset(c.item for c in call.inputs.outputs)
            states = frozenset(c.item for c in call.inputs.states)
            alike.setdefault((call.dropout, before, states), []).append(number)
        self.dropout_calls = {group[0]: self.dropout_calls[group[0]] for group in alike.values()}
        return list(alike.values())

    def _reach(self, group: Sequence[int], part: str) -> set[tuple[int, str]]:
        """The inputs that change where some calls give another output or state."""
        change = {}
        for number in group:
            changed = _changed(self.calls[number], part)
            if changed is not None:
                change[number] = changed
        if not change:
            return set()
        again = self.run_again(change)
        if again.stopped:
            self.notes.append(
                f"the code after {self.calls[group[0]].target.name} depends on values, and was "
                f"seen only in part: {again.stopped}"
            )
        places = again.changed | ({END} if again.result_differs else set())
        return places - self.random


PARTS = ("outputs", "states")
"""What a recurrent layer gives."""

END = (10**9, "inputs")
"""Stands for what the model gives."""


def _latest_before(number: int, group: Sequence[int]) -> int:
    return max((n for n in group if n < number), default=group[0])


def _new_layer_call(call: WatchedCall) -> LayerCall:
    first = next((t for t in call.inputs if len(getattr(t, "shape", ())) >= 2), None)
    steps = None if first is None else int(first.shape[1])
    steps = 1 if is_cell(call.target.layer) else steps
    return LayerCall(call.target, steps, Origin(), Origin(), in_sequence=call.in_sequence)


def _changed(call: WatchedCall, part: str) -> Any:
    """The output of a call with other values: in its outputs, or in its states. None if it has
    none of these."""
    leaves = keras.tree.flatten(call.output)
    count = count_outputs(call.target.layer) if call.role == "layer" else len(leaves)
    which = range(count) if part == "outputs" else range(count, len(leaves))
    changed = [_other_values(x) if n in which else x for n, x in enumerate(leaves)]
    if all(new is old for new, old in zip(changed, leaves, strict=True)):
        return None
    return keras.tree.pack_sequence_as(call.output, changed)


def _other_values(tensor: Any) -> Any:
    """A tensor of the same form, with other values."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if "float" not in dtype:
        return tensor
    noise = np.random.default_rng(0).standard_normal(tuple(tensor.shape)).astype("float32")
    by = ops.cast(ops.convert_to_tensor(noise + np.sign(noise)), dtype)
    return tensor + by * (1 + ops.abs(tensor))  # large enough to show in sums and after rounding
