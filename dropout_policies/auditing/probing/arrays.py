"""Small array functions of the audit. NaN stands for what could not be measured."""

from __future__ import annotations

import numpy as np

from .probe import Array


def safe_divide(numerator: Array, denominator: Array) -> Array:
    """A quotient; NaN where the denominator is 0 or unknown."""
    usable = np.isfinite(denominator) & (np.abs(denominator) > 1e-5)
    quotient: Array = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=usable
    )
    return quotient


def zero_rounding_errors(values: Array) -> Array:
    """Values with 0 for what differs from 0 by rounding alone."""
    return np.where(np.abs(values) < 1e-4, 0.0, values)


def median_nonzero(values: Array) -> Array:
    """The median of the known values that are not 0, along the last axis; NaN if there is none."""
    kept = np.where(np.isfinite(values) & (np.abs(values) > 1e-6), values, np.nan)
    flat = kept.reshape(-1, kept.shape[-1])
    medians = [
        np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in flat
    ]
    return np.array(medians).reshape(kept.shape[:-1])


def majority_value(values: Array) -> Array:
    """The value of more than half of the known ones, along the last axis; NaN if there is none."""
    flat = values.reshape(-1, values.shape[-1])
    majority = np.full(len(flat), np.nan)
    for number, row in enumerate(flat):
        known = row[np.isfinite(row)]
        same = np.abs(known[:, None] - known[None, :]) <= 1e-4
        if len(known) and same.sum(axis=0).max() > len(known) / 2:
            majority[number] = known[same.sum(axis=0).argmax()]
    return majority.reshape(values.shape[:-1])


def extend_to_width(sizes: Array, width: int) -> Array:
    """Sizes `[T, B, n]` of all units of a cell: invisible units get the median of the others."""
    extra = np.repeat(median_nonzero(sizes)[..., None], max(width - sizes.shape[-1], 0), axis=-1)
    return np.concatenate([sizes[..., :width], extra], axis=-1)


def typical_kept_value(values: Array) -> float:
    """The median of the known values that are not 0; NaN if there is none."""
    kept = values[np.isfinite(values) & (values != 0.0)]
    return float(np.median(kept)) if len(kept) else float("nan")


def share_off_typical(values: Array) -> float:
    """The share of the known nonzero values that differ from the typical one; 0 without any."""
    kept = values[np.isfinite(values) & (values != 0.0)]
    if not len(kept):
        return 0.0
    return float((np.abs(kept / typical_kept_value(values) - 1.0) > 1e-2).mean())
