"""What a policy changes on a layer, and the way back."""

from __future__ import annotations

from keras import ops

from dropout_policies.memory import SwappedLayer

from .wiring import Layer, retrace

OWN = ("placement", "joins", "loops_generically", "row_offset", "_looping", "_stack")
"""The attributes that a policy adds to a layer."""


class Before(SwappedLayer):
    """A layer, or one half of a Bidirectional, as it is now."""

    def __init__(self, name: str, layer: Layer, swapped: type[Layer]) -> None:
        super().__init__(name, layer, swapped)
        cell = layer.cell
        self.cell_kind, self.seed = type(cell), cell.seed
        self.rates = cell.dropout, cell.recurrent_dropout
        self.state = ops.convert_to_numpy(cell.seed_generator.state).copy()
        self.attributes = {key: vars(layer)[key] for key in OWN if key in vars(layer)}

    def restore(self) -> None:
        """Put the layer back."""
        layer, cell = self.layer, self.layer.cell
        layer.__class__, cell.__class__ = self.kind, self.cell_kind
        cell.dropout, cell.recurrent_dropout = self.rates
        cell.seed = self.seed
        cell.seed_generator.state.assign(self.state)
        for name in OWN:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(self.attributes)


class Traces:
    """The traced functions of a model, which know nothing of a change."""

    def __init__(self, model: Layer) -> None:
        self.model = model

    def check(self) -> None:
        """Nothing can be wrong."""

    def restore(self) -> None:
        """Have them traced anew."""
        retrace(self.model)
