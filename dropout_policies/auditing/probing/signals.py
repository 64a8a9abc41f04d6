"""The signals that the audit sends: their sizes, their routes, and the gain of a cell.

Signals are so small that a network is linear. A cell multiplies a signal by a known number, its
gain, and by the masks on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .network import Cell
from .probe import Array

AMPLITUDE = 1e-3
"""The size of a signal. It is small enough for the network to be linear in float32's precision."""

LARGE_CANDIDATE = 0.9
"""A candidate that is not a small signal. An LSTM's c is half of it."""

STEPS, BATCH, ROUTES = 4, 3, 3
"""T and B of every call, and the number of routes from features to units."""

Run = Callable[[Mapping[str, Array], Array], Array]
"""A function that runs a module with given weights on an input `[T, D]`. It returns the output
`[T, B, F]`."""

Routes = npt.NDArray[np.int_]
"""The feature that each unit sees on each route, `[R, n]`."""


def gain(cell: Cell, remembers: bool) -> float:
    """Return the size of h relative to a small signal that the candidate sees."""
    return {4: 0.25, 3: 0.5 if remembers else 1.0, 1: 1.0}[cell.kind.gates]


def recurrent_gain(cell: Cell, remembers: bool) -> float:
    """Return the same for h as the candidate sees it. A GRU's reset gate halves it."""
    return gain(cell, remembers) * (0.5 if cell.kind.gates == 3 else 1.0)


def make_routes(units: int, features: int, offset: int = 0) -> Routes:
    """Choose the feature that each unit sees on each route.

    Args:
        units: n.
        features: the number of features.
        offset: the feature that unit 0 sees first. With 1, no unit sees itself.
    """
    stride = max(1, features // ROUTES) if features > units else 1
    routes: Routes = (
        np.arange(units)[None, :] + offset + stride * np.arange(ROUTES)[:, None]
    ) % features
    return routes


def route_matrix(route: Routes, units: int, features: int) -> Array:
    """Make the weights `[units, features]` of one route: 1 from each feature to its unit."""
    matrix = np.zeros((units, features))
    matrix[np.arange(len(route)), route] = 1.0
    return matrix
