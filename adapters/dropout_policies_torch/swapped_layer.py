"""What a policy changes on a module, and how to undo it."""

from __future__ import annotations

from typing import Any

from torch import nn

from dropout_policies.adapter import SwappedLayer

from .policy_layer import POLICY_ATTRIBUTES

CHANGED = ("dropout", "batch_first", *POLICY_ATTRIBUTES)
"""The attributes of a module that a policy changes or adds."""


def saved_attributes(module: nn.Module) -> dict[str, Any]:
    """Return a module's class and those of its attributes that a policy changes.

    This is plain data, so it is copied and pickled with the module.
    """
    kept = {name: vars(module)[name] for name in CHANGED if name in vars(module)}
    return {"class": type(module), "attributes": kept}


def put_back(module: nn.Module, saved: dict[str, Any]) -> None:
    """Give a module back its saved class and attributes."""
    module.__class__ = saved["class"]
    for name in CHANGED:
        vars(module).pop(name, None)
    vars(module).update(saved["attributes"])


def take_off(module: Any) -> None:
    """Take the policy off a module.

    The module is then as it was before `apply`. If it was created with the policy, it becomes the
    stock layer. A user's class that is derived from ours keeps its class, without a policy.
    """
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
    """A module with its current class and attributes, which `restore` puts back."""

    def __init__(self, name: str, layer: nn.Module, swapped: type[nn.Module]) -> None:
        super().__init__(name, layer, swapped)
        self.saved = saved_attributes(layer)

    def restore(self) -> None:
        """Put back the class and the attributes of the module."""
        put_back(self.layer, self.saved)
