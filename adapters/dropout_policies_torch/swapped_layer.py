"""What a policy changes on a module, and the way back."""

from __future__ import annotations

from typing import Any

from torch import nn

from dropout_policies.adapter import SwappedLayer

from .policy_layer import POLICY_ATTRIBUTES

CHANGED = ("dropout", "batch_first", *POLICY_ATTRIBUTES)
"""The attributes of a module that a policy changes or adds."""


def saved_attributes(module: nn.Module) -> dict[str, Any]:
    """What a module has of the attributes that a policy changes, and its class; plain data, which
    is copied and pickled with the module."""
    kept = {name: vars(module)[name] for name in CHANGED if name in vars(module)}
    return {"class": type(module), "attributes": kept}


def put_back(module: nn.Module, saved: dict[str, Any]) -> None:
    """Give a module back the class and the attributes that it had."""
    module.__class__ = saved["class"]
    for name in CHANGED:
        vars(module).pop(name, None)
    vars(module).update(saved["attributes"])


def take_off(module: Any) -> None:
    """Take the policy off a module: it is as it was before `apply`, or the stock layer where it was
    made with the policy. (A class of the user's, derived from ours, stays without a policy.)"""
    if module.before_policy is not None:
        put_back(module, module.before_policy)
        return
    for name in POLICY_ATTRIBUTES:
        vars(module).pop(name, None)
    stock = (nn.RNNBase, nn.RNNCellBase, nn.Embedding)
    is_ours = type(module).__module__.partition(".")[0] == __name__.partition(".")[0]
    if is_ours and isinstance(module, stock):
        vars(module).pop("batch_first" if isinstance(module, nn.Embedding) else "", None)
        module.__class__ = next(
            cls for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn.")
        )


class RestorableLayer(SwappedLayer):
    """A module as it is now."""

    def __init__(self, name: str, layer: nn.Module, swapped: type[nn.Module]) -> None:
        super().__init__(name, layer, swapped)
        self.saved = saved_attributes(layer)

    def restore(self) -> None:
        """Put the module back."""
        put_back(self.layer, self.saved)
