"""Beam search: the likeliest sentences of a model, or of several averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..trained import mean_logarithms
from .batches import Floats
from .engine import Engine, State
from .words import END, UNKNOWN


def search(
    engines: Sequence[Engine], given: Floats, beam: int, longest: int, penalty: float = 1.0
) -> list[list[int]]:
    """A likely sentence about each of `given` `[R, ...]`, as numbers of words without the end.

    Of each sentence `beam` beginnings are kept, by log-probability. One ends where its end is among
    the `beam` likeliest that go on from those kept, and no more are looked for once `beam` of them
    have ended. Of these the best is that with the highest log-probability over its length, end
    included, to the power of `penalty`: 0 leaves it as it is, which favours short sentences. The
    probabilities of several engines are averaged word by word. No sentence holds an unknown word.

    Args:
        engines: one or more, of one vocabulary.
        given: what the sentences are about.
        beam: how many beginnings are kept; 1 is a greedy search.
        longest: the most words of a sentence; where the best beginning has as many and has not
            ended, it ends there.
        penalty: the exponent of the length.
    """
    rows = len(given)
    said = np.zeros((rows, beam, 0), np.int64)
    # Only one beginning of each row at first: the others are the same.
    scores = np.full((rows, beam), -np.inf)
    scores[:, 0] = 0.0
    best: list[list[int]] = [[] for _ in range(rows)]
    best_scores = np.full(rows, -np.inf)
    ended = np.zeros(rows, np.int64)
    before = np.full(rows * beam, END, np.int32)
    states = [_repeat(engine.begin(given), beam) for engine in engines]
    for length in range(1, longest + 2):
        log_p, states = _step(engines, before, states)
        log_p[:, UNKNOWN] = -np.inf
        if length > longest:  # no word more: all end
            log_p[:, :END] = log_p[:, END + 1 :] = -np.inf
        vocabulary = log_p.shape[1]
        total = (scores[:, :, None] + log_p.reshape(rows, beam, vocabulary)).reshape(rows, -1)
        # An end takes no place from a beginning: twice as many are looked at, and those beyond
        # `beam` only to go on.
        top = _largest(total, min(2 * beam, total.shape[1]))
        parent, word = np.divmod(top, vocabulary)
        value = np.take_along_axis(total, top, axis=1)
        ends = (word == END) & np.isfinite(value) & (ended < beam)[:, None]
        ends[:, beam:] = False
        ended += ends.sum(axis=1)
        for row, at in zip(*np.nonzero(ends), strict=True):
            score = value[row, at] / length**penalty
            if score > best_scores[row]:
                best_scores[row] = score
                best[row] = said[row, parent[row, at]].tolist()
        if length > longest:
            break
        going = np.argsort(word == END, axis=1, kind="stable")[:, :beam]
        parent, word, scores = (
            np.take_along_axis(each, going, axis=1) for each in (parent, word, value)
        )
        kept = np.take_along_axis(said, parent[:, :, None], axis=1)
        said = np.concatenate([kept, word[:, :, None]], axis=2)
        # Log-probabilities only fall: the most that a beginning can still reach is its own, over
        # the greatest length.
        reach = scores.max(axis=1) / (longest + 1) ** penalty
        if ((reach <= best_scores) | (ended >= beam)).all():
            break
        before = word.reshape(-1).astype(np.int32)
        places = (np.arange(rows)[:, None] * beam + parent).reshape(-1)
        states = [[array[places] for array in state] for state in states]
    return best


def _step(
    engines: Sequence[Engine], before: np.ndarray, states: list[State]
) -> tuple[np.ndarray, list[State]]:
    """One word more in every engine: the averaged log-probabilities, and the next states."""
    stepped = [engine.step(before, state) for engine, state in zip(engines, states, strict=True)]
    log_p = mean_logarithms(np.array([found for found, _ in stepped], np.float64))[-1]
    return log_p, [state for _, state in stepped]


def _repeat(state: State, beam: int) -> State:
    """Each row of a state for each of its beginnings."""
    return [np.repeat(array, beam, axis=0) for array in state]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest values of each row, the largest first."""
    places = np.argpartition(-values, count - 1, axis=1)[:, :count]
    found = np.take_along_axis(values, places, axis=1)
    return np.take_along_axis(places, np.argsort(-found, axis=1, kind="stable"), axis=1)
