"""Captioning: captions of images, and those written by beam search with their BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..sentences.batches import Floats, Pair
from ..sentences.bleu import bleu
from ..sentences.engine import Engine
from ..sentences.task import SHOWN, Sentences
from ..sentences.words import Vocabulary
from . import flickr
from .engine import make as make_engine
from .flickr import Flickr, Part


class Captioning(Sentences):
    """`benchmarks.task.Task` on images and their captions."""

    def __init__(
        self, config: RunConfig, data: Flickr, vocabulary: Vocabulary, engine: Engine
    ) -> None:
        self.data = data
        super().__init__(config, vocabulary, engine)

    def part(self, name: str) -> tuple[list[Pair], Floats]:
        part: Part = getattr(self.data, name)
        pairs = [
            Pair(image, self.vocabulary.encode(caption))
            for image, captions in enumerate(part.captions)
            for caption in captions
        ]
        return pairs, part.features

    def scores(self, said: Sequence[str]) -> dict[str, Any]:
        return scores(said, self.data.test)

    def shown(self, said: Sequence[str]) -> dict[str, dict[str, str]]:
        return {"captions": dict(zip(self.data.test.names[:SHOWN], said, strict=False))}

    def record(self) -> dict[str, Any]:
        parts = {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}
        return {
            "captioning": {
                "images": {name: len(part.names) for name, part in parts.items()},
                "vocabulary": len(self.vocabulary),
                "written": min(self.recipe.written, len(self.data.test.names)),
            }
        }


def scores(said: Sequence[str], part: Part) -> dict[str, Any]:
    """BLEU-1 and BLEU-4 of captions of the first images of a part, against all of theirs, and
    sacreBLEU's signature. Both have lower case, no punctuation, and words that are cut already."""
    references = [[" ".join(words) for words in each] for each in part.captions[: len(said)]]
    one, _ = bleu(said, references, order=1, tokenize="none")
    four, signature = bleu(said, references, tokenize="none")
    return {"bleu_1": one, "bleu_4": four, "signature": signature}


def make(config: RunConfig, data: Path | None, known: Flickr | None = None) -> Captioning:
    """The task of a run; `known` is its data, if that was read already.

    Raises:
        DataError: the data cannot be read.
    """
    found = flickr.load(data) if known is None else known
    recipe = config.recipe
    if known is None and recipe.part is not None:
        found = Flickr(found.train.first(recipe.part), found.valid, found.test)
    spoken = (words for captions in found.train.captions for words in captions)
    vocabulary = Vocabulary(spoken, recipe.seen)
    return Captioning(config, found, vocabulary, make_engine(config, len(vocabulary)))
