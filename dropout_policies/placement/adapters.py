"""What an adapter is, and which one a model belongs to. No framework is imported to find out."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import PolicyError
from .report import Applied
from .selection import ApplyRequest
from .wirings import Wiring

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "dropout_policies.adapters"
"""The entry-point group; an entry is named after the module that its framework is imported as."""


@runtime_checkable
class Adapter(Protocol):
    """What an adapter offers to the core.

    `precedence`: where two adapters own a model, the higher one gets it. (A Keras model on the
    torch backend is a `torch.nn.Module` too.)

    It may also have a method `describe() -> dict[str, Any]`: what `show_config` prints of it.
    `wiring` lists layers under a policy too.
    """

    precedence: int

    def owns(self, model: Any) -> bool: ...

    def apply(self, model: Any, request: ApplyRequest) -> Applied:
        """Do what the user asked for; check everything first, and change things only then."""

    def wiring(self, model: Any, example: Any) -> Wiring:
        """How its recurrent layers are connected: read from its structure, or seen in a run on an
        example."""

    def remove(self, model: Any) -> None:
        """Make every layer under a policy the stock layer that it was, or would have been."""

    def under_policy(self, model: Any) -> dict[str, Any]:
        """The layers of a model that have a policy, by name; see `PolicyLayer`."""

    def random_seed(self) -> int:
        """A seed from the framework's own generator."""

    def changed(self, model: Any) -> None:
        """Layers have changed: what was compiled of the model is out of date."""


def find_adapter(model: Any) -> Adapter:
    """The adapter that a model belongs to.

    Raises:
        PolicyError: there is none.
    """
    owners = _owners(model)
    if not owners:
        installed_adapters.cache_clear()  # one may have been installed since
        owners = _owners(model)
    if not owners:
        entries = installed_adapters(tuple(sys.path))
        frameworks = ", ".join(sorted(entry.name for entry in entries)) or "none"
        raise PolicyError(
            f"A policy goes on a model of one of these frameworks: {frameworks}. "
            f"Received: model of type {type(model).__module__}.{type(model).__qualname__}"
        )
    adapter: Adapter = max(owners, key=lambda owner: owner.precedence)
    return adapter


def _owners(model: Any) -> list[Adapter]:
    entries = installed_adapters(tuple(sys.path))
    loaded = [entry.load() for entry in entries if entry.name in sys.modules]
    return [adapter for adapter in loaded if adapter.owns(model)]


@lru_cache(maxsize=1)
def installed_adapters(path: tuple[str, ...]) -> list[EntryPoint]:  # noqa: ARG001  the cache's key
    """The entries of all adapters. Reading them takes milliseconds.

    Args:
        path: `sys.path`, where they are looked for.
    """
    from importlib.metadata import entry_points  # slow to import, and only needed here

    return list(entry_points(group=GROUP))
