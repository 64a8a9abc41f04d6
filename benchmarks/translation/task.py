"""Translation: sentences in French, and those written by beam search with their BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..sentences.batches import Pair
from ..sentences.bleu import bleu
from ..sentences.engine import Engine
from ..sentences.task import SHOWN, Sentences
from ..sentences.words import Tokens, Vocabulary
from . import tatoeba
from .engine import make as make_engine
from .tatoeba import Part, Tatoeba


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
        return {
            "translation": {
                "pairs": {name: sum(map(len, part.french)) for name, part in parts.items()},
                "english": len(self.english),
                "french": len(self.vocabulary),
                "written": min(self.recipe.written, len(self.data.test.english)),
            }
        }


def make(config: RunConfig, data: Path | None, known: Tatoeba | None = None) -> Translation:
    """The task of a run; `known` is its data, if that was read already.

    Raises:
        DataError: the data cannot be read.
    """
    recipe = config.recipe
    found = known
    if found is None:
        read = tatoeba.load(data)
        train, valid, test = (p.short(recipe.words) for p in (read.train, read.valid, read.test))
        found = Tatoeba(train.first(recipe.part), valid, test)
    english = Vocabulary(found.train.english, recipe.seen)
    french = Vocabulary((each for many in found.train.french for each in many), recipe.seen)
    return Translation(
        config, found, english, french, make_engine(config, len(english), len(french))
    )
