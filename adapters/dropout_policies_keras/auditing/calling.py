"""How a layer or model is called that may take more than a sequence: its states, or a mode."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    PolicyError,
)

from ..wiring import Layer


def sequence(layer: Layer, name: str, rank: int) -> int:
    """Which of a model's inputs is the sequence; the others are states.

    Args:
        layer: a layer, which has one input, or a model.
        name: what an error calls it.
        rank: of a sequence: 3, or 2 of tokens.

    Raises:
        PolicyError: they are something else.
    """
    shapes = [wanted.shape for wanted in getattr(layer, "inputs", None) or ()]
    of_rank = [n for n, shape in enumerate(shapes) if len(shape) == rank]
    likely = [n for n in of_rank if None in shapes[n][1:]] or of_rank or [0]
    others = [shape for n, shape in enumerate(shapes) if n != likely[0]]
    if any(None in shape[1:] for shape in others):
        raise PolicyError(
            f"{name} has {len(shapes)} inputs, and the audit knows what to give for one sequence, "
            f"and for states. Give it the recurrent layer alone."
        )
    return likely[0]


def beside(model: keras.Model, x: Any, place: int) -> Any:
    """What a model of several inputs takes: a sequence at its place, and zeros for the others."""
    if len(model.inputs) == 1:
        return x
    batch = ops.shape(x)[0]
    given = [
        x if n == place else ops.zeros((batch, *wanted.shape[1:]), wanted.dtype)
        for n, wanted in enumerate(model.inputs)
    ]
    return keras.tree.pack_sequence_as(model.input, given)


def called(layer: Layer, x: Any, training: bool) -> Any:
    """What a layer gives in a mode; one that knows no modes is called without."""
    takes = "training" in inspect.signature(layer.call).parameters
    return layer(x, training=training) if takes else layer(x)
