"""Which gates, and which sites, have one mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

import numpy as np

from ...policies.rules import Gates
from .chance import CERTAIN
from .evidence import Finding
from .probe import Array
from .scales import Key
from .signals import BATCH

UNLIKELY = 4.5
"""Standard deviations by which gates may differ in how much they see by chance."""


def gates_tied(seen: Sequence[Array], shows: bool) -> tuple[Gates | None, bool]:
    """Whether a mask is one for all gates, as far as they can be seen one by one; and whether they
    see as much of what comes in, or some more than the candidate, or less.

    Args:
        seen: of some draws, what each gate was seen to see: see `Viewer.gates`.
        shows: whether that can be said of all of them.
    """
    if not seen:
        return None, True
    first, *others = np.concatenate([each.reshape(len(each), -1) for each in seen], axis=1)
    told = apart = False
    for other in others:
        both = np.isfinite(first) & np.isfinite(other)
        only, not_here = ((both & (first == a) & (other == 1.0 - a)).sum() for a in (1.0, 0.0))
        # Samples may share a mask.
        if shows and abs(only - not_here) > UNLIKELY * np.sqrt((only + not_here) * BATCH):
            return None, False
        apart = apart or bool(only + not_here)
        told = told or bool((both & (first == 1.0)).any() and (both & (first == 0.0)).any())
    return ("untied" if apart else "tied" if told else None), True


def with_ties(
    findings: Mapping[Key, Finding], bits: Mapping[Key, Array]
) -> tuple[dict[Key, Finding], list[str]]:
    """Findings, and which sites have one mask. They have one rate then: that of which most was
    seen."""
    made = dict(findings)
    masked = [key for key, found in made.items() if found.verdict == "masked" and key in bits]
    texts = []
    for number, first in enumerate(masked):
        for second in masked[:number]:
            if not one_mask(bits[first], bits[second]):
                continue
            texts.append(f"{_text(second)} and {_text(first)} have one mask")
            most = max((made[second], made[first]), key=lambda found: found.elements)
            rate, interval, count = most.rate, most.interval, most.elements
            for key in (second, first):
                made[key] = replace(made[key], rate=rate, interval=interval, elements=count)
    return made, texts


def one_mask(first: Array, second: Array) -> bool:
    """Whether two sites have the same masks, `[N, T, B, F]` each."""
    if first.shape[1:3] != second.shape[1:3]:
        return False
    width = min(first.shape[-1], second.shape[-1])
    a, b = first[..., :width], second[..., :width]
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any() or (a[both] != b[both]).any():
        return False
    rate = float(a[both].mean())
    chance = rate**2 + (1.0 - rate) ** 2
    return 0.0 < rate < 1.0 and int(both.sum()) * log(chance) < 2 * CERTAIN


def _text(key: Key) -> str:
    site, layer, direction = key
    return f"{site.value} of layer {layer + 1}{' backward' * direction}"
