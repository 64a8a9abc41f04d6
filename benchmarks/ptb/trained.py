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
from ..machine import machine, versions
from . import corpus as corpora
from .batches import evaluation_windows
from .config import RunConfig
from .corpus import UNKNOWN, Corpus
from .engine import MOST_WORDS, Engine, mean_nats
from .engines import make
from .training import TEST_STEPS


class Trained(NamedTuple):
    """A run's model, in the backend that it is to be evaluated in."""

    folder: Path
    config: RunConfig
    corpus: Corpus
    engine: Engine
    epochs: int


def load(folder: Path, backend: str, known: Corpus | None = None) -> Trained:
    """The model of a run, as its checkpoint has it.

    Args:
        folder: the run's, as `--out` has them.
        backend: where it is to run; weights are the same in all.
        known: a corpus that was read already, if it is the run's.

    Raises:
        CheckpointError: there is no such run, or its checkpoint cannot be read.
        CorpusError: its text cannot be read.
    """
    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is no run's folder: it has no job.json.") from error
    config = RunConfig.from_dict(job["config"])
    arrays, record = checkpoint.load(folder / "checkpoint.safetensors")
    corpus = known or corpora.load(None if job["data"] is None else Path(job["data"]))
    if known is None and config.recipe.part is not None:
        corpus = corpora.part(corpus, *config.recipe.part)
    trained_on = record["identity"]["corpus"]
    here = {"name": corpus.name, "vocabulary": len(corpus.vocabulary)}
    if {key: trained_on[key] for key in here} != here:
        raise CheckpointError(
            f"{folder} was trained on {trained_on['name']} with {trained_on['vocabulary']:,} "
            f"words. Received: {corpus.name} with {len(corpus.vocabulary):,}."
        )
    engine = make(replace(config, backend=backend), len(corpus.vocabulary))
    weights = {name: array for name, array in arrays.items() if not name.startswith("carried.")}
    carried = {name.removeprefix("carried."): arrays[name] for name in arrays.keys() - weights}
    engine.restore(weights, carried, int(record["calls"]))
    return Trained(folder, config, corpus, engine, int(record["progress"]["epoch"]))


def average(models: Sequence[Trained], backend: str) -> dict[str, Any]:
    """The perplexities of the first 1, 2, ..., N models with their probabilities averaged, as a
    line of results (Zaremba et al. 2014, table 1, "model averaging")."""
    corpus, batch = models[0].corpus, models[0].config.recipe.batch
    found = []
    for count in range(1, len(models) + 1):
        engines = [model.engine for model in models[:count]]
        valid = mean_nats(engines, evaluation_windows(corpus.valid, batch, TEST_STEPS // batch))
        test = mean_nats(engines, evaluation_windows(corpus.test, 1, TEST_STEPS))
        found.append(
            {
                "models": count,
                "valid_perplexity": float(np.exp(valid)),
                "test_perplexity": float(np.exp(test)),
            }
        )
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
