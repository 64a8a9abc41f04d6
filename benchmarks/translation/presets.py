"""The recipes of the translation model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset(Recipe):
    """A recipe, and beside it:

    Args:
        attention: whether the decoder looks back at the source (Luong et al. 2015, dot product).
        part: how many training pairs to take.
        written: how many test sentences are translated.
        words: the most words of a sentence, on either side.
        seen: how often a word is in the training part at least, or the model does not know it.
        beam: how many beginnings of a translation are kept in the search.
        longest: the most words of a translation.
    """

    layers: int = 2
    full_epochs: int | None = None
    decay: float = 2.0
    attention: bool = False
    part: int = 40_000
    written: int = 2000
    words: int = 8
    seen: int = 5
    beam: int = 5
    longest: int = 12


PAPER = Preset(units=256, rate=0.2, init=0.08, epochs=12, patience=2)

PRESETS = {
    "demo": Preset(units=128, rate=0.2, init=0.1, epochs=10, part=10_000, written=300, words=6),
    "paper": PAPER,
    "attention": replace(PAPER, attention=True),
}
