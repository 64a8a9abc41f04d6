"""Small array functions of the audit. NaN stands for what could not be measured."""

from __future__ import annotations

import numpy as np

from .probe import Array


def safe_divide(numerator: Array, denominator: Array) -> Array:
    """Divide. The result is NaN where the denominator is 0 or unknown."""
    usable = np.isfinite(denominator) & (np.abs(denominator) > 1e-5)
    quotient: Array = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=usable
    )
    return quotient


def zero_rounding_errors(values: Array) -> Array:
    """Replace values that differ from 0 only by rounding with 0."""
    return np.where(np.abs(values) < 1e-4, 0.0, values)


def median_nonzero(values: Array) -> Array:
    """Return the median of the known nonzero values along the last axis. NaN if there are none."""
    kept = np.where(np.isfinite(values) & (np.abs(values) > 1e-6), values, np.nan)
    flat = kept.reshape(-1, kept.shape[-1])
    medians = [
        np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in flat
    ]
    return np.array(medians).reshape(kept.shape[:-1])


def majority_value(values: Array) -> Array:
    """Return the value of more than half of the known values along the last axis, or NaN."""
    flat = values.reshape(-1, values.shape[-1])
    majority = np.full(len(flat), np.nan)
    for number, row in enumerate(flat):
        known = row[np.isfinite(row)]
        same = np.abs(known[:, None] - known[None, :]) <= 1e-4
        if len(known) and same.sum(axis=0).max() > len(known) / 2:
            majority[number] = known[same.sum(axis=0).argmax()]
    return majority.reshape(values.shape[:-1])


def extend_to_width(sizes: Array, width: int) -> Array:
    """Extend sizes `[T, B, n]` to all units of a cell. Invisible units get the others' median."""
    extra = np.repeat(median_nonzero(sizes)[..., None], max(width - sizes.shape[-1], 0), axis=-1)
    return np.concatenate([sizes[..., :width], extra], axis=-1)


def typical_kept_value(values: Array) -> float:
    """Return the median of the known nonzero values. NaN if there are none."""
    kept = values[np.isfinite(values) & (values != 0.0)]
    return float(np.median(kept)) if len(kept) else float("nan")


def share_off_typical(values: Array) -> float:
    """Return the share of known nonzero values off the typical one. 0 if none are known."""
    kept = values[np.isfinite(values) & (values != 0.0)]
    if not len(kept):
        return 0.0
    return float((np.abs(kept / typical_kept_value(values) - 1.0) > 1e-2).mean())
