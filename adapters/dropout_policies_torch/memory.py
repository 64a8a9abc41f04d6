"""What a module was before a policy came on it, and the way back."""

from __future__ import annotations

from torch import nn

from dropout_policies.errors import PolicyError

OWN = ("placement", "seed", "calls", "row_offset")
"""The attributes that a policy adds to a module."""


class Before:
    """A module as it is now; plain data, so that it is copied and pickled with its model.

    Args:
        name: the module's name in the model.
        module: the module.
        swapped: the class that it is about to get.
    """

    def __init__(self, name: str, module: nn.Module, swapped: type[nn.Module]) -> None:
        self.name, self.module, self.kind, self.swapped = name, module, type(module), swapped
        kept = ("dropout", *OWN)
        self.attributes = {key: vars(module)[key] for key in kept if key in vars(module)}

    def check(self) -> None:
        """Make sure that the module is still as `apply` left it.

        Raises:
            PolicyError: its class was changed since.
        """
        now = type(self.module)
        if now is not self.swapped:
            raise PolicyError(
                f"{self.name} has become a {now.__module__}.{now.__qualname__} since the policy "
                f"was applied, for instance by a parametrization; nothing was removed. Undo that "
                f"first, then call remove() again."
            )

    def restore(self) -> None:
        """Put the module back."""
        self.module.__class__ = self.kind
        for key in ("dropout", *OWN):
            vars(self.module).pop(key, None)
        vars(self.module).update(self.attributes)
