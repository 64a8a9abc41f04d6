"""Speech small enough to train on within a test: each state has a feature of its own."""

from dataclasses import replace

import numpy as np

from benchmarks.config import RunConfig
from benchmarks.speech import presets
from benchmarks.speech.frames import Part, Speech

TINY = presets.Preset(
    units=8,
    rate=0.5,
    init=0.3,
    full_epochs=10,
    decay=2.0,
    epochs=3,
    window=6,
    before=1,
    after=2,
    batch=4,
)
FEATURES = 5


def tiny_speech() -> Speech:
    rng = np.random.default_rng(0)

    def part(lengths: list[int]) -> Part:
        edges = np.cumsum([0, *lengths])
        states = np.repeat(rng.integers(0, FEATURES, edges[-1] // 2 + 1), 2)[: edges[-1]]
        frames = np.eye(FEATURES)[states] + 0.1 * rng.standard_normal((edges[-1], FEATURES))
        return Part(frames.astype(np.float32), states.astype(np.int32), edges.astype(np.int64))

    return Speech(part([13, 6, 20, 1, 17, 30]), part([9, 14]))


def config(backend="torch", policy="zaremba", seed=1, epochs=3, same_start=True) -> RunConfig:
    rate = 0.5 if policy.startswith(("zaremba", "naive")) else None
    return RunConfig("tiny", backend, policy, rate, seed, epochs, same_start, "speech")


def smaller(**changes):
    return replace(TINY, **changes)
