"""Arrays of weights, of which those that are alike are one and the same array.

A probe need not write an array again that it has written already. In a wide network making and
writing the arrays takes as long as running it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np

from .probe import Array, Parameter

Pool = dict[Hashable, Array]
"""Arrays by what was written into them; nobody changes them any more."""


class WeightArrays:
    """The weights of a network, which start at zero.

    An array that was handed out is never changed: a later change is one of a copy.

    Args:
        pool: holds the arrays that several of these have in common.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._arrays: dict[str, Array] = {}
        # What was written into each array; None if not all of it has a name.
        self._written: dict[str, tuple[Hashable, ...] | None] = {}

    def add(self, parameters: Sequence[Parameter]) -> None:
        """Add parameters, with zeros for all that are not there yet."""
        for p in parameters:
            if p.name not in self._arrays:
                self._written[p.name] = ()
                self._arrays[p.name] = self._pooled((p.name, p.shape), partial(np.zeros, p.shape))

    def write(
        self, parameter: Parameter, change: Callable[[Array], None], label: Hashable = None
    ) -> None:
        """Change a parameter's array.

        Args:
            parameter: the parameter.
            change: changes an array in place.
            label: names what it does, and with which numbers; None for what is done only once.
        """
        name, written = parameter.name, self._written[parameter.name]

        def changed() -> Array:
            array = self._arrays[name].copy() if written != () else np.zeros(parameter.shape)
            change(array)
            return array

        if label is None or written is None:
            self._written[name] = None
            self._arrays[name] = changed()
        else:
            self._written[name] = (*written, label)
            self._arrays[name] = self._pooled((name, parameter.shape, *written, label), changed)

    def _pooled(self, key: Hashable, make: Callable[[], Array]) -> Array:
        if key not in self._pool:
            self._pool[key] = make()
        return self._pool[key]

    def all(self) -> dict[str, Array]:
        """The arrays by name."""
        return dict(self._arrays)
