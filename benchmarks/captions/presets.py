"""The recipes of the captioning model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A recipe; see `benchmarks.recipe.Recipe`, and beside it:

    Args:
        part: how many training images to take, or None for all of them.
        written: how many test images captions are written for.
        seen: how often a word is in the training captions at least, or the model does not know it.
        beam: how many beginnings of a caption are kept in the search.
        longest: the most words of a caption.
    """

    units: int
    rate: float
    policy: str
    init: float
    learning_rate: float
    full_epochs: int | None
    decay: float
    epochs: int
    clip: float
    layers: int = 1
    batch: int = 20
    part: int | None = None
    written: int = 1000
    seen: int = 5
    beam: int = 5
    longest: int = 20


PRESETS = {
    "demo": Preset(128, 0.5, "zaremba", 0.1, 1.0, None, 2.0, 10, 5.0, part=1000, written=200),
    "paper": Preset(256, 0.5, "zaremba", 0.1, 1.0, None, 2.0, 12, 5.0),
}
