"""A cell of the user's own inside `keras.layers.RNN`: noise falls around it and never inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from dropout_policies.adapter import (
    CUSTOM,
    Policy,
    PolicyError,
    Site,
    check_sites,
)

from .cells import Cell, Noise, States, drop, zoneout
from .tracing import Tensor


def step_of(cell: Cell, training: bool) -> Callable[[Tensor, States, Noise], tuple[Tensor, States]]:
    """One step of a cell: `[B, D]` and the states, to its output and the new states.

    Its first state is h. Where its output is the very h that it gives back, what leaves the layer
    is what is carried; otherwise the output is left as it is.
    """
    takes_training = "training" in inspect.signature(cell.call).parameters
    arguments = {"training": training} if takes_training else {}

    def step(inputs: Tensor, states: States, noise: Noise) -> tuple[Tensor, States]:
        h, *others = states
        output, given = cell(inputs, [drop(noise, Site.HIDDEN, h), *others], **arguments)
        new = list(given) if isinstance(given, list | tuple) else [given]
        new_h = zoneout(noise, Site.HIDDEN_UPDATE, h, drop(noise, Site.STATE, new[0]))
        return new_h if output is new[0] else output, [new_h, *new[1:]]

    return step


def sizes(cell: Cell) -> tuple[int, int]:
    """The widths of a cell's h and of its output.

    Raises:
        PolicyError: its states are no flat list of vectors.
    """
    state = cell.state_size
    states = list(state) if isinstance(state, list | tuple) else [state]
    if not all(isinstance(width, int) for width in states):
        raise PolicyError(
            f"{type(cell).__name__}: a policy goes on cells whose state is one vector for each "
            f"sample, or a list of vectors. Received: state_size={state!r}"
        )
    return states[0], getattr(cell, "output_size", None) or states[0]


def check_custom_cell(cell: Cell, policy: Policy, name: str) -> None:
    """Make sure that a policy stays outside of a cell.

    Raises:
        PolicyError: it does not, or the cell is none that masks could be planned for.
    """
    sizes(cell)
    kind = type(cell)
    if isinstance(cell, keras.layers.StackedRNNCells):
        raise PolicyError(f"{name}: the cells of a stack are layers, and no stacks themselves.")
    inside = f"Inside of {kind.__name__} only it can mask."
    check_sites(policy, name, CUSTOM.sites, inside, untied_allowed=False)
