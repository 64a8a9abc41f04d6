"""A recipe and a corpus small enough to train within a test."""

import numpy as np

from benchmarks.config import RunConfig
from benchmarks.ptb import presets
from benchmarks.ptb.corpus import Corpus
from benchmarks.ptb.task import make
from benchmarks.training import Hooks, Run

WORDS = 30


def tiny_corpus() -> Corpus:
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 4, 1000, dtype=np.int32)
    text = np.cumsum(steps, dtype=np.int32) % WORDS
    vocabulary = tuple(f"w{n}" for n in range(WORDS))
    return Corpus("tiny", vocabulary, text[:700], text[700:850], text[850:], None, "made up")


TINY = presets.Preset(units=8, window=5, init=0.5, full_epochs=10, decay=2.0, epochs=3, batch=4)


def config(backend="torch", policy="zaremba", seed=1, epochs=3, same_start=True) -> RunConfig:
    rate = 0.5 if policy.startswith(("zaremba", "naive")) else None
    return RunConfig("tiny", backend, policy, rate, seed, epochs, same_start)


def run_in(folder, chosen: RunConfig) -> Run:
    return Run(make(chosen, None, tiny_corpus()), folder)


def hooks(stop_after: int | None = None) -> Hooks:
    """Hooks that stop after so many batches."""
    seen = [0]

    def batch(_):
        seen[0] += 1

    return Hooks(batch, lambda _: None, lambda: seen[0] == stop_after)
