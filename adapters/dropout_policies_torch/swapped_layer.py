"""What a policy changes on a module, and the way back."""

from __future__ import annotations

from torch import nn

from dropout_policies.adapter import (
    SwappedLayer,
)

from .policy_layer import POLICY_ATTRIBUTES


class RestorableLayer(SwappedLayer):
    """A module as it is now."""

    def __init__(self, name: str, layer: nn.Module, swapped: type[nn.Module]) -> None:
        super().__init__(name, layer, swapped)
        kept = ("dropout", "batch_first", *POLICY_ATTRIBUTES)
        self.attributes = {key: vars(layer)[key] for key in kept if key in vars(layer)}

    def restore(self) -> None:
        """Put the module back."""
        self.layer.__class__ = self.kind
        for key in ("dropout", "batch_first", *POLICY_ATTRIBUTES):
            vars(self.layer).pop(key, None)
        vars(self.layer).update(self.attributes)
