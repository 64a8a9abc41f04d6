"""The recipe of Zaremba et al. (2014) for Penn Treebank, and a small version of it to watch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One training recipe.

    Args:
        units: H, the width of both layers and of the embedding.
        rate: the dropout rate its policy runs at when none is given.
        policy: the policy that runs when none is given.
        window: T, steps of truncated back-propagation.
        init: parameters start uniform in (−init, init).
        full_epochs: epochs at the full learning rate.
        decay: what the learning rate is divided by in every epoch after those.
        epochs: how many epochs in all.
        clip: the global norm that gradients are clipped to.
        part: (training tokens, validation and test tokens, vocabulary) of the corpus to take,
            or None for all of it.
        paper: the paper's (validation, test) perplexity, or None.
    """

    units: int
    rate: float
    policy: str
    window: int
    init: float
    full_epochs: int
    decay: float
    epochs: int
    clip: float
    part: tuple[int, int, int] | None = None
    paper: tuple[float, float] | None = None
    layers: int = 2
    batch: int = 20
    learning_rate: float = 1.0


PRESETS = {
    "demo": Preset(200, 0.5, "zaremba", 20, 0.1, 8, 1.3, 14, 5.0, (40_000, 10_000, 2_000)),
    "small": Preset(200, 0.5, "none", 20, 0.1, 4, 2.0, 13, 5.0, paper=(120.7, 114.5)),
    "medium": Preset(650, 0.5, "zaremba", 35, 0.05, 6, 1.2, 39, 5.0, paper=(86.2, 82.7)),
    "large": Preset(1500, 0.65, "zaremba", 35, 0.04, 14, 1.15, 55, 10.0, paper=(82.2, 78.4)),
}
