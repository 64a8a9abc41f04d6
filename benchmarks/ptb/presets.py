"""The recipes of Zaremba et al. (2014) for Penn Treebank, and two of them on a part of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset(Recipe):
    """A recipe, and beside it:

    Args:
        window: T, steps of truncated back-propagation.
        part: (training tokens, validation and test tokens, vocabulary) of the corpus to take,
            or None for all of it.
        paper: the paper's (validation, test) perplexity, or None.
    """

    layers: int = 2
    rate: float = 0.5
    window: int
    part: tuple[int, int, int] | None = None
    paper: tuple[float, float] | None = None


PART = (40_000, 10_000, 2_000)
"""Of the corpus, for what is to be watched (`demo`), and to compare policies by (`wide`)."""

PRESETS = {
    "demo": Preset(units=200, window=20, init=0.1, full_epochs=8, decay=1.3, epochs=14, part=PART),
    "wide": Preset(units=650, window=20, init=0.05, full_epochs=8, decay=1.3, epochs=14, part=PART),
    "small": Preset(
        units=200,
        policy="none",
        window=20,
        init=0.1,
        full_epochs=4,
        decay=2.0,
        epochs=13,
        paper=(120.7, 114.5),
    ),
    "medium": Preset(
        units=650,
        window=35,
        init=0.05,
        full_epochs=6,
        decay=1.2,
        epochs=39,
        paper=(86.2, 82.7),
    ),
    "large": Preset(
        units=1500,
        rate=0.65,
        window=35,
        init=0.04,
        full_epochs=14,
        decay=1.15,
        epochs=55,
        clip=10.0,
        paper=(82.2, 78.4),
    ),
}
