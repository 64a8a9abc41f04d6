"""Trained models: their average, and the text they write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checkpoint
from ..checkpoint import CheckpointError
from ..config import RunConfig
from ..machine import machine, versions
from .batches import evaluation_windows
from .corpus import UNKNOWN, Corpus
from .engine import MOST_WORDS, Engine, perplexities
from .task import TEST_STEPS, LanguageModelling, make


class Trained(NamedTuple):
    """A run's model, in the backend that it is to be evaluated in."""

    config: RunConfig
    """As it was trained."""
    task: LanguageModelling
    epochs: int

    @property
    def engine(self) -> Engine:
        return self.task.engine

    @property
    def corpus(self) -> Corpus:
        return self.task.corpus


def load(folder: Path, backend: str, known: Corpus | None = None) -> Trained:
    """The model of a run, as its checkpoint has it.

    Args:
        folder: the run's, as `--out` has them.
        backend: where it is to run; weights are the same in all.
        known: a corpus that was read already, if it is the run's.

    Raises:
        CheckpointError: there is no such run, or its checkpoint cannot be read.
        DataError: its text cannot be read.
    """
    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is no run's folder: it has no job.json.") from error
    config = RunConfig.from_dict(job["config"])
    arrays, record = checkpoint.load(folder / "checkpoint.safetensors")
    task = make(
        replace(config, backend=backend), None if job["data"] is None else Path(job["data"]), known
    )
    trained_on, here = record["identity"]["corpus"], task.record()["corpus"]
    if any(trained_on[key] != here[key] for key in ("name", "vocabulary")):
        raise CheckpointError(
            f"{folder} was trained on {trained_on['name']} with {trained_on['vocabulary']:,} "
            f"words. Received: {here['name']} with {here['vocabulary']:,}."
        )
    task.restore(arrays, int(record["calls"]))
    return Trained(config, task, int(record["progress"]["epoch"]))


def average(models: Sequence[Trained], backend: str) -> dict[str, Any]:
    """The perplexities of the first 1, 2, ..., N models with their probabilities averaged, as a
    line of results (Zaremba et al. 2014, table 1, "model averaging")."""
    corpus, batch = models[0].corpus, models[0].task.batch
    engines = [model.engine for model in models]
    valid = perplexities(engines, evaluation_windows(corpus.valid, batch, TEST_STEPS // batch))
    test = perplexities(engines, evaluation_windows(corpus.test, 1, TEST_STEPS))
    found = [
        {"models": count, "valid_perplexity": v, "test_perplexity": t}
        for count, (v, t) in enumerate(zip(valid, test, strict=True), 1)
    ]
    return {
        "members": [{**m.config.to_dict(), "trained_epochs": m.epochs} for m in models],
        "corpus": corpus.name,
        "backend": backend,
        "averages": found,
        "versions": versions(),
        "machine": machine(),
    }


def write(model: Trained, start: str, words: int, temperature: float, seed: int) -> str:
    """A text that goes on from its first words, one drawn word after the other.

    Args:
        model: whose words they are.
        start: the first words; those that the model does not know become `<unk>`.
        words: how many more.
        temperature: what log-probabilities are divided by; lower is more likely text.
        seed: of the draws.
    """
    number = {word: index for index, word in enumerate(model.corpus.vocabulary)}
    unknown = number.get(UNKNOWN, 0)
    text = [number.get(word, unknown) for word in start.lower().split()] or [unknown]
    rng = np.random.default_rng(seed)
    for _ in range(words):
        recent = np.array(text[-MOST_WORDS:], np.int32)
        scores = model.engine.next_word(recent).astype(np.float64) / temperature
        chances = np.exp(scores - np.logaddexp.reduce(scores))
        text.append(int(rng.choice(len(chances), p=chances / chances.sum())))
    return " ".join(model.corpus.vocabulary[word] for word in text)
