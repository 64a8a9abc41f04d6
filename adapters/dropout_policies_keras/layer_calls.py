"""Calls of a model's layers, and what is known of the values between them.

A graph that is read and a run that is watched are both told as these calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from dropout_policies.adapter import DropoutUse, ExistingDropout, LayerUse, RecurrentLayer

from .model_layers import Layer, directions_of


@dataclass(eq=False)
class LayerCall:
    """One call of a recurrent layer.

    Args:
        item: the layer.
        steps: T, if it is known.
        inputs: where its input comes from.
        state: where its initial state comes from.
        output_goes: where its output goes: "layer", "state" or "elsewhere".
        state_is_used: whether anything but the layer itself takes its last state.
    """

    item: RecurrentLayer
    steps: int | None
    inputs: Origin
    state: Origin
    output_goes: set[Any] = field(default_factory=set)
    state_is_used: bool = False


@dataclass(eq=False)
class DropoutCall:
    """One call of a dropout.

    Args:
        dropout: which.
        inputs: where its input comes from.
        items: the recurrent layers that its output comes into.
        goes_elsewhere: whether it also comes into something else.
    """

    dropout: ExistingDropout
    inputs: Origin
    items: list[RecurrentLayer] = field(default_factory=list)
    goes_elsewhere: bool = False


@dataclass(frozen=True)
class Origin:
    """What is known of a value.

    Args:
        outputs: the layer calls whose output it comes from, through operations without weights.
        states: the layer calls whose last state it comes from so.
        dropouts: the dropout calls on the way.
        hidden: the recurrent layers of which only code knows whether it comes from them.
    """

    outputs: frozenset[LayerCall] = frozenset()
    states: frozenset[LayerCall] = frozenset()
    dropouts: frozenset[DropoutCall] = frozenset()
    hidden: frozenset[RecurrentLayer] = frozenset()

    def __or__(self, other: Origin) -> Origin:
        return Origin(
            self.outputs | other.outputs,
            self.states | other.states,
            self.dropouts | other.dropouts,
            self.hidden | other.hidden,
        )


NOWHERE = Origin()


def union(origins: Iterable[Origin]) -> Origin:
    """What is known of several values together."""
    together = NOWHERE
    for origin in origins:
        together = together | origin
    return together


def consume(origin: Origin) -> None:
    """Note that a value comes into something that is no recurrent layer."""
    for call in origin.outputs:
        call.output_goes.add("elsewhere")
    for call in origin.states:
        call.state_is_used = True
    for dropout in origin.dropouts:
        dropout.goes_elsewhere = True


def note_uses(call: LayerCall) -> None:
    """Note at the sources of a layer's input and of its initial state that it takes them."""
    for source in call.inputs.outputs:
        source.output_goes.add("layer")
    for source in call.inputs.states:
        source.state_is_used = True
    for source in call.state.outputs:
        source.output_goes.add("state")
    for source in call.state.states:
        source.state_is_used |= source.item is not call.item
    for dropout in call.inputs.dropouts:
        if call.item not in dropout.items:
            dropout.items.append(call.item)
    for dropout in call.state.dropouts:
        dropout.goes_elsewhere = True


def sequence_and_state(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The input of a recurrent layer's call, and its initial state or None.

    A user's own layer may take further arguments; they count as its input.
    """
    named = dict(zip(("sequences", "initial_state", "mask"), args, strict=False)) | kwargs
    state = named.pop("initial_state", None)
    named.pop("mask", None)
    return (list(args[3:]), *named.values()), state


def count_outputs(layer: Layer) -> int:
    """How many of the values that a recurrent layer gives are outputs; the others are states."""
    is_pair = isinstance(layer, keras.layers.Bidirectional) and layer.merge_mode is None
    return 2 if is_pair else 1


def returns_sequences(layer: Layer) -> bool:
    """Whether a recurrent layer returns the output of every step."""
    return bool(directions_of(layer)[0].return_sequences)


def as_layer_uses(
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
        steps = [call.steps for call in sequence if call.steps is not None]
        uses.append(
            LayerUse(
                sequence[0].item,
                earlier_inputs,
                earlier_states,
                frozenset().union(*(call.output_goes for call in sequence)),
                calls=len(sequence),
                steps=sum(steps) if len(steps) == len(sequence) else None,
                state_is_used=any(call.state_is_used for call in sequence),
            )
        )
    return uses, list(dict.fromkeys(feedback))


def as_dropout_use(call: DropoutCall) -> DropoutUse:
    """A call of a dropout as the core takes it."""

    def items(calls: frozenset[LayerCall]) -> list[RecurrentLayer]:
        return list(dict.fromkeys(each.item for each in calls))

    return DropoutUse(
        call.dropout,
        items(call.inputs.outputs),
        items(call.inputs.states),
        call.items,
        call.goes_elsewhere,
    )
