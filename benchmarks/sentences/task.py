"""A task whose model writes sentences: batches, perplexities, and the weights that are kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..checkpoint import CheckpointError
from ..config import RunConfig
from ..task import Arrays, perplexity
from .batches import Batch, Floats, Pair, batches, order
from .engine import Engine, perplexities
from .search import search
from .words import Vocabulary

AT_ONCE = 100
"""How many sentences are searched for at once."""
SHOWN = 12
"""How many are kept in a run's results, to be read."""
BEST = "best."
"""What the names of kept weights begin with, in a checkpoint."""


class Sentences(ABC):
    """`benchmarks.task.Task`, but for what sentences are about and how they are scored.

    The model is tested with the weights of the epoch whose validation perplexity was the lowest:
    without dropout it soon gets worse, and a model is not to be compared by how long it was left
    to overfit.
    """

    unit = "words"
    figures = ("train_perplexity", "valid_perplexity")

    def __init__(self, config: RunConfig, vocabulary: Vocabulary, engine: Engine) -> None:
        self.config, self.vocabulary, self.engine = config, vocabulary, engine
        self.recipe = config.recipe
        self.pairs, self.given = self.part("train")
        self.steps = -(-len(self.pairs) // self.recipe.batch)
        self.best, self.best_perplexity = engine.weights(), math.inf

    @abstractmethod
    def part(self, name: str) -> tuple[list[Pair], Floats]:
        """The sentences of a part, `train`, `valid` or `test`, and what they are about."""

    @abstractmethod
    def scores(self, said: Sequence[str]) -> dict[str, Any]:
        """BLEU of what was said of the first that the test has, and sacreBLEU's signature."""

    @abstractmethod
    def shown(self, said: Sequence[str]) -> dict[str, dict[str, str]]:
        """Some of it by what it is about, under the name that results have for it."""

    def begin(self) -> None:  # noqa: B027 # nothing is what it does
        """Nothing is carried from epoch to epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self.config.seed, epoch])
        ordered = order(self.pairs, self.recipe.batch, rng)
        return batches(ordered[start * self.recipe.batch :], self.given, self.recipe.batch)

    def train(self, batch: Batch, learning_rate: float) -> float:
        return self.engine.train(batch, learning_rate)

    def headline(self, loss: float) -> str:
        return f"perplexity {perplexity(min(loss, 50.0)):8.2f}"

    def after_epoch(self, loss: float) -> dict[str, float]:
        valid = self.perplexities([self.engine], "valid")[0]
        if valid < self.best_perplexity:
            self.best, self.best_perplexity = self.engine.weights(), valid
        return {"train_perplexity": perplexity(loss), "valid_perplexity": valid}

    def at_end(self) -> dict[str, Any]:
        last = self.engine.weights()
        self.to_best()
        said = self.write([self.engine])
        found = {
            "best_perplexity": self.best_perplexity,
            "test_perplexity": self.perplexities([self.engine], "test")[0],
            **self.scores(said),
            **self.shown(said),
        }
        self.engine.restore(last, self.engine.calls())
        return found

    def to_best(self) -> None:
        """Give the model the weights of its best epoch."""
        self.engine.restore(self.best, self.engine.calls())

    def perplexities(self, engines: Sequence[Engine], part: str) -> list[float]:
        """Of the first 1, 2, ..., N models averaged, over the sentences of a part."""
        pairs, given = self.part(part)
        ordered = sorted(pairs, key=lambda pair: len(pair.words))
        return perplexities(engines, batches(ordered, given, self.recipe.batch))

    def write(self, engines: Sequence[Engine]) -> list[str]:
        """What models whose probabilities are averaged say of the first that the test has."""
        given = self.part("test")[1][: self.recipe.written]
        found: list[list[int]] = []
        for at in range(0, len(given), AT_ONCE):
            found += search(
                engines, given[at : at + AT_ONCE], self.recipe.beam, self.recipe.longest
            )
        return [self.vocabulary.decode(numbers) for numbers in found]

    def size(self) -> int:
        return sum(len(pair.words) for pair in self.pairs)

    def arrays(self) -> Arrays:
        kept = {BEST + name: array for name, array in self.best.items()}
        return {**self.engine.weights(), **kept, "best": np.array([self.best_perplexity])}

    def calls(self) -> int:
        return self.engine.calls()

    def restore(self, arrays: Arrays, calls: int) -> None:
        best = float(arrays["best"][0])
        if not best > 0.0:
            raise CheckpointError(
                f"The lowest validation perplexity must be above 0. Received: {best}."
            )
        self.best_perplexity = best
        self.best = {k.removeprefix(BEST): a for k, a in arrays.items() if k.startswith(BEST)}
        self.engine.restore({name: arrays[name] for name in self.best}, calls)
