"""What the training loop asks of a framework, and the weights that every framework starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..config import RunConfig
from ..task import engine_class, lstm_shapes, uniform
from ..trained import mean_logarithms

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Weights = dict[str, Array]
"""By name: `embedding` [V, H]; for each layer l `lstm.{l}.w_ih` [4*H, H], `lstm.{l}.w_hh`
[4*H, H] and `lstm.{l}.bias` [4*H] with gates i, f, g, o; `output.weight` [V, H], `output.bias`."""


MOST_WORDS = 64
"""How many words a text may begin with, and go on for."""


class Engine(Protocol):
    """A language model in one framework: embedding, stacked LSTM under a policy, softmax."""

    def train_window(self, x: Tokens, y: Tokens, learning_rate: float) -> float:
        """One step of SGD on a window `[B, T]`, carrying the state on; mean nats per token."""

    def nats(self, windows: Iterable[tuple[Tokens, Tokens]]) -> Iterator[Array]:
        """What each word of y costs, `[B, T]`, over windows of one shape that carry the state on
        from zero; no masks."""

    def next_word(self, words: Tokens) -> Array:
        """The log-probability of each word after some words `[T]`, `[V]`; from a zero state, no
        masks. T is at most `MOST_WORDS`."""

    def reset(self) -> None:
        """Set the carried state to zero."""

    def weights(self) -> Weights:
        """The model's weights."""

    def carried(self) -> Weights:
        """The carried state: `h` and `c`, each `[L, B, H]`."""

    def restore(self, weights: Weights, carried: Weights, calls: int) -> None:
        """Go on from saved weights, carried state and number of training calls."""

    def calls(self) -> int:
        """How many training calls the masks have been drawn for."""


def perplexities(
    engines: Sequence[Engine], windows: Iterable[tuple[Tokens, Tokens, Array]]
) -> list[float]:
    """Of weighted windows, in evaluation: of the first 1, 2, ..., N models, their probabilities
    averaged word by word."""
    cut = list(windows)
    each = [engine.nats((x, y) for x, y, _ in cut) for engine in engines]
    total, count = np.zeros(len(engines)), 0.0
    for (_, _, weight), *costs in zip(cut, *each, strict=True):
        total -= (mean_logarithms(-np.array(costs, np.float64)) * weight).sum(axis=(1, 2))
        count += float(weight.sum())
    return [float(value) for value in np.exp(total / count)]


def initial_weights(config: RunConfig, vocabulary: int) -> Weights:
    """All weights, uniform in (−init, init), drawn by NumPy in one fixed order."""
    preset = config.recipe
    shapes = {
        "embedding": (vocabulary, preset.units),
        **lstm_shapes(preset.units, preset),
        "output.weight": (vocabulary, preset.units),
        "output.bias": (vocabulary,),
    }
    return uniform(shapes, preset.init, config.start_seed)


def make(config: RunConfig, vocabulary: int) -> Engine:
    """The engine of a run's backend, with its initial weights."""
    made: Engine = engine_class(config)(config, initial_weights(config, vocabulary))
    return made
