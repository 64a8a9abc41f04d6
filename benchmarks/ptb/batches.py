"""Text to windows, exactly as the paper's recipe has it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .corpus import CorpusError

Tokens = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]


def starts(count: int, batch: int) -> list[int]:
    """Where each column starts: round(i·n/B), halves up."""
    return [int(i * count / batch + 0.5) for i in range(batch)]


def columns(tokens: Tokens, batch: int) -> Tokens:
    """A text as `[B, floor(n/B)]`, one column of the recipe a row."""
    length = len(tokens) // batch
    return np.stack([tokens[start : start + length] for start in starts(len(tokens), batch)])


def window_count(rows: Tokens, steps: int) -> int:
    """How many windows of T steps an epoch has.

    Raises:
        CorpusError: not even one.
    """
    count = (rows.shape[1] - 1) // steps
    if count < 1:
        raise CorpusError(
            f"A window of {steps} steps does not fit: each of the {rows.shape[0]} columns has "
            f"{rows.shape[1]} tokens, and {steps + 1} are needed. Take more text, a smaller "
            f"batch or a shorter window."
        )
    return count


def windows(rows: Tokens, steps: int, start: int = 0) -> Iterator[tuple[Tokens, Tokens]]:
    """Windows x, y `[B, T]` with y one step ahead, from window `start` on."""
    for window in range(start, window_count(rows, steps)):
        at = window * steps
        yield rows[:, at : at + steps], rows[:, at + 1 : at + steps + 1]


def evaluation_windows(
    tokens: Tokens, batch: int, steps: int
) -> Iterator[tuple[Tokens, Tokens, Weights]]:
    """Windows x, y and weight `[B, T]` that predict every token but the first exactly once.

    Column i reads from its start up to the next column's, whose first token is its last target;
    where a column has ended, the weight is 0.
    """
    edges = [*starts(len(tokens) - 1, batch), len(tokens) - 1]
    longest = max(b - a for a, b in zip(edges, edges[1:], strict=False))
    if longest < 1:
        raise CorpusError(f"{len(tokens)} tokens are too few to evaluate on {batch} columns.")
    padded = -(-longest // steps) * steps
    x, y = np.zeros((2, batch, padded), np.int32)
    weight = np.zeros((batch, padded), np.float32)
    for row, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        x[row, : b - a], y[row, : b - a], weight[row, : b - a] = (
            tokens[a:b],
            tokens[a + 1 : b + 1],
            1,
        )
    for at in range(0, padded, steps):
        here = slice(at, at + steps)
        yield x[:, here], y[:, here], weight[:, here]
