"""How the recurrent layers of a model are connected, as an adapter sees it.

An adapter reads the connections from the model's structure, or observes them in runs on an example.
They decide which layers form a stack (`stacks`), and which dropout of the model's own a policy
would double (`existing_dropout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

OutputUse = Literal["layer", "state", "elsewhere"]
"""Where the output of a layer goes: into another recurrent layer, into one as its initial state, or
to anything else (an output layer, a loss, the model's own output)."""


@dataclass(frozen=True, eq=False)
class RecurrentLayer:
    """A recurrent layer object that an adapter found in a model.

    Args:
        name: its name in the model, as the user writes it in `stacks=`.
        layer: the object itself.
        kind: its class, as a user writes it.
        layers: how many layers it holds.
        aliases: other names of the same object.
    """

    name: str
    layer: Any
    kind: str
    layers: int = 1
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LayerUse:
    """One sequence that a layer object runs over, in one call or in several that pass the state on.

    Args:
        item: the layer.
        fed_by: the uses whose output is its input, through operations without weights.
        initial_state_from: the uses whose state or output is its initial state, as far as they were
            observed.
        output_goes: where its output goes, as far as it was observed.
        calls: in how many calls it runs. None: not observed.
        steps: T, the number of steps in all calls together. None: not observed.
        state_is_used: whether anything except the layer itself uses its last state.
        in_sequence: whether all its calls are inside `dropout_policies.sequence`.
    """

    item: RecurrentLayer
    fed_by: Sequence[LayerUse] = ()
    initial_state_from: Sequence[LayerUse] = ()
    output_goes: frozenset[OutputUse] = frozenset()
    calls: int | None = None
    steps: int | None = None
    state_is_used: bool = False
    in_sequence: bool = False


@dataclass(frozen=True, eq=False)
class ExistingDropout:
    """A dropout that a model already has.

    Args:
        name: its name in the model, or its place in the code.
        kind: its class, or the function.
        rate: its rate as it is written, such as `p=0.5`.
        layer: the object. None: a function that the model's code calls.
        can_switch_off: whether its rate can be set to 0 from outside.
    """

    name: str
    kind: str
    rate: str
    layer: Any = None
    can_switch_off: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.rate})"


@dataclass(frozen=True, eq=False)
class DropoutUse:
    """One place where a dropout runs.

    Args:
        dropout: the dropout.
        outputs_of: the layers whose output is its input, through operations without weights.
        states_of: the layers whose state is its input, likewise.
        inputs_of: the layers whose input is its output, likewise.
        goes_elsewhere: whether its output also goes to something that is not a recurrent layer.
        initial_states_of: the layers that start from its output, as a layer does that carries its
            state from call to call.
        is_choice: whether it keeps an old state instead of a new one, as zoneout does.
    """

    dropout: ExistingDropout
    outputs_of: Sequence[RecurrentLayer] = ()
    states_of: Sequence[RecurrentLayer] = ()
    inputs_of: Sequence[RecurrentLayer] = ()
    goes_elsewhere: bool = False
    initial_states_of: Sequence[RecurrentLayer] = ()
    is_choice: bool = False
