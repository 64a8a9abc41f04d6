"""Statistics of mask bits, which tell effects from chance.

Elements of a mask may be dropped independently, together, or at different rates. These functions
tell which, and how certain a rate is.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from .probe import Array

LOG_CHANCE = log(1e-4)
"""An event whose chance is smaller than this is not taken for chance."""

DESIGN_EFFECT = 1.5
"""The design effect above which elements do not count as independent."""

UNEVEN_DEVIATIONS = 6.0
"""Standard deviations by which the rate of a step or unit may be off by chance."""

Z_99 = 2.576
"""Standard deviations of a 99% interval."""

CLUSTER_EFFECT, CLUSTER_DEVIATIONS = 1.3, 6.0
"""Elements are clustered if their design effect is larger than the first number and exceeds chance
by the second number of standard deviations."""

CLUSTER_KNOWN_SHARE = 0.4
"""The share of a mask that must be known before clusters are searched for."""


def design_effect(bits: Array) -> float:
    """Estimate the number of bits for each independent element.

    It is above 1 if some elements are dropped together more often than by chance.
    """
    known = np.isfinite(bits)
    dropped = np.where(known, bits, 0.0)
    count = known.sum()
    rate = dropped.sum() / count
    effects = [1.0]
    for axis in (1, 2, 3):
        excess = dropped.sum(axis=axis) - rate * known.sum(axis=axis)
        if bits.shape[axis] > 1 and 0.0 < rate < 1.0:
            effects.append(float((excess**2).sum() / (count * rate * (1.0 - rate))))
    return max(effects) if max(effects) > DESIGN_EFFECT else 1.0


def find_clustered_axis(bits: Array, names: tuple[str, str, str]) -> str:
    """Find the first axis along which some elements are dropped together more often than by chance.

    Args:
        bits: elements that are not all the same along any axis that is longer than 1.
        names: the names of the axes T, B and F.

    Returns:
        The name of the axis, or "" if there is none.
    """
    known = np.isfinite(bits)
    steps = known.any(axis=(0, 2, 3))
    if not steps.any() or known[:, steps].mean() < CLUSTER_KNOWN_SHARE:
        return ""
    dropped = np.where(known, bits, 0.0)
    for axis, name in enumerate(names, 1):
        # Visible elements may be dropped more often at some steps than at others.
        pooled = (0, 2, 3) if axis > 1 else (0, 1, 2, 3)
        counts = known.sum(axis=pooled, keepdims=True)
        rate = dropped.sum(axis=pooled, keepdims=True) / np.maximum(counts, 1)
        spread = known * rate * (1.0 - rate)
        squared_excess = ((dropped - rate * known).sum(axis=axis) ** 2).sum()
        expected = spread.sum()
        # The variance of the squared distance of a sum of binary variables from its mean.
        fourth = (spread * (1.0 - 6.0 * spread)).sum(axis=axis)
        variance = (2.0 * spread.sum(axis=axis) ** 2 + fourth).sum()
        significant = squared_excess - expected > CLUSTER_DEVIATIONS * sqrt(variance)
        if bits.shape[axis] > 1 and significant and squared_excess > CLUSTER_EFFECT * expected:
            return name
    return ""


def describe_uneven_rate(bits: Array) -> str:
    """Name the axis along which rates differ by more than chance, in words. "" if there is none."""
    known = np.isfinite(bits)
    dropped = np.where(known, bits, 0.0)
    rate = dropped.sum() / known.sum()
    for axis, name in ((0, "call"), (1, "step"), (3, "unit")):
        others = tuple(other for other in range(4) if other != axis)
        counts, hits = known.sum(axis=others), dropped.sum(axis=others)
        if len(counts) > 1 and rate < 1.0:
            off = np.abs(hits - rate * counts) / np.sqrt(np.maximum(counts, 1) * rate * (1 - rate))
            if off.max() > UNEVEN_DEVIATIONS:
                return f"the rate is not that of every {name}"
    return ""


def is_independent(bits: Array, axis: int) -> bool | None:
    """Whether elements that differ only along an axis are dropped independently.

    None if too few were seen to tell.
    """
    known = np.isfinite(bits)
    counts = known.sum(axis=axis)
    sums = np.where(known, bits, 0.0).sum(axis=axis)
    groups = counts >= 2
    if (groups & (sums > 0) & (sums < counts)).any():
        return True
    rate = float(np.nanmean(bits))
    if not groups.any() or not 0.0 < rate < 1.0:
        return None
        # The probability that all groups would be uniform if elements were independent.
    sizes = counts[groups]
    log_probability = np.log(rate**sizes + (1.0 - rate) ** sizes).sum()
    return False if log_probability < LOG_CHANCE else None


def estimate_proportion(hits: float, count: float) -> tuple[float, tuple[float, float]]:
    """Estimate a share and its 99% interval (Wilson 1927)."""
    share = hits / count
    middle = (share + Z_99**2 / (2 * count)) / (1 + Z_99**2 / count)
    half = (
        Z_99 / (1 + Z_99**2 / count) * sqrt(share * (1 - share) / count + Z_99**2 / (4 * count**2))
    )
    return share, (max(0.0, middle - half), min(1.0 - 1e-9, middle + half))


def correct_for_hidden_groups(share: float, size: float) -> float:
    """Correct the rate of elements if groups whose elements were all dropped could not be seen.

    Args:
        share: the share of the seen elements that was dropped, in [0, 1).
        size: the number of elements in a group.
    """
    low, high = share, 1.0
    for _ in range(40 if size > 1.0 else 0):
        rate = (low + high) / 2.0
        hidden = rate**size
        if hidden < 1.0 and (rate - hidden) / (1.0 - hidden) < share:
            low = rate
        else:
            high = rate
    return low
