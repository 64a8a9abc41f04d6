"""A user's own cell inside `keras.layers.RNN`. A policy masks around it, but never inside it."""

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

from .cells import SiteMasks, States, apply_drop, apply_zoneout
from .policy_cells import Cell
from .tracing import Tensor


def make_step(
    cell: Cell, training: bool
) -> Callable[[Tensor, States, SiteMasks], tuple[Tensor, States]]:
    """Make a function that maps `[B, D]`, states and masks to a cell's output and new states.

    The first state is h. If the cell returns the same tensor as output and as new h, the output of
    the layer is the carried h with its masks. Any other output stays as it is.
    """
    takes_training = "training" in inspect.signature(cell.call).parameters
    arguments = {"training": training} if takes_training else {}

    def step(inputs: Tensor, states: States, masks: SiteMasks) -> tuple[Tensor, States]:
        h, *others = states
        output, new_states = cell(inputs, [apply_drop(masks, Site.HIDDEN, h), *others], **arguments)
        new = list(new_states) if isinstance(new_states, list | tuple) else [new_states]
        new_h = apply_zoneout(masks, Site.HIDDEN_UPDATE, h, apply_drop(masks, Site.STATE, new[0]))
        return new_h if output is new[0] else output, [new_h, *new[1:]]

    return step


def state_and_output_width(cell: Cell) -> tuple[int, int]:
    """Return the widths of a cell's h and of its output.

    Raises:
        PolicyError: its states are not a flat list of vectors.
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
    """Make sure that a policy masks only outside of a cell.

    Args:
        cell: the cell.
        policy: the policy.
        name: the name of the cell in errors.

    Raises:
        PolicyError: it masks inside, or masks for such a cell cannot be planned.
    """
    state_and_output_width(cell)
    kind = type(cell)
    if isinstance(cell, keras.layers.StackedRNNCells):
        raise PolicyError(
            f"{name}: each cell of a stack must be a single cell, and not a stack itself."
        )
    inside = f"Only {kind.__name__} itself can mask inside."
    check_sites(policy, name, CUSTOM.sites, inside, untied_allowed=False)
