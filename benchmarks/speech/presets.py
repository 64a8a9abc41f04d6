"""The recipes of the acoustic model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A recipe; see `benchmarks.recipe.Recipe`, and beside it:

    Args:
        window: T, frames of a piece of an utterance, which begins from a zero state.
        before, after: frames on both sides of one that the network sees with it.
        part: how many utterances of the training part to take, or None for all of it.
    """

    units: int
    rate: float
    policy: str
    init: float
    learning_rate: float
    full_epochs: int
    decay: float
    epochs: int
    clip: float
    window: int = 100
    before: int = 7
    after: int = 7
    layers: int = 2
    batch: int = 20
    part: int | None = None


PRESETS = {
    "demo": Preset(128, 0.5, "zaremba", 0.08, 0.5, 6, 1.5, 14, 5.0, part=150),
    "paper": Preset(256, 0.5, "zaremba", 0.08, 0.5, 8, 1.5, 16, 5.0),
}
