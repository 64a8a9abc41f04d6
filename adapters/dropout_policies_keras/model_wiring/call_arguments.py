"""The arguments and results of a recurrent layer's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ..model_layers import Layer, directions_of
from ..policy_cells import is_cell


def sequence_and_state(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Split the arguments of a recurrent layer's or a cell's call into its input and its state.

    The state is None if there is none. A user's own layer may take further arguments. They count as
    its input.
    """
    named = dict(zip(("sequences", "initial_state", "mask"), args, strict=False)) | kwargs
    state = named.pop("initial_state", None)
    state = named.pop("states", state)  # the name in a cell's call
    named.pop("mask", None)
    return (list(args[3:]), *named.values()), state


def count_outputs(layer: Layer) -> int:
    """Return how many values in a recurrent layer's result are outputs. The others are states."""
    is_pair = isinstance(layer, keras.layers.Bidirectional) and layer.merge_mode is None
    return 2 if is_pair else 1


def returns_sequences(layer: Layer) -> bool:
    """Whether a recurrent layer returns the output of every step. A cell does, call by call."""
    return is_cell(layer) or bool(directions_of(layer)[0].return_sequences)
