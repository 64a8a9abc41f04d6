"""What a layer was before a policy came on it, and the way back."""

from __future__ import annotations

from keras import ops

from dropout_policies.errors import PolicyError

from .wiring import Layer, retrace

OWN = ("placement", "joins", "loops_generically", "row_offset", "_looping")
"""The attributes that a policy adds to a layer."""


class Before:
    """A layer as it is now; plain data.

    Args:
        name: the name of the layer in the model.
        layer: the layer; of a Bidirectional, one half.
        swapped: the class that it is about to get.
    """

    def __init__(self, name: str, layer: Layer, swapped: type[Layer]) -> None:
        self.name, self.layer, self.kind, self.swapped = name, layer, type(layer), swapped
        cell = layer.cell
        self.cell_kind, self.seed = type(cell), cell.seed
        self.rates = cell.dropout, cell.recurrent_dropout
        self.state = ops.convert_to_numpy(cell.seed_generator.state).copy()
        self.attributes = {key: vars(layer)[key] for key in OWN if key in vars(layer)}

    def check(self) -> None:
        """Make sure that the layer is still as `apply` left it.

        Raises:
            PolicyError: its class was changed since.
        """
        now = type(self.layer)
        if now is not self.swapped:
            raise PolicyError(
                f"{self.name} has become a {now.__module__}.{now.__qualname__} since the policy "
                f"was applied; nothing was removed. Undo that first, then call remove() again."
            )

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
