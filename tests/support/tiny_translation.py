"""A pair of languages small enough to learn within a test: word by word, the order turned round."""

from dataclasses import replace
from itertools import product

import numpy as np

from benchmarks.config import RunConfig
from benchmarks.translation import presets
from benchmarks.translation.tatoeba import Tatoeba, split

TINY = presets.Preset(
    units=12,
    rate=0.2,
    init=0.3,
    learning_rate=0.5,
    full_epochs=20,
    epochs=3,
    layers=1,
    batch=6,
    part=100,
    written=4,
    words=3,
    seen=2,
    beam=3,
    longest=5,
)
WORDS = {"red": "rouge", "blue": "bleu", "ball": "balle", "boat": "bateau", "dog": "chien"}


def tiny_pairs() -> list[tuple[str, str]]:
    """Every sentence of one to three words."""
    sentences = [s for length in (1, 2, 3) for s in product(WORDS, repeat=length)]
    return [
        (" ".join(words), " ".join(WORDS[word] for word in reversed(words))) for words in sentences
    ]


def tiny_tatoeba() -> Tatoeba:
    return split(tiny_pairs(), 6)


def config(backend="torch", policy="zaremba", seed=1, epochs=3, same_start=True) -> RunConfig:
    rate = 0.2 if policy.startswith(("zaremba", "naive")) else None
    return RunConfig("tiny", backend, policy, rate, seed, epochs, same_start, "translation")


def smaller(**changes):
    return replace(TINY, **changes)


def short_sources(task, rng) -> np.ndarray:
    """Sources of all lengths, `[R, S]`."""
    words = task.recipe.words
    found = rng.integers(2, len(task.english), (2 * words, words)).astype(np.int32)
    lengths = np.arange(2 * words) % words + 1
    return np.where(np.arange(words) < lengths[:, None], found, 0).astype(np.int32)
