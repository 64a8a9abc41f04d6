"""Translation: sentences in French, and those written by beam search with their BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..sentences.batches import Pair
from ..sentences.bleu import bleu
from ..sentences.engine import Engine
from ..sentences.task import SHOWN, Sentences
from ..sentences.words import Tokens, Vocabulary
from ..task import DataError
from . import tatoeba
from .engine import make as make_engine
from .presets import Preset
from .tatoeba import Part, Tatoeba

FEWEST = 2
"""How many words a vocabulary has of itself: the end of a sentence, and an unknown word."""


class Translation(Sentences):
    """`benchmarks.task.Task` on sentences in two languages."""

    def __init__(
        self,
        config: RunConfig,
        data: Tatoeba,
        english: Vocabulary,
        french: Vocabulary,
        engine: Engine,
    ) -> None:
        self.data, self.english = data, english
        super().__init__(config, french, engine)

    def part(self, name: str) -> tuple[list[Pair], Tokens]:
        part: Part = getattr(self.data, name)
        pairs = [
            Pair(source, self.vocabulary.encode(french))
            for source, translations in enumerate(part.french)
            for french in translations
        ]
        return pairs, self.sources(part)

    def sources(self, part: Part) -> Tokens:
        """The English words of each sentence, the last one first, then 0: `[N, S]`.

        Reversed as in Sutskever et al. (2014), so that the first words on both sides are near."""
        found = np.zeros((len(part.english), self.recipe.words), np.int32)
        for row, english in enumerate(part.english):
            found[row, : len(english)] = self.english.encode(english)[:-1][::-1]
        return found

    def scores(self, said: Sequence[str]) -> dict[str, Any]:
        french = self.data.test.french[: len(said)]
        references = [[" ".join(words) for words in each] for each in french]
        score, signature = bleu(said, references, tokenize="none")
        return {"bleu": score, "signature": signature}

    def shown(self, said: Sequence[str]) -> dict[str, dict[str, str]]:
        english = [" ".join(words) for words in self.data.test.english[:SHOWN]]
        return {"translations": dict(zip(english, said, strict=False))}

    def record(self) -> dict[str, Any]:
        parts = {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}
        own = {} if self.data.sha256 is None else {"sha256": self.data.sha256}
        return {
            "translation": {
                "name": self.data.name,
                "pairs": {name: sum(map(len, part.french)) for name, part in parts.items()},
                "english": len(self.english),
                "french": len(self.vocabulary),
                "written": min(self.recipe.written, len(self.data.test.english)),
                **own,
            }
        }


def read(data: Path | None, recipe: Preset) -> Tatoeba:
    """The sentences for a recipe: those that are short enough, and of training as many as it takes.

    Args:
        data: their file or folder, if one is named.
        recipe: what they are for.

    Raises:
        DataError: they cannot be read, or too few are short enough.
    """
    found = tatoeba.load(data)
    parts = {name: getattr(found, name).short(recipe.words) for name in ("train", "valid", "test")}
    for name, part in parts.items():
        if not part.english:
            raise DataError(
                f"The {name} part has no pair of at most {recipe.words} words on both sides. Take "
                f"more pairs, shorter ones, or another --preset."
            )
    parts["train"] = parts["train"].first(recipe.part)
    both = vocabularies(parts["train"], recipe)
    for side, vocabulary in zip(("first", "second"), both, strict=True):
        if len(vocabulary) <= FEWEST:
            raise DataError(
                f"In the training part no word of the {side} sentences comes {recipe.seen} times "
                f"or more, and the model knows no other. Take more pairs."
            )
    return replace(found, **parts)


def vocabularies(train: Part, recipe: Preset) -> tuple[Vocabulary, Vocabulary]:
    """The English and the French words that the model knows."""
    french = (each for many in train.french for each in many)
    return Vocabulary(train.english, recipe.seen), Vocabulary(french, recipe.seen)


def make(config: RunConfig, data: Path | None, known: Tatoeba | None = None) -> Translation:
    """The task of a run; `known` is its data, if that was read already.

    Raises:
        DataError: the data cannot be read.
    """
    recipe = config.recipe
    found = read(data, recipe) if known is None else known
    english, french = vocabularies(found.train, recipe)
    return Translation(
        config, found, english, french, make_engine(config, len(english), len(french))
    )
