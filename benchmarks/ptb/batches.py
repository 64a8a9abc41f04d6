"""Text to windows, exactly as the paper's recipe has it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .corpus import CorpusError

Tokens = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]


def starts(count: int, batch: int) -> list[int]:
    """Where each column starts: floor(i·n/B + 1/2).

    Not Python's `round`, which sends halves to the even number; and in whole numbers, so exact.
    """
    return [(2 * i * count + batch) // (2 * batch) for i in range(batch)]


def columns(tokens: Tokens, batch: int) -> Tokens:
    """A text `[N]` as `[B, floor(N/B)]`, one column of the recipe a row.

    Raises:
        CorpusError: a column would be empty.
    """
    _positive("batch", batch)
    length = len(tokens) // batch
    if length < 1:
        raise CorpusError(
            f"{len(tokens):,} tokens are too few for {batch} columns. "
            f"Take more text or a smaller batch."
        )
    return np.stack([tokens[start : start + length] for start in starts(len(tokens), batch)])


def window_count(rows: Tokens, steps: int) -> int:
    """How many windows of T steps an epoch has; what is left at the columns' end is dropped.

    Raises:
        CorpusError: not even one.
    """
    _positive("steps", steps)
    batch, length = rows.shape
    count = (length - 1) // steps
    if count < 1:
        raise CorpusError(
            f"A window of {steps} steps needs {steps + 1} tokens a column, and each of the "
            f"{batch} columns has {length:,}. Take more text (at least {batch * (steps + 1):,} "
            f"tokens), a smaller batch or a shorter window."
        )
    return count


def windows(rows: Tokens, steps: int, start: int = 0) -> Iterator[tuple[Tokens, Tokens]]:
    """Windows x, y `[B, T]` with y one token ahead in the same column, from window `start` on.

    Raises:
        CorpusError: a window is longer than a column allows.
    """
    edges = range(start * steps, window_count(rows, steps) * steps, steps)
    return ((rows[:, at : at + steps], rows[:, at + 1 : at + steps + 1]) for at in edges)


def evaluation_windows(
    tokens: Tokens, batch: int, steps: int
) -> Iterator[tuple[Tokens, Tokens, Weights]]:
    """Windows x, y and weight, each `[B, T]`, that predict every token but the first exactly once.

    Column i reads from its start up to the next column's, whose first token is its last target.
    Columns differ in length and the last window is longer than they are: there the weight is 0.

    Raises:
        CorpusError: the text has fewer tokens than that takes.
    """
    _positive("steps", steps)
    check_evaluation(tokens, batch)
    edges = [*starts(len(tokens), batch), len(tokens) - 1]
    longest = max(end - begin for begin, end in pairwise(edges))
    padded = -(-longest // steps) * steps
    x, y = np.zeros((2, batch, padded), np.int32)
    weight = np.zeros((batch, padded), np.float32)
    for row, (begin, end) in enumerate(pairwise(edges)):
        x[row, : end - begin] = tokens[begin:end]
        y[row, : end - begin] = tokens[begin + 1 : end + 1]
        weight[row, : end - begin] = 1
    cuts = [slice(at, at + steps) for at in range(0, padded, steps)]
    return ((x[:, cut], y[:, cut], weight[:, cut]) for cut in cuts)


def check_evaluation(tokens: Tokens, batch: int) -> None:
    """Refuse a text that `evaluation_windows` cannot cut into so many columns.

    Raises:
        CorpusError: it has too few tokens.
    """
    _positive("batch", batch)
    if len(tokens) < batch + 1:
        raise CorpusError(
            f"Evaluating {batch} columns needs {batch + 1} tokens or more, and the text has "
            f"{len(tokens)}. Take more text or a smaller batch."
        )


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise CorpusError(f"{name} must be 1 or more. Received: {name}={value}.")
