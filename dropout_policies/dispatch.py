"""Finding the adapter that a model belongs to, without importing any framework."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from .catalog import resolve
from .errors import PolicyError
from .keyed import check_seed
from .policy import Policy
from .probing.probe import Probe
from .report import Applied

GROUP = "dropout_policies.adapters"
"""The entry-point group; an entry is named after the module that its framework is imported as."""


@runtime_checkable
class Adapter(Protocol):
    """What an adapter offers to the core.

    `precedence`: where two adapters own a model, the higher one gets it. (A Keras model on the
    torch backend is a `torch.nn.Module` too.)

    It may also have a method `describe() -> dict[str, Any]`: what `show_config` prints of it.
    """

    precedence: int

    def owns(self, model: Any) -> bool: ...

    def apply(
        self,
        model: Any,
        policy: Policy,
        seed: int | None,
        stacks: Sequence[Sequence[str]] | None,
    ) -> Applied: ...

    def under_policy(self, model: Any) -> dict[str, Any]:
        """The layers of a model that have a policy, by name; see `sampling.Noisy`."""

    def random_seed(self) -> int:
        """A seed from the framework's own generator."""

    def changed(self, model: Any) -> None:
        """Layers have changed: what was compiled of the model is out of date."""

    def probe(self, model: Any) -> Probe:
        """The model under audit."""


def apply(
    model: Any,
    policy: str | Policy = "zaremba",
    rate: Any = None,
    *,
    seed: int | None = None,
    stacks: Sequence[Sequence[str]] | None = None,
) -> Applied:
    """Put a policy on every recurrent layer of an existing model, in place.

    Parameters, their names and the model's checkpoints stay what they are. Everything is
    checked before anything is changed.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        policy: a name (`dp.names()`), or a `Policy`.
        rate: the rates, in [0, 1), for a policy given by name; its defaults if left out. A number
            for every site, a list with one for each layer of the stack, a `dp.Schedule`, or a
            mapping from names of sites to such rates: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        seed: makes every mask a pure function of (seed, call, site, layer, direction) and of the
            element's place, equal in every framework; without it the framework's own random
            generator is used. An integer in [0, 2**32).
        stacks: which layers feed one another, by name, where the model does not show it:
            `[["lstm1", "lstm2"]]`.

    Returns:
        The report of what was touched; `remove()` on it undoes everything.

    Raises:
        PolicyError: no adapter owns the model, it has no recurrent layer, a layer has a policy
            already or cannot have a site of this one, or which layers form a stack is unclear.
    """
    resolved = resolve(policy, rate)
    checked = None if seed is None else check_seed(seed)
    return adapter_for(model).apply(model, resolved, checked, stacks)


def adapter_for(model: Any) -> Adapter:
    """The adapter that a model belongs to.

    Raises:
        PolicyError: there is none.
    """
    from importlib.metadata import entry_points  # slow to import, and only needed here

    entries = list(entry_points(group=GROUP))
    loaded = [entry.load() for entry in entries if entry.name in sys.modules]
    owners = [adapter for adapter in loaded if adapter.owns(model)]
    if not owners:
        frameworks = ", ".join(sorted(entry.name for entry in entries)) or "none"
        raise PolicyError(
            f"A policy goes on a model of one of these frameworks: {frameworks}. "
            f"Received: model of type {type(model).__module__}.{type(model).__qualname__}"
        )
    adapter: Adapter = max(owners, key=lambda owner: owner.precedence)
    return adapter
