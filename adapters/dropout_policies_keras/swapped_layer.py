"""What a policy changes on a layer, and the way back."""

from __future__ import annotations

from typing import Any

from keras import ops

from dropout_policies.adapter import (
    SwappedLayer,
)

from . import layers, policy_layer
from .cells import TYPES, put_back
from .embedding import SIGNATURE
from .recurrence import cells_of, known_cells
from .wiring import Layer, retrace

POLICY_ATTRIBUTES = (*policy_layer.POLICY_ATTRIBUTES, *layers.POLICY_ATTRIBUTES)
"""The attributes that a policy adds to a layer."""


class RestorableLayer(SwappedLayer):
    """A layer, or one half of a Bidirectional, as it is now."""

    def __init__(self, name: str, layer: Layer, swapped: type[Layer]) -> None:
        super().__init__(name, layer, swapped)
        self.cells = [
            (type(cell), cell.dropout, cell.recurrent_dropout) for cell in known_cells(layer)
        ]
        generator = _generator(layer)
        self.state = None if generator is None else ops.convert_to_numpy(generator.state).copy()
        kept = (*POLICY_ATTRIBUTES, *SIGNATURE)
        self.attributes = {key: vars(layer)[key] for key in kept if key in vars(layer)}

    def restore(self) -> None:
        """Put the layer back."""
        layer = self.layer
        layer.__class__ = self.kind
        for cell, before in zip(known_cells(layer), self.cells, strict=True):
            put_back(cell, *before)
        for name in POLICY_ATTRIBUTES:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(self.attributes)
        if self.state is not None:
            _generator(layer).state.assign(self.state)


def _generator(layer: Layer) -> Any:
    """The generator that a policy's masks come from and that was there before it: that of the
    first cell, or one that an earlier policy brought along."""
    if "_mask_generator" in vars(layer):
        return vars(layer)["_mask_generator"]
    first = cells_of(layer)[:1] if hasattr(layer, "cell") else []
    return next((cell.seed_generator for cell in first if type(cell) in TYPES), None)


class Traces:
    """The traced functions of a model, which know nothing of a change."""

    def __init__(self, model: Layer) -> None:
        self.model = model

    def check(self) -> None:
        """Nothing can be wrong."""

    def restore(self) -> None:
        """Have them traced anew."""
        retrace(self.model)
