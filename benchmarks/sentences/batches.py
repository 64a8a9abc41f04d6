"""Sentences in batches, those of like length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .words import END, Tokens

Floats = npt.NDArray[np.float32]

POOL = 50
"""Out of so many batches' worth of sentences, those of like length come together."""
STEPS = 5
"""Lengths are rounded up to a multiple of it, so that there are few shapes."""


class Pair(NamedTuple):
    """A sentence, and the number of what it is said about."""

    given: int
    words: Tokens
    """`[T]`, the end included."""


class Batch(NamedTuple):
    """Sentences: what each is about `[B, ...]`, the word before each word `[B, T]`, the word
    itself `[B, T]`, and its weight `[B, T]`, 0 where there is no word."""

    given: Floats
    before: Tokens
    words: Tokens
    weight: Floats


def order(pairs: Sequence[Pair], batch: int, rng: np.random.Generator) -> list[Pair]:
    """The pairs in an order for training: drawn, and in pools sorted by length, so that a batch
    has few empty places; batches come in a drawn order as well."""
    drawn = [pairs[place] for place in rng.permutation(len(pairs))]
    pool = POOL * batch
    cut: list[list[Pair]] = []
    for at in range(0, len(drawn), pool):
        alike = sorted(drawn[at : at + pool], key=lambda pair: len(pair.words))
        cut += [alike[row : row + batch] for row in range(0, len(alike), batch)]
    # The batch that is not full comes last, whatever was drawn.
    full = [one for one in cut if len(one) == batch]
    rest = [one for one in cut if len(one) < batch]
    return [pair for place in rng.permutation(len(full)) for pair in full[place]] + [
        pair for one in rest for pair in one
    ]


def batches(pairs: Sequence[Pair], given: Floats, batch: int) -> Iterator[Batch]:
    """Batches of pairs as they stand, the last filled up with rows of weight 0; `given` `[N, ...]`
    holds what sentences are about."""
    for at in range(0, len(pairs), batch):
        chosen = pairs[at : at + batch]
        steps = -(-max(len(pair.words) for pair in chosen) // STEPS) * STEPS
        words = np.full((batch, steps), END, np.int32)
        weight = np.zeros((batch, steps), np.float32)
        about = np.zeros((batch, *given.shape[1:]), given.dtype)
        for row, pair in enumerate(chosen):
            about[row] = given[pair.given]
            words[row, : len(pair.words)] = pair.words
            weight[row, : len(pair.words)] = 1.0
        before = np.concatenate([np.full((batch, 1), END, np.int32), words[:, :-1]], axis=1)
        yield Batch(about, before, words, weight)
