"""How to call a layer or model that may take more than a sequence: states, or a mode."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import PolicyError

from ..model_layers import Layer


def find_sequence_input(layer: Layer, name: str, rank: int) -> int:
    """Find which of a model's inputs is the sequence. The others are states.

    Args:
        layer: a layer, which has one input, or a model.
        name: the name of the layer in errors.
        rank: the number of a sequence's axes: 3, or 2 for tokens.

    Returns:
        The index of the input.

    Raises:
        PolicyError: another input is not a state.
    """
    shapes = [one.shape for one in getattr(layer, "inputs", None) or ()]
    of_rank = [n for n, shape in enumerate(shapes) if len(shape) == rank]
    likely = [n for n in of_rank if None in shapes[n][1:]] or of_rank or [0]
    others = [shape for n, shape in enumerate(shapes) if n != likely[0]]
    if any(None in shape[1:] for shape in others):
        raise PolicyError(
            f"{name} has {len(shapes)} inputs, and the audit can make one sequence and initial "
            "states, and nothing else. Give it the recurrent layer alone."
        )
    return likely[0]


def with_zero_states(model: keras.Model, x: Any, sequence_input: int) -> Any:
    """Make the inputs of a model: the sequence at its index, and zeros for the states."""
    if len(model.inputs) == 1:
        return x
    batch = ops.shape(x)[0]
    inputs = [
        x if n == sequence_input else ops.zeros((batch, *one.shape[1:]), one.dtype)
        for n, one in enumerate(model.inputs)
    ]
    return keras.tree.pack_sequence_as(model.input, inputs)


def call_layer(layer: Layer, x: Any, training: bool) -> Any:
    """Call a layer in a mode, or without a mode if its `call` has no `training` argument."""
    has_mode = "training" in inspect.signature(layer.call).parameters
    return layer(x, training=training) if has_mode else layer(x)
