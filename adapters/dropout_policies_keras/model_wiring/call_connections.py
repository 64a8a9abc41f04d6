"""How the recorded calls of a model are connected.

The model's code runs again once for each recurrent layer and dropout, with the output of that one
changed. If an input of another layer changes too, it comes from there. Layers with weights do not
run again, but return their recorded output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from dropout_policies.adapter import DropoutCall, LayerCall, Origin, consume, note_uses

from ..policy_cells import is_cell
from .call_arguments import count_outputs
from .changed_values import changed, tensors_in
from .observer import END, Recording, WatchedCall, WatchedRun
from .own_masks import Change, Place, Run, Source, chosen_places, extremes, masked_places

MOST_RUNS = 100
"""The largest number of layer calls that are changed one by one. Above it, all calls of a layer are
changed together."""

PARTS = ("outputs", "states")
"""The parts of a recurrent layer's result."""

Reached = tuple[Sequence[int], str, set[Place]]
"""Calls of a layer, a part of their result, and the places that this part reaches."""

Ends = tuple[dict[int, Any], dict[int, Any]]
"""The results of some calls, by number, where all draws are lowest, and where they are highest."""


@dataclass
class Seen:
    """The observations in one mode.

    Args:
        layer_calls: the calls of recurrent layers.
        dropout_calls: the calls of dropouts.
        dropouts: the dropouts, in the order of their calls.
        items: the recurrent layers, in the order of their calls.
        notes: notes on what could not be observed.
    """

    layer_calls: list[LayerCall] = field(default_factory=list)
    dropout_calls: list[DropoutCall] = field(default_factory=list)
    dropouts: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class CallConnections:
    """Finds how recorded calls are connected, by running the code between them again.

    Args:
        recording: the recorded calls.
        run_again: a function that runs the model's code with the outputs of some calls changed.
    """

    def __init__(
        self, recording: Recording, run_again: Callable[[Mapping[int, Any]], WatchedRun]
    ) -> None:
        self.calls, self.run_again = recording.calls, run_again
        self.notes: list[str] = []
        self.origins: dict[Place, Origin] = {}
        self.layer_calls: dict[int, LayerCall] = {}
        self.dropout_calls: dict[int, DropoutCall] = {}
        self.random: set[Place] = set()
        """The inputs that differ from run to run even without a change."""

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
                "could not be seen: say so with stacks="
            )
        for number in [n for n, call in enumerate(self.calls) if call.role == "dropout"]:
            self.dropout_calls[number] = DropoutCall(self.calls[number].target, Origin())
        reached = [(group, part, self._reach(group, part)) for group in groups for part in PARTS]
        for group, part, places in reached:
            for place in places:
                new = self._made(group, part, place)
                self.origins[place] = self.origins.get(place, Origin()) | new
        for number, call in self.dropout_calls.items():
            call.inputs = self.origins.get((number, "inputs"), Origin())
        of_dropouts = [(group, self._reach(group, "outputs")) for group in self._alike_dropouts()]
        for group, places in of_dropouts:
            new = Origin(dropouts=frozenset({self.dropout_calls[group[0]]}))
            for place in places:
                self.origins[place] = self.origins.get(place, Origin()) | new
        own = [*self._draws(), *self._masks_of_ones(of_dropouts, reached)]
        self._find_own_masks(own, reached)
        self._note_uses()
        return Seen(
            list(self.layer_calls.values()), list(self.dropout_calls.values()), notes=self.notes
        )

    def _draws(self) -> Iterator[tuple[DropoutCall, Ends]]:
        """Yield the lines of code that draw, each as a possible mask."""
        lines: dict[Any, Ends] = {}
        for number, call in enumerate(self.calls):
            if call.role == "draw":
                low, high = lines.setdefault(call.target, ({}, {}))
                low[number], high[number] = extremes(call.output)
        for line, ends in lines.items():
            yield DropoutCall(line, Origin()), ends

    def _masks_of_ones(
        self, of_dropouts: Sequence[tuple[Sequence[int], set[Place]]], reached: Sequence[Reached]
    ) -> Iterator[tuple[DropoutCall, Ends]]:
        """Yield the dropouts that get nothing of a layer, if their result meets that of a layer."""
        for group, places in of_dropouts:
            mask = self.dropout_calls[group[0]]
            if mask.inputs == Origin() and any(places & others for _, _, others in reached):
                kept = {number: self.calls[number].output for number in group}
                yield mask, (self._change(group, "outputs", zeros=True), kept)

    def _find_own_masks(
        self, masks: Sequence[tuple[DropoutCall, Ends]], reached: Sequence[Reached]
    ) -> None:
        """Find where possible masks fall on what comes from a layer or goes into one."""

        def run(change: Change) -> Mapping[Place, Any]:
            again = self.run_again(change)
            return {} if again.stopped else again.inputs

        of_layers = [r for r in reached if r[1] == "outputs" or r[2]]
        sources = [self._source(group, part) for group, part, _ in of_layers]
        sources += self._sources_beside_layers()
        for mask, ends in masks:
            chosen = self._chosen(ends, of_layers, run)
            if chosen:
                mask.is_choice = True
                for place in (place for place in chosen if place[1] == "state"):
                    new = Origin(dropouts=frozenset({mask}))
                    self.origins[place] = self.origins.get(place, Origin()) | new
                    self.dropout_calls[min(ends[0])] = mask
                continue
            for place, source in masked_places(ends, sources, run):
                if source is not None and source < len(of_layers):
                    mask.inputs = mask.inputs | self._made(*of_layers[source][:2], place)
                new = Origin(dropouts=frozenset({mask}))
                self.origins[place] = self.origins.get(place, Origin()) | new
                if mask not in self.dropout_calls.values():
                    self.dropout_calls[min(ends[0])] = mask

    def _chosen(self, ends: Ends, of_layers: Sequence[Reached], run: Run) -> set[Place]:
        """Find where a line that draws at every step chooses between the results of two steps."""
        numbers = sorted(ends[0])
        if len(numbers) < 3:
            return set()
        number = numbers[len(numbers) // 2]  # with steps before and after it
        latest: dict[Any, list[Source]] = {}
        for group, part, _ in sorted(of_layers, key=lambda reached: reached[0][0]):
            if group[0] < number:
                sources = latest.setdefault((id(self.calls[group[0]].target), part), [])
                sources.append(self._source(group, part))
        return chosen_places(ends, number, [x for each in latest.values() for x in each[-2:]], run)

    def _source(
        self, group: Sequence[int], part: str, places: frozenset[Place] | None = None
    ) -> Source:
        """Make a source, which a mask may fall on, from the results of some calls."""
        zeros = self._change(group, part, zeros=True)
        return Source(self._change(group, part), zeros, places)

    def _sources_beside_layers(self) -> list[Source]:
        """Make the sources that enter recurrent layers from other layers with weights.

        All calls of one layer form one source.
        """
        places = frozenset((number, "inputs") for number in self.layer_calls)
        calls: dict[int, list[int]] = {}
        for number, call in enumerate(self.calls):
            if call.role == "weights":
                calls.setdefault(id(call.target), []).append(number)
        sources = [self._source(group, "outputs", places) for group in calls.values()]
        return [source for source in sources if source.other]

    def _made(self, group: Sequence[int], part: str, place: Place) -> Origin:
        """Return the origin of a layer's result that reaches a place."""
        made = frozenset({self.layer_calls[_latest_before(place[0], group)]})
        return Origin(outputs=made) if part == "outputs" else Origin(states=made)

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
        """Group the calls that continue one sequence.

        In such a group, each call takes the very state tensors that the previous call returned.
        """
        groups: list[list[int]] = []
        for number in numbers:
            call = self.calls[number]
            given = {id(tensor) for tensor in call.taken}
            before = (
                group
                for group in groups
                if self.calls[group[0]].target is call.target
                and given & {id(t) for t in tensors_in(self.calls[group[-1]].given)}
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
        """Group the calls of one dropout on results of the same layers. A group counts as one."""
        alike: dict[Any, list[int]] = {}
        for number, call in self.dropout_calls.items():
            before = frozenset(c.item for c in call.inputs.outputs)
            states = frozenset(c.item for c in call.inputs.states)
            alike.setdefault((call.dropout, before, states), []).append(number)
        self.dropout_calls = {group[0]: self.dropout_calls[group[0]] for group in alike.values()}
        return list(alike.values())

    def _change(self, group: Sequence[int], part: str, zeros: bool = False) -> dict[int, Any]:
        """Make other values for the results of some calls, by their numbers."""
        calls = {number: self.calls[number] for number in group}
        others = {n: changed(c.output, _part_of(c, part), zeros) for n, c in calls.items()}
        return {number: value for number, value in others.items() if value is not None}

    def _reach(self, group: Sequence[int], part: str) -> set[Place]:
        """Find the inputs that change if some calls return another output or state."""
        change = self._change(group, part)
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


def _latest_before(number: int, group: Sequence[int]) -> int:
    return max((n for n in group if n < number), default=group[0])


def _new_layer_call(call: WatchedCall) -> LayerCall:
    first = next((t for t in call.inputs if len(getattr(t, "shape", ())) >= 2), None)
    steps = None if first is None else int(first.shape[1])
    steps = 1 if is_cell(call.target.layer) else steps
    return LayerCall(call.target, steps, Origin(), Origin(), in_sequence=call.in_sequence)


def _part_of(call: WatchedCall, part: str) -> range:
    """Return which of the values in a call's result are outputs, or which are states."""
    count = len(keras.tree.flatten(call.output))
    outputs = count_outputs(call.target.layer) if call.role == "layer" else count
    return range(outputs) if part == "outputs" else range(outputs, count)
