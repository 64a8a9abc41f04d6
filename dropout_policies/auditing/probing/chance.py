"""What is more than chance: whether elements of a mask are dropped apart, together or unevenly."""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from .probe import Array

CERTAIN = log(1e-4)
"""What happens by chance less often than this is not chance."""

TOGETHER = 1.5
"""From which design effect on elements are not taken to be independent."""

UNEVEN = 6.0
"""Standard deviations by which the rate of a step or unit may be off by chance."""

Z = 2.576
"""Of a 99% interval."""

CLUSTERED, SELDOM = 1.3, 6.0
"""The design effect of elements that are dropped together, and by how many standard deviations it
must be more than by chance, before they are said to be."""

SEEN = 0.4
"""How much must be seen of a mask before that is asked."""


def together(bits: Array) -> float:
    """By how much fewer elements there are than it seems, where some are dropped together more
    often than chance would have it: the design effect of their clusters."""
    known = np.isfinite(bits)
    hit = np.where(known, bits, 0.0)
    count = known.sum()
    rate = hit.sum() / count
    effects = [1.0]
    for axis in (1, 2, 3):
        off = hit.sum(axis=axis) - rate * known.sum(axis=axis)
        if bits.shape[axis] > 1 and 0.0 < rate < 1.0:
            effects.append(float((off**2).sum() / (count * rate * (1.0 - rate))))
    return max(effects) if max(effects) > TOGETHER else 1.0


def clustered(bits: Array, names: tuple[str, str, str]) -> str:
    """The first of the axes, after that of draws, along which some elements are dropped together,
    neither all nor as chance would have it, by its name; or "".

    Args:
        bits: of elements that are not all the same along any axis that is longer than 1.
        names: of its axes T, B and F.
    """
    known = np.isfinite(bits)
    steps = known.any(axis=(0, 2, 3))
    if not steps.any() or known[:, steps].mean() < SEEN:
        return ""
    hit = np.where(known, bits, 0.0)
    for axis, name in enumerate(names, 1):
        # What can be seen may be dropped more often at some steps than at others.
        among = (0, 2, 3) if axis > 1 else (0, 1, 2, 3)
        counts = known.sum(axis=among, keepdims=True)
        rate = hit.sum(axis=among, keepdims=True) / np.maximum(counts, 1)
        spread = known * rate * (1.0 - rate)
        off = ((hit - rate * known).sum(axis=axis) ** 2).sum()
        expected = spread.sum()
        # Of the squared distance from its mean of a sum of binary variables.
        fourth = (spread * (1.0 - 6.0 * spread)).sum(axis=axis)
        variance = (2.0 * spread.sum(axis=axis) ** 2 + fourth).sum()
        far = off - expected > SELDOM * sqrt(variance) and off > CLUSTERED * expected
        if bits.shape[axis] > 1 and far:
            return name
    return ""


def uneven(bits: Array) -> str:
    """Along which axis the rates differ by more than chance would have it, or ""."""
    known = np.isfinite(bits)
    hit = np.where(known, bits, 0.0)
    rate = hit.sum() / known.sum()
    for axis, name in ((0, "call"), (1, "step"), (3, "unit")):
        others = tuple(other for other in range(4) if other != axis)
        counts, hits = known.sum(axis=others), hit.sum(axis=others)
        if len(counts) > 1 and rate < 1.0:
            off = np.abs(hits - rate * counts) / np.sqrt(np.maximum(counts, 1) * rate * (1 - rate))
            if off.max() > UNEVEN:
                return f"the rate is not that of every {name}"
    return ""


def differs(bits: Array, axis: int) -> bool | None:
    """Whether elements that only differ along an axis are dropped apart; None if too few were
    seen to tell."""
    known = np.isfinite(bits)
    counts = known.sum(axis=axis)
    sums = np.where(known, bits, 0.0).sum(axis=axis)
    groups = counts >= 2
    if (groups & (sums > 0) & (sums < counts)).any():
        return True
    rate = float(np.nanmean(bits))
    if not groups.any() or not 0.0 < rate < 1.0:
        return None
    # How likely it would be that none differ, were they independent.
    sizes = counts[groups]
    chance = np.log(rate**sizes + (1.0 - rate) ** sizes).sum()
    return False if chance < CERTAIN else None


def proportion(hits: float, count: float) -> tuple[float, tuple[float, float]]:
    """A share and its 99% interval (Wilson 1927)."""
    share = hits / count
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return share, (max(0.0, middle - half), min(1.0 - 1e-9, middle + half))


def behind_groups(share: float, size: float) -> float:
    """The rate of elements of which a share was dropped among those that were seen, where groups of
    which all were dropped were not.

    Args:
        share: in [0, 1).
        size: how many elements a group has.
    """
    low, high = share, 1.0
    for _ in range(40 if size > 1.0 else 0):
        rate = (low + high) / 2.0
        gone = rate**size
        if gone < 1.0 and (rate - gone) / (1.0 - gone) < share:
            low = rate
        else:
            high = rate
    return low
