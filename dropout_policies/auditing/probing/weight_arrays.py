"""Arrays of weights, of which those that are alike are one and the same array.

A probe need not write an array again that it has written already. In a wide network making and
writing the arrays takes as long as running it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from .probe import Array, Parameter

Pool = dict[Hashable, Array]
"""Arrays by what was written into them; nobody changes them any more."""


class _Change(NamedTuple):
    """One change of an array.

    Args:
        apply: changes an array in place.
        label: names what it does, and with which numbers; None for what is done only once.
    """

    apply: Callable[[Array], None]
    label: Hashable


class WeightArrays:
    """The weights of a network, which start at zero.

    An array is made when it is asked for, from zeros: that touches less memory than to copy what
    it was before. One that was handed out is never changed.

    Args:
        pool: holds the arrays that several of these have in common.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._changes: dict[Parameter, list[_Change]] = {}
        self._made: dict[Parameter, Array] = {}

    def add(self, parameters: Sequence[Parameter]) -> None:
        """Add parameters, with zeros for all that are not there yet."""
        for p in parameters:
            self._changes.setdefault(p, [])

    def write(
        self, parameter: Parameter, change: Callable[[Array], None], label: Hashable = None
    ) -> None:
        """Change a parameter's array.

        Args:
            parameter: the parameter.
            change: changes an array in place, to the same values whenever it is called.
            label: names what it does, and with which numbers; None for what is done only once.
        """
        self._changes[parameter].append(_Change(change, label))
        self._made.pop(parameter, None)

    def all(self) -> dict[str, Array]:
        """The arrays by name."""
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
