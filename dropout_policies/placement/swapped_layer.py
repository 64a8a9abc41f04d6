"""What a layer was before a policy came on it, and the way back."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import PolicyError


class Restorable(Protocol):
    """One thing that `Applied.remove` puts back: first every `check`, then every `restore`."""

    def check(self) -> None: ...

    def restore(self) -> None: ...


class SwappedLayer:
    """A layer whose class is about to be swapped; plain data, so that it is copied and pickled
    with its model. An adapter's subclass adds what else it changes, and `restore`.

    Args:
        name: the layer's name in the model.
        layer: the layer.
        swapped: the class that it is about to get.
    """

    def __init__(self, name: str, layer: Any, swapped: type) -> None:
        self.name, self.layer, self.kind, self.swapped = name, layer, type(layer), swapped

    def check(self) -> None:
        """Make sure that the layer is still as `apply` left it.

        Raises:
            PolicyError: its class was changed since.
        """
        now = type(self.layer)
        if now is self.kind and now is not self.swapped:
            return  # freed by dropout_policies.remove meanwhile
        if now is not self.swapped:
            raise PolicyError(
                f"{self.name} has become a {now.__module__}.{now.__qualname__} since the policy "
                f"was applied, for instance by a parametrization; nothing was removed. Undo that "
                f"first, then call remove() again."
            )
