"""The recipes of the acoustic model."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset(Recipe):
    """A recipe, and beside it:

    Args:
        window: T, frames of a piece of an utterance, which begins from a zero state.
        before, after: frames on both sides of one that the network sees with it.
        part: how many utterances of the training part to take, or None for all of it.
    """

    layers: int = 2
    init: float = 0.08
    learning_rate: float = 0.5
    decay: float = 1.5
    window: int = 100
    before: int = 7
    after: int = 7
    part: int | None = None


PRESETS = {
    "demo": Preset(units=128, rate=0.5, full_epochs=6, epochs=14, part=150),
    "paper": Preset(units=256, rate=0.5, full_epochs=8, epochs=16),
}
