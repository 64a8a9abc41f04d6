"""The recipes of the translation model."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    """A recipe; see `benchmarks.recipe.Recipe`, and beside it:

    Args:
        attention: whether the decoder looks back at the source (Luong et al. 2015, dot product).
        part: how many training pairs to take.
        written: how many test sentences are translated.
        words: the most words of a sentence, on either side.
        seen: how often a word is in the training part at least, or the model does not know it.
        beam: how many beginnings of a translation are kept in the search.
        longest: the most words of a translation.
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
    attention: bool = False
    layers: int = 2
    batch: int = 20
    part: int = 60_000
    written: int = 2000
    words: int = 8
    seen: int = 5
    beam: int = 5
    longest: int = 12


PAPER = Preset(256, 0.2, "zaremba", 0.08, 1.0, None, 2.0, 12, 5.0)

PRESETS = {
    "demo": Preset(
        128, 0.2, "zaremba", 0.1, 1.0, None, 2.0, 10, 5.0, part=10_000, written=300, words=6
    ),
    "paper": PAPER,
    "attention": replace(PAPER, attention=True),
}
