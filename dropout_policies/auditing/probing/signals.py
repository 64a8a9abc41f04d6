"""Signals so small that a network is linear: how large they are, and how they are compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .network import Cell
from .probe import Array

AMPLITUDE = 1e-3
"""How large signals are: small enough to be linear in float32's precision."""

STEPS, BATCH, ROUTES = 4, 3, 3
"""T and B of every call, and how many ways features are led to units."""

Routes = npt.NDArray[np.int_]
"""Which feature every unit sees on each way that features are led to units, `[R, n]`."""


def gain(cell: Cell, remembers: bool) -> float:
    """How large h is for a small signal that the candidate sees."""
    return {4: 0.25, 3: 0.5 if remembers else 1.0, 1: 1.0}[cell.kind.gates]


def back_gain(cell: Cell, remembers: bool) -> float:
    """The same for what the candidate sees of the hidden state: a GRU's reset gate halves it."""
    return gain(cell, remembers) * (0.5 if cell.kind.gates == 3 else 1.0)


def commonest(values: Array) -> Array:
    """What most of the values that are there are, along the last axis; NaN where no half of
    them are the same."""
    flat = values.reshape(-1, values.shape[-1])
    found = np.full(len(flat), np.nan)
    for number, row in enumerate(flat):
        there = row[np.isfinite(row)]
        same = np.abs(there[:, None] - there[None, :]) <= 1e-4
        if len(there) and same.sum(axis=0).max() > len(there) / 2:
            found[number] = there[same.sum(axis=0).argmax()]
    return found.reshape(values.shape[:-1])


def wide(sizes: Array, width: int) -> Array:
    """Sizes `[T, B, n]` of all units of a cell: those that are not seen are as the commonest."""
    more = np.repeat(common(sizes)[..., None], max(width - sizes.shape[-1], 0), axis=-1)
    return np.concatenate([sizes[..., :width], more], axis=-1)


def routes(n: int, columns: int, first: int = 0) -> Routes:
    """Which feature each unit sees, on each route; none itself, if the first is 1."""
    stride = max(1, columns // ROUTES) if columns > n else 1
    routes: Routes = (np.arange(n)[None, :] + first + stride * np.arange(ROUTES)[:, None]) % columns
    return routes


def one_to_one(route: Routes, units: int, columns: int) -> Array:
    matrix = np.zeros((units, columns))
    matrix[np.arange(len(route)), route] = 1.0
    return matrix


def over(value: Array, by: Array) -> Array:
    """A quotient, NaN where there is nothing to divide by."""
    there = np.isfinite(by) & (np.abs(by) > 1e-5)
    found: Array = np.divide(value, by, out=np.full(value.shape, np.nan), where=there)
    return found


def common(values: Array) -> Array:
    """The median of what is there and not 0, along the last axis; NaN where nothing is."""
    there = np.where(np.isfinite(values) & (np.abs(values) > 1e-6), values, np.nan)
    flat = there.reshape(-1, there.shape[-1])
    found = [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in flat]
    return np.array(found).reshape(there.shape[:-1])


def clean(values: Array) -> Array:
    """What is 0 but for rounding is 0."""
    return np.where(np.abs(values) < 1e-4, 0.0, values)
