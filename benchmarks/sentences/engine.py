"""What tasks that write sentences ask of a framework."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from ..task import Arrays
from ..trained import mean_logarithms
from .batches import Batch, Floats
from .words import Tokens

State = list[Floats]
"""What a decoder carries from word to word: arrays whose first axis is the row."""


class Engine(Protocol):
    """A model that says a sentence word by word, about something given."""

    def train(self, batch: Batch, learning_rate: float) -> float:
        """One step of SGD; mean nats of a word. The loss is summed over the words of a sentence and
        averaged over the batch."""

    def costs(self, batch: Batch) -> Floats:
        """What each word costs in nats, `[B, T]`, without masks."""

    def begin(self, given: Floats) -> State:
        """The state before the first word of sentences about `given` `[R, ...]`, without masks."""

    def step(self, before: Tokens, state: State) -> tuple[Floats, State]:
        """After one more word `[R]`: the logarithms of the probabilities of the next one `[R, V]`,
        and the next state."""

    def weights(self) -> Arrays:
        """The model's weights."""

    def restore(self, weights: Arrays, calls: int) -> None:
        """Go on from saved weights and number of training calls."""

    def calls(self) -> int:
        """How many training calls the masks have been drawn for."""


def perplexities(engines: Sequence[Engine], batches: Iterable[Batch]) -> list[float]:
    """In evaluation: of the first 1, 2, ..., N models, their probabilities averaged word by word;
    the end of a sentence counts as a word."""
    total, count = np.zeros(len(engines)), 0.0
    for batch in batches:
        costs = np.array([engine.costs(batch) for engine in engines], np.float64)
        total -= (mean_logarithms(-costs) * batch.weight).sum(axis=(1, 2))
        count += float(batch.weight.sum())
    return [float(value) for value in np.exp(total / count)]
