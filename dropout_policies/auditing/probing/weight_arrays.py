"""Arrays of weights. Weights that are alike share one array.

A probe need not write an array again that it has already written. In a wide network, making and
writing the arrays takes as long as running the network.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from .probe import Array, Parameter

Pool = dict[Hashable, Array]
"""Arrays by the changes that made them. Nobody changes these arrays afterwards."""


class _Change(NamedTuple):
    """One change of an array.

    Args:
        apply: a function that changes an array in place.
        label: a name for the change and its numbers. None for a change that is made only once.
    """

    apply: Callable[[Array], None]
    label: Hashable


class WeightArrays:
    """The weights of a network, which start at zero.

    An array is made from zeros when it is needed. This touches less memory than copying its earlier
    state. An array that was returned is never changed.

    Args:
        pool: the arrays that several of these objects share.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._changes: dict[Parameter, list[_Change]] = {}
        self._made: dict[Parameter, Array] = {}

    def add(self, parameters: Sequence[Parameter]) -> None:
        """Add parameters that are not there yet, with zeros."""
        for p in parameters:
            self._changes.setdefault(p, [])

    def write(
        self, parameter: Parameter, change: Callable[[Array], None], label: Hashable = None
    ) -> None:
        """Change a parameter's array.

        Args:
            parameter: the parameter.
            change: a function that changes an array in place, to the same values at every call.
            label: a name for the change and its numbers. None for a change that is made only once.
        """
        self._changes[parameter].append(_Change(change, label))
        self._made.pop(parameter, None)

    def all(self) -> dict[str, Array]:
        """Return the arrays by name."""
        for parameter in self._changes.keys() - self._made.keys():
            self._made[parameter] = self._make(parameter)
        return {p.name: self._made[p] for p in self._changes}

    def _make(self, parameter: Parameter) -> Array:
        changes = self._changes[parameter]
        key = (parameter, *(change.label for change in changes))
        if key in self._pool:
            return self._pool[key]
        array = np.zeros(parameter.shape)
        for change in changes:
            change.apply(array)
        if None not in key:
            self._pool[key] = array
        return array
