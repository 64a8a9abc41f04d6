"""The recipes of the captioning model."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset(Recipe):
    """A recipe, and beside it:

    Args:
        part: how many training images to take, or None for all of them.
        written: how many test images captions are written for.
        seen: how often a word is in the training captions at least, or the model does not know it.
        beam: how many beginnings of a caption are kept in the search.
        longest: the most words of a caption.
    """

    layers: int = 1
    full_epochs: int | None = None
    decay: float = 2.0
    init: float = 0.1
    part: int | None = None
    written: int = 1000
    seen: int = 5
    beam: int = 5
    longest: int = 20


PRESETS = {
    "demo": Preset(units=128, rate=0.5, epochs=10, part=1000, written=200),
    "paper": Preset(units=256, rate=0.35, epochs=12, patience=2),
}
