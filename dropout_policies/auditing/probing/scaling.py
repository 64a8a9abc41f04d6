"""Decides whether values that masks keep are scaled by 1 / (1 − rate).

A measurement shows only the product of the scales of all sites on a path. All assignments of scaled
and unscaled sites are tried. A site is decided if all assignments that fit every product agree on
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from .findings import Finding, SiteKey, widened_interval

PRODUCT_TOLERANCE = 2e-3
"""How far a product may be off because of rounding."""

MAX_MASKS = 14
"""The largest number of masks in a group whose assignments are tried. Larger groups stay
undecided."""

ScaleProduct = tuple[float, Sequence[SiteKey]]
"""The factor of a value if nothing is dropped (NaN if unknown), and the sites whose masks
contribute to it."""


def decide_scaling(
    findings: Mapping[SiteKey, Finding], products: Sequence[ScaleProduct]
) -> dict[SiteKey, Finding]:
    """Add to findings whether they are scaled.

    Args:
        findings: the findings of masks.
        products: the measured products of scales.
    """
    decided = dict(findings)
    known = [
        (value, [key for key in keys if key in findings])
        for value, keys in products
        if np.isfinite(value)
    ]
    for group in _connected_groups([keys for _, keys in known]):
        of_group = [(value, keys) for value, keys in known if set(keys) & group]
        decided |= _solve_group(findings, of_group, group)
    return decided


def _connected_groups(rows: Sequence[Sequence[SiteKey]]) -> list[set[SiteKey]]:
    """Group sites so that the sites of each product are in one group."""
    groups: list[set[SiteKey]] = []
    for row in rows:
        joined = set(row)
        touching = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined]
        groups.append(joined.union(*touching))
    return [group for group in groups if group]


def _solve_group(
    findings: Mapping[SiteKey, Finding],
    products: Sequence[ScaleProduct],
    group: set[SiteKey],
) -> dict[SiteKey, Finding]:
    """Find what all assignments that fit a group's products have in common."""
    keys = sorted(group)
    if len(keys) > MAX_MASKS:
        return {}
    assignments = [
        dict(zip(keys, scaled, strict=True)) for scaled in product((True, False), repeat=len(keys))
    ]
    fitting = [
        assignment
        for assignment in assignments
        if all(_product_fits(findings, value, sites, assignment) for value, sites in products)
    ]
    if not fitting:
        notes = {
            key: f"what is kept is multiplied by {value:.3g}"
            for value, sites in products
            for key in sites
        }
        return {key: replace(findings[key], note=notes[key]) for key in keys}
    answers = {key: {assignment[key] for assignment in fitting} for key in keys}
    return {
        key: replace(findings[key], scaled=values.pop())
        for key, values in answers.items()
        if len(values) == 1
    }


def _product_fits(
    findings: Mapping[SiteKey, Finding],
    value: float,
    keys: Sequence[SiteKey],
    scaled: Mapping[SiteKey, bool],
) -> bool:
    low = high = 1.0
    for key in keys:
        if key in findings and scaled[key]:
            bounds = widened_interval(findings[key])
            low, high = low / (1.0 - bounds[0]), high / (1.0 - min(bounds[1], 1.0 - 1e-9))
    return bool(low * (1.0 - PRODUCT_TOLERANCE) <= value <= high * (1.0 + PRODUCT_TOLERANCE))
