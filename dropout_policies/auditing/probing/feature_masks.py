"""Masks on the features that enter a cell's gates, and on the weights of these features.

Several units see each feature. If a feature is dropped, all of them miss it. If an entry of the
matrix is dropped, one unit misses it for the whole call. So the two can be told apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .findings import FEATURES_OR_WEIGHTS, UNITS_WITHOUT_INPUT
from .probe import Array
from .signals import Routes

MISSING_DEVIATIONS = 5.0
"""Standard deviations by which more features may be missing than the drops of entries explain."""

MIN_SIGHTINGS = 3
"""The least number of sightings of an entry in a call that makes it count for a missing feature."""

MAX_MISSING_SHARE = 0.5
"""If h is missing for more than this share of the units that cannot be seen at the output, there
may be a mask."""


class FeatureMasks(NamedTuple):
    """What units see of their input, as masks.

    Args:
        bits: the bits of the features, `[N, T, B, F]`: 1 dropped, 0 not, NaN not seen.
        features: the numbers of the features, `[F]`.
        entries: the bits of single entries of the matrix, `[N, 1, R, n]`. None if none is dropped.
        doubt: why masks on features and on entries for a call do not explain it, or "".
    """

    bits: Array
    features: Routes
    entries: Array | None
    doubt: str


def separate_masks(values: Array, columns: Routes) -> FeatureMasks:
    """Separate masks on features from masks on the entries of their matrix.

    Args:
        values: what units see, relative to the same without noise, `[N, T, B, R, n]`.
        columns: the feature that each unit sees, `[R, n]`.
    """
    bits, features, conflict = combine_by_feature(values, columns)
    if not conflict:
        return FeatureMasks(bits, features, None, "")
    entries, remaining = find_dropped_entries(values, columns)
    bits, _, conflict = combine_by_feature(remaining, columns)
    doubt = "some units see what others do not, and not throughout a call" if conflict else ""
    if not doubt and _features_missing_too_often(values, entries, columns):
        doubt = FEATURES_OR_WEIGHTS
    return FeatureMasks(bits, features, entries, doubt)


def combine_by_feature(values: Array, columns: Routes) -> tuple[Array, Routes, bool]:
    """Combine what several units see of each feature.

    Args:
        values: what unit k sees on route r of feature `columns[r, k]`, `[..., R, n]`.
        columns: the feature that each unit sees, `[R, n]`.

    Returns:
        The bits `[..., F]` (1 dropped, 0 not, NaN not seen), their features `[F]`, and whether some
        units saw a feature that others missed at the same time.
    """
    flat, order = values.reshape(*values.shape[:-2], -1), columns.ravel()
    features = np.unique(order)
    bits = np.full((*flat.shape[:-1], len(features)), np.nan)
    conflict = False
    for number, feature in enumerate(features):
        part = flat[..., order == feature]
        missed, seen = (part == 0.0).any(axis=-1), (np.abs(part) > 0.0).any(axis=-1)
        conflict = conflict or bool((missed & seen).any())
        bits[..., number] = np.where(seen, 0.0, np.where(missed, 1.0, np.nan))
    return bits, features, conflict


def find_dropped_entries(values: Array, columns: Routes) -> tuple[Array, Array]:
    """Find the dropped entries of a matrix.

    Args:
        values: the values `[N, T, B, R, n]`. Some units see a feature that others miss.
        columns: the feature that each unit sees, `[R, n]`.

    Returns:
        The bits of entries `[N, 1, R, n]`, and the values that pass the remaining entries.
    """
    passes, seen = _ever_passes(values), np.abs(values) > 0.0
    shown = np.zeros(passes.shape, int)
    for feature in np.unique(columns):
        of_feature = columns == feature
        seen_here = seen[..., of_feature]
        others = seen_here.sum(axis=-1, keepdims=True) > seen_here
        known = np.isfinite(values[..., of_feature])
        shown[:, of_feature] = (others & known).sum(axis=(1, 2))
    # If no other unit sees a feature, the feature itself may be dropped.
    entries = np.where(shown > 0, np.where(passes, 0.0, 1.0), np.nan)  # [N, R, n]
    remaining = np.where(passes[:, None, None], values, np.nan)
    return entries[:, None], remaining


def _ever_passes(values: Array) -> npt.NDArray[np.bool_]:
    """Find the entries that anything passes in a call, `[N, R, n]`."""
    passes: npt.NDArray[np.bool_] = np.asarray((np.abs(values) > 0.0).any(axis=(1, 2)))
    return passes


def _features_missing_too_often(values: Array, entries: Array, columns: Routes) -> bool:
    """Whether all units miss a feature more often than independent drops of entries explain."""
    if not np.isfinite(entries).any():
        return False
    rate, passes = float(np.nanmean(entries)), _ever_passes(values)
    sighted = np.isfinite(values).sum(axis=(1, 2)) >= MIN_SIGHTINGS
    missing = expected = variance = 0.0
    for feature in np.unique(columns):
        of_feature = columns == feature
        count = sighted[:, of_feature].sum(axis=-1)
        chance = np.where(count > 0, rate**count, 0.0)
        passed = (passes[:, of_feature] & sighted[:, of_feature]).any(axis=-1)
        missing += float(((count > 0) & ~passed).sum())
        expected += float(chance.sum())
        variance += float((chance * (1.0 - chance)).sum())
    return bool(missing > 1.0 + expected + MISSING_DEVIATIONS * np.sqrt(variance))


def hide_doubtful_bits(bits: Array, input_known: npt.NDArray[np.bool_]) -> Array:
    """Hide bits that may be missing because nothing came in at all.

    They count only if something is missing elsewhere too.

    Args:
        bits: `[N, T, B, F]`.
        input_known: where it is known whether anything came in, `[N, T, B]`.
    """
    missing, known = bits == 1.0, input_known[..., None]
    return bits if (missing & known).any() else np.where(missing, np.nan, bits)


def hide_bits_without_input(bits: Array, visible: npt.NDArray[np.bool_]) -> tuple[Array, str]:
    """Hide bits of the hidden state that are missing because units may see nothing of their input.

    A unit that is visible at the output had input. What the other units miss counts only if visible
    units miss something too.

    Args:
        bits: `[N, T, B, F]`.
        visible: which units are visible at the output, `[N, T, B, F]`.

    Returns:
        The bits, and a note if so many are missing that the audit cannot tell whether there is a
        mask. "" otherwise.
    """
    missing = bits == 1.0
    if not missing.any() or (missing & visible).any():
        return bits, ""
    others = np.isfinite(bits) & ~visible
    too_many = missing.sum() > MAX_MISSING_SHARE * others.sum()
    return np.where(missing, np.nan, bits), UNITS_WITHOUT_INPUT if too_many else ""
