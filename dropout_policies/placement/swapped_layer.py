"""The state of a layer before a policy, and how to restore it."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import PolicyError


class Restorable(Protocol):
    """Something that `Applied.remove` restores: it calls every `check`, then every `restore`."""

    def check(self) -> None: ...

    def restore(self) -> None: ...


class SwappedLayer:
    """A layer whose class is about to be swapped.

    It holds plain data, so that it is copied and pickled with its model. An adapter's subclass
    adds what else the adapter changes, and `restore`.

    Args:
        name: the layer's name in the model.
        layer: the layer.
        swapped: the class that it is about to get.
    """

    def __init__(self, name: str, layer: Any, swapped: type) -> None:
        self.name, self.layer, self.kind, self.swapped = name, layer, type(layer), swapped

    def check(self) -> None:
        """Check that the layer is still as `apply` left it.

        Raises:
            PolicyError: its class has been changed since.
        """
        now = type(self.layer)
        if now is self.kind and now is not self.swapped:
            return  # dropout_policies.remove has freed it in the meantime
        if now is not self.swapped:
            raise PolicyError(
                f"{self.name} has become a {now.__module__}.{now.__qualname__} since the policy "
                f"was applied, for instance by a parametrization; nothing was removed. Undo that "
                f"first, then call remove() again."
            )
