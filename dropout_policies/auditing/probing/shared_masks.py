"""Finds out which gates, and which sites, share a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

import numpy as np

from ...policies.rules import Gates
from .findings import Finding, SiteKey, site_name
from .probe import Array
from .signals import BATCH
from .significance import LOG_CHANCE

UNEQUAL_DEVIATIONS = 4.5
"""Standard deviations by which gates may differ by chance in how much they see."""


def compare_gate_masks(draws: Sequence[Array], all_visible: bool) -> tuple[Gates | None, bool]:
    """Compare the masks of a cell's gates.

    Args:
        draws: the bits of each gate in some draws. See `observe_gates`.
        all_visible: whether every gate shows all that it sees.

    Returns:
        Whether the gates share one mask, or None if that cannot be told; and whether no gate sees
        more or less of its input than the candidate does.
    """
    if not draws:
        return None, True
    candidate, *others = np.concatenate([d.reshape(len(d), -1) for d in draws], axis=1)
    comparable = differ = False
    for other in others:
        both = np.isfinite(candidate) & np.isfinite(other)
        only_candidate, only_other = (
            (both & (candidate == bit) & (other == 1.0 - bit)).sum() for bit in (1.0, 0.0)
        )
        spread = np.sqrt((only_candidate + only_other) * BATCH)  # samples may share a mask
        if all_visible and abs(only_candidate - only_other) > UNEQUAL_DEVIATIONS * spread:
            return None, False
        differ = differ or bool(only_candidate + only_other)
        dropped, kept = both & (candidate == 1.0), both & (candidate == 0.0)
        comparable = comparable or bool(dropped.any() and kept.any())
    return ("untied" if differ else "tied" if comparable else None), True


def merge_shared_masks(
    findings: Mapping[SiteKey, Finding], bits: Mapping[SiteKey, Array]
) -> tuple[dict[SiteKey, Finding], list[str]]:
    """Give sites that share one mask one rate: that of the site with the most observed elements.

    Returns:
        The findings, and sentences that name these sites.
    """
    merged = dict(findings)
    masked = [key for key, found in merged.items() if found.verdict == "masked" and key in bits]
    notes = []
    for number, second in enumerate(masked):
        for first in masked[:number]:
            if not is_same_mask(bits[second], bits[first]):
                continue
            notes.append(f"{site_name(*first)} and {site_name(*second)} have one mask")
            best = max((merged[first], merged[second]), key=lambda found: found.elements)
            rate, interval, elements = best.rate, best.interval, best.elements
            for key in (first, second):
                merged[key] = replace(merged[key], rate=rate, interval=interval, elements=elements)
    return merged, notes


def is_same_mask(first: Array, second: Array) -> bool:
    """Whether two sites have the same masks. Both are `[N, T, B, F]`."""
    if first.shape[1:3] != second.shape[1:3]:
        return False
    width = min(first.shape[-1], second.shape[-1])
    a, b = first[..., :width], second[..., :width]
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any() or (a[both] != b[both]).any():
        return False
    rate = float(a[both].mean())
    agreement = rate**2 + (1.0 - rate) ** 2
    return 0.0 < rate < 1.0 and int(both.sum()) * log(agreement) < 2 * LOG_CHANCE
