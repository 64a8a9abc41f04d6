"""Summarizes the bits of a mask over many draws: its rate, its lifetime, and what shares it."""

from __future__ import annotations

import numpy as np

from ...policies.rules import Gates, Lifetime
from .findings import Finding, SiteKey
from .probe import Array
from .significance import (
    correct_for_hidden_groups,
    describe_uneven_rate,
    design_effect,
    estimate_proportion,
    find_clustered_axis,
    is_independent,
)

MIN_ELEMENTS = 50
"""The number of elements that must be seen before a connection is called whole."""

MIN_LIKELY_DROPS = 5.0
"""The number of elements that must have been dropped, if a drop is only likely for each element."""


def summarize_mask(
    key: SiteKey,
    bits: Array,
    gates: Gates | None = None,
    per: Lifetime | None = None,
    likely_rate: tuple[float, float] | None = None,
    hides_whole_calls: bool = False,
) -> Finding:
    """Summarize the draws of a mask.

    Args:
        key: the site.
        bits: `[N, T, B, F]`: 1 dropped, 0 not, NaN not seen. For weights, which have one mask for a
            call, `[N, 1, R, n]`.
        gates: whether the gates share the mask. None if unknown.
        per: how long the mask lives. None if unknown.
        likely_rate: the rate, and the number of elements that it rests on, if the bits alone do not
            show the rate.
        hides_whole_calls: whether a unit's bits are unknown in a call that drops all of them.
    """
    seen = np.isfinite(bits)
    likely_masked = likely_rate is not None and likely_rate[0] * likely_rate[1] > MIN_LIKELY_DROPS
    if not likely_masked and not (bits == 1.0).any():
        return _summarize_unmasked(key, int(seen.sum()))
    of_weights = per == "call"
    independent = [is_independent(bits, axis) for axis in range(4)]
    over_draws, over_steps, over_batch, over_units = independent
    # Of elements that are always the same, only the first counts.
    single = bits
    for axis, differs in reversed(list(enumerate(independent))):
        if differs is False:
            single = _first_known(single, axis)
    known = single[np.isfinite(single)]
    hits, count = float(known.sum()), float(len(known))
    if likely_rate is not None:
        copies = bits.shape[2] if over_batch is False else 1
        copies *= bits.shape[3] if over_units is False else 1
        hits, count = likely_rate[0] * likely_rate[1] / copies, likely_rate[1] / copies
    if likely_rate is None:
        effect = design_effect(single)
        hits, count = hits / effect, count / effect
    rate, interval = estimate_proportion(hits, count)
    if hides_whole_calls:
        sizes = np.isfinite(single).sum(axis=(1, 2))
        size = float(sizes[sizes > 0].mean())
        rate, *bounds = (correct_for_hidden_groups(share, size) for share in (rate, *interval))
        interval = (bounds[0], bounds[1])
    if hits == count:
        return Finding(*key, "undecided", note="nothing arrives from here")
    note = describe_uneven_rate(single) if likely_rate is None else ""
    names = ("steps", "weights of a unit" if of_weights else "samples", "units")
    clustered = "" if note else find_clustered_axis(single, names)
    if of_weights:
        clustered = clustered or names[1] * (over_batch is False)
        over_batch = False
    if per is None and over_steps is not None and clustered != "steps":
        if over_steps:
            per = "step"
        elif over_batch is not None:
            per = "sequence" if over_batch else "call"
    if clustered and not note:
        note = f"{clustered} are dropped together more often than by chance"
    return Finding(
        *key,
        "masked",
        rate,
        interval,
        round(count),
        per,
        shared=_negate(over_batch),
        alike=None if bits.shape[3] == 1 else _negate(over_units),
        gates=gates,
        frozen=_negate(over_draws),
        note=note,
    )


def _summarize_unmasked(key: SiteKey, elements: int) -> Finding:
    """Make the finding for a site where nothing was dropped."""
    if elements < MIN_ELEMENTS:
        note = f"only {elements} elements could be seen"
        return Finding(*key, "undecided", elements=elements, note=note)
    bounds = (0.0, 1.0 - 0.01 ** (1.0 / elements))
    return Finding(*key, "whole", 0.0, bounds, elements)


def _negate(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _first_known(bits: Array, axis: int) -> Array:
    """Return the first known bit along an axis. The axis stays, with length 1."""
    known = np.isfinite(bits)
    index = np.expand_dims(known.argmax(axis=axis), axis)
    return np.take_along_axis(bits, index, axis)
