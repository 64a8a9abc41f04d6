"""Trained language models: their average, and the text they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..trained import Trained, averaged
from .batches import evaluation_windows
from .corpus import UNKNOWN
from .engine import MOST_WORDS, perplexities
from .task import TEST_STEPS


def average(models: Sequence[Trained], backend: str) -> dict[str, Any]:
    """The perplexities of the first 1, 2, ..., N models with their probabilities averaged, as a
    line of results (Zaremba et al. 2014, table 1, "model averaging")."""
    task = models[0].task
    corpus, batch = task.data, task.batch
    engines = [model.engine for model in models]
    valid = perplexities(engines, evaluation_windows(corpus.valid, batch, TEST_STEPS // batch))
    test = perplexities(engines, evaluation_windows(corpus.test, 1, TEST_STEPS))
    found = [
        {"valid_perplexity": v, "test_perplexity": t} for v, t in zip(valid, test, strict=True)
    ]
    line = {**averaged(models, backend, found), "corpus": corpus.name}
    return line if corpus.sha256 is None else line | {"sha256": corpus.sha256}


def write(model: Trained, start: str, words: int, temperature: float, seed: int) -> str:
    """A text that goes on from its first words, one drawn word after the other.

    Args:
        model: whose words they are.
        start: the first words; those that the model does not know become `<unk>`.
        words: how many more.
        temperature: what log-probabilities are divided by; lower is more likely text.
        seed: of the draws.
    """
    vocabulary = model.task.data.vocabulary
    number = {word: index for index, word in enumerate(vocabulary)}
    unknown = number.get(UNKNOWN, 0)
    text = [number.get(word, unknown) for word in start.lower().split()] or [unknown]
    rng = np.random.default_rng(seed)
    for _ in range(words):
        recent = np.array(text[-MOST_WORDS:], np.int32)
        scores = model.engine.next_word(recent).astype(np.float64) / temperature
        chances = np.exp(scores - np.logaddexp.reduce(scores))
        text.append(int(rng.choice(len(chances), p=chances / chances.sum())))
    return " ".join(vocabulary[word] for word in text)
