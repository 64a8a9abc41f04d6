"""What an adapter is, and how the adapter of a model is found. This imports no framework."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import PolicyError
from .report import Applied
from .selection import ApplyRequest
from .wirings import Wiring
from .wrong_models import describe_wrong_model

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "dropout_policies.adapters"
"""The entry-point group. The name of an entry is the module that imports its framework."""


@runtime_checkable
class Adapter(Protocol):
    """The methods that an adapter provides to the core.

    An adapter may also have a method `describe() -> dict[str, Any]`. `show_config` prints its
    result.

    Attributes:
        precedence: if two adapters own a model, the one with the higher precedence gets it. (A
            Keras model on the torch backend is also a `torch.nn.Module`.)
    """

    precedence: int

    def owns(self, model: Any) -> bool: ...

    def apply(self, model: Any, request: ApplyRequest) -> Applied:
        """Do what the user asked for. Check everything first, and only then change anything."""

    def wiring(self, model: Any, example: Any) -> Wiring:
        """How the model's recurrent layers are connected, including layers under a policy.

        This is read from the model's structure, or, if there is an example, observed in a run.
        """

    def remove(self, model: Any) -> None:
        """Turn every layer under a policy into the stock layer that it was or would have been."""

    def under_policy(self, model: Any) -> dict[str, Any]:
        """The layers of a model that have a policy, by name. See `PolicyLayer`."""

    def random_seed(self) -> int:
        """A seed from the framework's own generator."""

    def changed(self, model: Any) -> None:
        """Layers have changed, so compiled versions of the model are out of date."""


def find_adapter(model: Any) -> Adapter:
    """Find the adapter that handles a model.

    Args:
        model: the model.

    Raises:
        PolicyError: there is none.
    """
    owners = _owners(model)
    if not owners:
        installed_adapters.cache_clear()  # one may have been installed in the meantime
        owners = _owners(model)
    if not owners:
        entries = installed_adapters(tuple(sys.path))
        raise PolicyError(describe_wrong_model(model, sorted(entry.name for entry in entries)))
    adapter: Adapter = max(owners, key=lambda owner: owner.precedence)
    return adapter


def _owners(model: Any) -> list[Adapter]:
    entries = installed_adapters(tuple(sys.path))
    loaded = [entry.load() for entry in entries if entry.name in sys.modules]
    return [adapter for adapter in loaded if adapter.owns(model)]


@lru_cache(maxsize=1)
def installed_adapters(path: tuple[str, ...]) -> list[EntryPoint]:  # noqa: ARG001  the cache's key
    """The entry points of all adapters. Reading them takes milliseconds.

    Args:
        path: `sys.path`, where they are searched.
    """
    from importlib.metadata import entry_points  # slow to import, and only needed here

    return list(entry_points(group=GROUP))
