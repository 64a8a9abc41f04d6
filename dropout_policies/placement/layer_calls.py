"""Calls of a model's layers, and what is known about the values between them.

An adapter describes the graph that it reads, or the run that it watches, by these calls.
`as_layer_uses` and `as_dropout_use` turn them into the connections of a `Wiring`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from .connections import DropoutUse, ExistingDropout, LayerUse, OutputUse, RecurrentLayer

_numbers = count()


@dataclass(eq=False)
class LayerCall:
    """One call of a recurrent layer.

    Args:
        item: the layer.
        steps: T. None: not known.
        inputs: where its input comes from.
        state: where its initial state comes from.
        shape: the shape of its input, if known; for a packed sequence, only the last axis.
        output_shape: the shape of its output, likewise.
        in_sequence: whether the call was made inside `dropout_policies.sequence`.
        output_goes: where its output was seen to go.
        state_is_used: whether anything except the layer itself uses its last state.
        number: distinguishes calls, and gives their order.
    """

    item: RecurrentLayer
    steps: int | None
    inputs: Origin
    state: Origin
    shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    in_sequence: bool = False
    output_goes: set[OutputUse] = field(default_factory=set)
    state_is_used: bool = False
    number: int = field(default_factory=_numbers.__next__)


@dataclass(eq=False)
class DropoutCall:
    """One call of a dropout.

    Args:
        dropout: the dropout.
        inputs: where its input comes from.
        shape: the shape of its input, if known.
        rate: for a function, its rate.
        is_active: whether a function was told to drop.
        is_choice: whether it chooses between two values, as zoneout does, and drops neither. It
            then counts for the state that a layer starts from, and for no other connection.
        comes_into: the calls of recurrent layers whose input its output was seen to be.
        starts: the calls of recurrent layers whose initial state its output was seen to be.
        goes_elsewhere: whether its output was seen to go to something else.
    """

    dropout: ExistingDropout
    inputs: Origin
    shape: tuple[int, ...] = ()
    rate: float = 0.0
    is_active: bool = True
    is_choice: bool = False
    comes_into: list[LayerCall] = field(default_factory=list)
    starts: list[LayerCall] = field(default_factory=list)
    goes_elsewhere: bool = False


@dataclass(frozen=True)
class Origin:
    """What is known about a value.

    Args:
        outputs: the layer calls whose output it comes from, through operations without weights.
        states: the layer calls whose last state it comes from, likewise.
        dropouts: the dropout calls on the way.
        hidden: the recurrent layers that it may come from; only the code knows.
        is_weight: whether it is a weight, or computed only from weights.
    """

    outputs: frozenset[LayerCall] = frozenset()
    states: frozenset[LayerCall] = frozenset()
    dropouts: frozenset[DropoutCall] = frozenset()
    hidden: frozenset[RecurrentLayer] = frozenset()
    is_weight: bool = False

    def __or__(self, other: Origin) -> Origin:
        return Origin(
            self.outputs | other.outputs,
            self.states | other.states,
            self.dropouts | other.dropouts,
            self.hidden | other.hidden,
        )


NOWHERE = Origin()
"""The origin of a value that comes from no recurrent layer and no dropout."""


def union(origins: Iterable[Origin]) -> Origin:
    """What is known about several values together."""
    together = NOWHERE
    for origin in origins:
        together = together | origin
    return together


def consume(origin: Origin) -> None:
    """Note that a value goes into something that is not a recurrent layer."""
    for call in origin.outputs:
        call.output_goes.add("elsewhere")
    for call in origin.states:
        call.state_is_used = True
    for dropout in origin.dropouts:
        dropout.goes_elsewhere = True


def note_uses(call: LayerCall) -> None:
    """Note a layer's call at the sources of its input and of its initial state."""
    for source in call.inputs.outputs:
        source.output_goes.add("layer")
    for source in call.inputs.states:
        source.state_is_used = True
    for source in call.state.outputs - call.state.states:  # the h of a cell is both
        source.output_goes.add("state")
    for source in call.state.states:
        source.state_is_used |= source.item is not call.item
    for dropout in call.inputs.dropouts:
        dropout.comes_into.append(call)
    for dropout in call.state.dropouts:
        dropout.starts.append(call)


def as_layer_uses(
    calls: Sequence[LayerCall],
) -> tuple[list[LayerUse], list[tuple[RecurrentLayer, RecurrentLayer]]]:
    """Group calls into sequences.

    A call continues a sequence if it starts from the state that an earlier call of the same layer
    left.

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
                in_sequence=all(call.in_sequence for call in sequence),
            )
        )
    return uses, list(dict.fromkeys(feedback))


def as_dropout_use(call: DropoutCall) -> DropoutUse:
    """Turn a call of a dropout into the form that the core needs."""

    def items(calls: Iterable[LayerCall]) -> list[RecurrentLayer]:
        in_order = sorted(calls, key=lambda layer_call: layer_call.number)
        return list(dict.fromkeys(layer_call.item for layer_call in in_order))

    return DropoutUse(
        call.dropout,
        items(call.inputs.outputs),
        items(call.inputs.states),
        [] if call.is_choice else items(call.comes_into),
        call.goes_elsewhere and not call.is_choice,
        items(call.starts),
        call.is_choice,
    )
