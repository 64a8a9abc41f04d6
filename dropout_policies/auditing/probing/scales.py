"""Whether what is kept is scaled, told from products of several sites' scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ...policies.sites import Site
from .evidence import Finding
from .resting import wide

Key = tuple[Site, int, int]
"""A site of a layer in a direction."""

CLOSE = 2e-3
"""How far a product may be off, for rounding."""

MOST = 14
"""Of how many masks together ways are tried; of more, nothing is said."""


def with_scales(
    findings: Mapping[Key, Finding], seen: Sequence[tuple[float, Sequence[Key]]]
) -> dict[Key, Finding]:
    """Findings that say whether they are scaled.

    Args:
        findings: those that masks were found at, by any keys.
        seen: by what something is multiplied where nothing is dropped, NaN if that could not be
            seen, and which masks have a part in it.
    """
    made = dict(findings)
    known = [
        (value, [key for key in keys if key in findings])
        for value, keys in seen
        if np.isfinite(value)
    ]
    for group in _joined([keys for _, keys in known]):
        made |= _told(findings, [(v, keys) for v, keys in known if set(keys) & group], group)
    return made


def _joined(rows: Sequence[Sequence[Key]]) -> list[set[Key]]:
    """Keys that have to do with one another."""
    groups: list[set[Key]] = []
    for row in rows:
        mine = set(row)
        others = [group for group in groups if group & mine]
        groups = [group for group in groups if not group & mine]
        groups.append(mine.union(*others))
    return [group for group in groups if group]


def _told(
    findings: Mapping[Key, Finding],
    known: Sequence[tuple[float, Sequence[Key]]],
    group: set[Key],
) -> dict[Key, Finding]:
    """What all ways to explain some products have in common."""
    order = sorted(group)
    if len(order) > MOST:
        return {}
    ways = [dict(zip(order, way, strict=True)) for way in product((True, False), repeat=len(order))]
    fitting = [w for w in ways if all(_agrees(findings, value, keys, w) for value, keys in known)]
    if not fitting:
        notes = {
            key: f"what is kept is multiplied by {value:.3g}" for value, ks in known for key in ks
        }
        return {key: replace(findings[key], note=notes[key]) for key in order}
    answers = {key: {way[key] for way in fitting} for key in order}
    return {
        key: replace(findings[key], scaled=those.pop())
        for key, those in answers.items()
        if len(those) == 1
    }


def _agrees(
    findings: Mapping[Key, Finding],
    value: float,
    keys: Sequence[Key],
    scaled: Mapping[Key, bool],
) -> bool:
    low = high = 1.0
    for key in keys:
        if key in findings and scaled[key]:
            bounds = wide(findings[key])
            low, high = low / (1.0 - bounds[0]), high / (1.0 - min(bounds[1], 1.0 - 1e-9))
    return bool(low * (1.0 - CLOSE) <= value <= high * (1.0 + CLOSE))
