"""Captions small enough to train on within a test: what an image shows decides its captions."""

from dataclasses import replace

import numpy as np

from benchmarks.captions import presets
from benchmarks.captions.flickr import POOLED, Flickr, Part
from benchmarks.config import RunConfig
from benchmarks.sentences.batches import Batch

TINY = presets.Preset(
    units=8,
    rate=0.5,
    init=0.3,
    learning_rate=0.5,
    full_epochs=10,
    epochs=3,
    batch=5,
    written=2,
    seen=2,
    beam=3,
    longest=8,
)
SHOWN = ("red ball", "blue boat", "green dog")


def tiny_flickr() -> Flickr:
    """Two captions an image, the one short and the other long."""
    rng = np.random.default_rng(0)
    looks = rng.choice([-0.1, 0.1], (len(SHOWN), POOLED))

    def part(name: str, images: int) -> Part:
        shown = np.arange(images) % len(SHOWN)
        features = looks[shown] + 0.02 * rng.standard_normal((images, POOLED))
        spoken = [f"a {SHOWN[one]}|one {SHOWN[one]} is over there".split("|") for one in shown]
        captions = tuple(tuple(tuple(c.split()) for c in each) for each in spoken)
        names = tuple(f"{name}{number}.jpg" for number in range(images))
        return Part(names, features.astype(np.float32), captions)

    return Flickr(part("train", 6), part("valid", 3), part("test", 3))


def config(backend="torch", policy="zaremba", seed=1, epochs=3, same_start=True) -> RunConfig:
    rate = 0.5 if policy.startswith(("zaremba", "naive")) else None
    return RunConfig("tiny", backend, policy, rate, seed, epochs, same_start, "captions")


def smaller(**changes):
    return replace(TINY, **changes)


def step_by_step(engine, batch: Batch) -> np.ndarray:
    """What each word of a batch costs, `[B, T]`, one step after the other."""
    state, found = engine.begin(batch.given), []
    for before, word in zip(batch.before.T, batch.words.T, strict=True):
        log_p, state = engine.step(before, state)
        found.append(-log_p[np.arange(len(word)), word])
    return np.array(found).T


def fed(engine, batch: Batch) -> list[np.ndarray]:
    """Which columns of what the LSTM is fed with a step has no gradient in: for the image, and for
    the words."""
    was = engine.weights()
    engine.train(batch, 0.5)
    now = engine.weights()
    words = (now["embedding"] == was["embedding"]).all(axis=0)
    return [now["image.bias"] == was["image.bias"], words]


def one_row(batch: Batch, row: int) -> Batch:
    """A batch's row, alone."""
    return Batch(*(array[row : row + 1] for array in batch))


def first_batch(task) -> Batch:
    return next(task.batches(0, 0))
