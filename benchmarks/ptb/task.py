"""Language modelling: windows of text, perplexities, a state that is carried on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..task import Arrays
from . import corpus as corpora
from .batches import columns, evaluation_windows, window_count, windows
from .corpus import Corpus
from .engine import Engine, Tokens, perplexities
from .engine import make as make_engine

TEST_STEPS = 400
"""The window of the test, which runs as one column; the figure does not depend on it."""


class LanguageModelling:
    """`benchmarks.task.Task` on a text."""

    unit = "words"

    def __init__(self, config: RunConfig, corpus: Corpus, engine: Engine) -> None:
        self.config, self.data, self.engine = config, corpus, engine
        recipe = config.recipe
        self.batch, self.window = recipe.batch, recipe.window
        self.columns = columns(corpus.train, self.batch)
        self.steps = window_count(self.columns, self.window)

    def begin(self) -> None:
        self.engine.reset()

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Tokens, Tokens]]:  # noqa: ARG002
        return windows(self.columns, self.window, start)

    def train(self, batch: tuple[Tokens, Tokens], learning_rate: float) -> float:
        return self.engine.train_window(*batch, learning_rate)

    def headline(self, loss: float) -> str:
        return f"perplexity {math.exp(min(loss, 50.0)):8.2f}"

    def after_epoch(self, loss: float) -> dict[str, float]:
        text = evaluation_windows(self.data.valid, self.batch, self.window)
        valid = perplexities([self.engine], text)[0]
        return {"train_perplexity": math.exp(loss), "valid_perplexity": valid}

    def at_end(self) -> dict[str, Any]:
        text = evaluation_windows(self.data.test, 1, TEST_STEPS)
        return {"test_perplexity": perplexities([self.engine], text)[0]}

    def size(self) -> int:
        return self.steps * self.window * self.batch

    def record(self) -> dict[str, Any]:
        corpus = self.data
        return {
            "corpus": {
                "name": corpus.name,
                "tokens": [len(corpus.train), len(corpus.valid), len(corpus.test)],
                "vocabulary": len(corpus.vocabulary),
                "floor": corpus.floor,
            }
        }

    def arrays(self) -> Arrays:
        carried = {f"carried.{name}": array for name, array in self.engine.carried().items()}
        return {**self.engine.weights(), **carried}

    def calls(self) -> int:
        return self.engine.calls()

    def restore(self, arrays: Arrays, calls: int) -> None:
        weights = {name: a for name, a in arrays.items() if not name.startswith("carried.")}
        carried = {k.removeprefix("carried."): v for k, v in arrays.items() if k not in weights}
        self.engine.restore(weights, carried, calls)


def make(config: RunConfig, data: Path | None, known: Corpus | None = None) -> LanguageModelling:
    """The task of a run; `known` is its corpus, if that was read already.

    Raises:
        DataError: the text cannot be read.
    """
    corpus = corpora.load(data) if known is None else known
    if known is None and config.recipe.part is not None:
        corpus = corpora.part(corpus, *config.recipe.part)
    return LanguageModelling(config, corpus, make_engine(config, len(corpus.vocabulary)))
