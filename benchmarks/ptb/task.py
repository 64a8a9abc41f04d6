"""Language modelling: windows of text, perplexities, a state that is carried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..task import Arrays, perplexity
from . import corpus as corpora
from .batches import check_evaluation, columns, evaluation_windows, window_count, windows
from .corpus import OWN, UNKNOWN, Corpus, CorpusError
from .engine import Engine, Tokens, perplexities
from .engine import make as make_engine
from .presets import Preset

TEST_STEPS = 400
"""The window of the test, which runs as one column; the figure does not depend on it."""


class LanguageModelling:
    """`benchmarks.task.Task` on a text."""

    unit = "words"
    figures = ("train_perplexity", "valid_perplexity")

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
        return f"perplexity {perplexity(min(loss, 50.0)):8.2f}"

    def after_epoch(self, loss: float) -> dict[str, float]:
        text = evaluation_windows(self.data.valid, self.batch, self.window)
        valid = perplexities([self.engine], text)[0]
        return {"train_perplexity": perplexity(loss), "valid_perplexity": valid}

    def at_end(self) -> dict[str, Any]:
        text = evaluation_windows(self.data.test, 1, TEST_STEPS)
        return {"test_perplexity": perplexities([self.engine], text)[0]}

    def size(self) -> int:
        return self.steps * self.window * self.batch

    def record(self) -> dict[str, Any]:
        corpus = self.data
        parts = (corpus.train, corpus.valid, corpus.test)
        found: dict[str, Any] = {
            "name": corpus.name,
            "tokens": [len(tokens) for tokens in parts],
            "vocabulary": len(corpus.vocabulary),
            "floor": corpus.floor,
        }
        if corpus.name == OWN:
            words = corpus.vocabulary
            unknown = words.index(UNKNOWN) if UNKNOWN in words else -1
            found["unknown"] = [int((tokens == unknown).sum()) for tokens in parts]
            found["sha256"] = corpus.sha256
        return {"corpus": found}

    def arrays(self) -> Arrays:
        carried = {f"carried.{name}": array for name, array in self.engine.carried().items()}
        return {**self.engine.weights(), **carried}

    def calls(self) -> int:
        return self.engine.calls()

    def restore(self, arrays: Arrays, calls: int) -> None:
        weights = {name: a for name, a in arrays.items() if not name.startswith("carried.")}
        carried = {k.removeprefix("carried."): v for k, v in arrays.items() if k not in weights}
        self.engine.restore(weights, carried, calls)


def read(data: Path | None, recipe: Preset) -> Corpus:
    """The text for a recipe: all of it, or the part that the recipe takes. Of a text of one's own
    that is smaller than that part, all of it.

    Args:
        data: its folder, if one is named.
        recipe: what it is for.

    Raises:
        DataError: the text cannot be read, or is too short for the recipe.
    """
    corpus = corpora.load(data)
    if recipe.part is not None:
        train, valid, words = recipe.part
        test = valid
        if corpus.name == OWN:
            train = min(train, len(corpus.train))
            valid, test = (min(valid, len(tokens)) for tokens in (corpus.valid, corpus.test))
        corpus = corpora.part(corpus, train, valid, words, test)
    try:
        part = "training"
        window_count(columns(corpus.train, recipe.batch), recipe.window)
        part = "validation"
        check_evaluation(corpus.valid, recipe.batch)
        part = "test"
        check_evaluation(corpus.test, 1)
    except CorpusError as error:
        raise CorpusError(f"The {part} part is too short. {error}") from None
    return corpus


def make(config: RunConfig, data: Path | None, known: Corpus | None = None) -> LanguageModelling:
    """The task of a run; `known` is its corpus, if that was read already.

    Raises:
        DataError: the text cannot be read.
    """
    corpus = read(data, config.recipe) if known is None else known
    return LanguageModelling(config, corpus, make_engine(config, len(corpus.vocabulary)))
