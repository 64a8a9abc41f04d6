"""The recurrent layers of a model as layers to audit, each with the dropout around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from dropout_policies.adapter import DropoutUse, ModelPart, RecurrentLayer, Wiring

from ..model_layers import Layer
from .calling import call_layer

OTHER_FORM = (keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)
"""Dropout layers for values that have more axes than a sequence."""


class RecurrentPart(keras.layers.Layer):  # type: ignore[misc] # keras has no types
    """A recurrent layer as a model uses it, with the dropout before and after it.

    Args:
        layer: the layer.
        before: the dropout layers on its input, in order.
        after: the dropout layers on its output, in order.
    """

    def __init__(self, layer: Layer, before: Sequence[Layer], after: Sequence[Layer]) -> None:
        super().__init__(name="part")
        self.layer, self.before, self.after = layer, list(before), list(after)
        self.built = layer.built

    def call(self, x: Any, training: bool = False) -> Any:
        """Run the dropout and the layer on x `[B, T, D]`, and return every h."""
        for dropout in self.before:
            x = call_layer(dropout, x, training)
        y = call_layer(self.layer, x, training)
        y = y[0] if isinstance(y, list | tuple) else y
        for dropout in self.after:
            y = call_layer(dropout, y, training)
        return y


def find_parts(wiring: Wiring) -> list[ModelPart]:
    """Collect the recurrent layers that run in a model, each with the dropout around it.

    Args:
        wiring: the observed wiring of the model.
    """
    return [_part(item, wiring) for item in dict.fromkeys(use.item for use in wiring.uses)]


def _part(item: RecurrentLayer, wiring: Wiring) -> ModelPart:
    before = [use for use in wiring.dropouts if item in use.inputs_of]
    after = [use for use in wiring.dropouts if item in use.outputs_of and not use.inputs_of]
    part = RecurrentPart(item.layer, list(_layers(before)), list(_layers(after)))
    notes = tuple(
        f"{use.dropout} is next to {item.name}, but was not measured there: it cannot be run "
        "without the model's code, or its axes are others"
        for use in (*before, *after)
        if not _can_run(use)
    )
    return ModelPart(item.name, part, notes)


def _layers(uses: Sequence[DropoutUse]) -> Iterator[Layer]:
    yield from dict.fromkeys(use.dropout.layer for use in uses if _can_run(use))


def _can_run(use: DropoutUse) -> bool:
    """Whether a dropout is a layer that can take a sequence without the model."""
    layer = use.dropout.layer
    return isinstance(layer, keras.layers.Layer) and not isinstance(layer, OTHER_FORM)
