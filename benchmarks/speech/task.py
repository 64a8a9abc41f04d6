"""Recognising the state of every frame: pieces of utterances, frame accuracies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..task import Arrays
from . import frames
from .engine import Engine
from .engine import make as make_engine
from .frames import Batch, Part, Speech, batches, pieces


class FrameRecognition:
    """`benchmarks.task.Task` on speech."""

    unit = "frames"
    figures = ("train_nats", "held_out_accuracy", "held_out_nats")

    def __init__(self, config: RunConfig, speech: Speech, engine: Engine) -> None:
        self.config, self.data, self.engine = config, speech, engine
        self.recipe = config.recipe
        self.pieces = pieces(speech.train, self.recipe.window)
        self.steps = -(-len(self.pieces) // self.recipe.batch)

    def begin(self) -> None:
        """Nothing is carried from epoch to epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = np.random.default_rng([self.config.seed, epoch]).permutation(self.pieces)
        return batches(self.data.train, order[start * self.recipe.batch :], self.recipe)

    def train(self, batch: Batch, learning_rate: float) -> float:
        return self.engine.train(batch, learning_rate)

    def headline(self, loss: float) -> str:
        return f"nats {loss:6.3f}"

    def after_epoch(self, loss: float) -> dict[str, float]:
        return {"train_nats": loss, **self._scores("held_out", self.data.test)}

    def at_end(self) -> dict[str, Any]:
        return self._scores("train", self.data.train)

    def _scores(self, name: str, part: Part) -> dict[str, float]:
        """Frame accuracy in percent, and mean nats of a frame, without masks."""
        nats = right = count = 0.0
        for batch in batches(part, pieces(part, self.recipe.window), self.recipe):
            scores = self.engine.score(batch)
            nats += float((scores.nats * batch.weight).sum(dtype=np.float64))
            right += float((scores.right * batch.weight).sum(dtype=np.float64))
            count += float(batch.weight.sum())
        return {f"{name}_accuracy": 100.0 * right / count, f"{name}_nats": nats / count}

    def size(self) -> int:
        return len(self.data.train.frames)

    def record(self) -> dict[str, Any]:
        parts = {"train": self.data.train, "held_out": self.data.test}
        sizes = {
            name: {"utterances": len(part.edges) - 1, "frames": len(part.frames)}
            for name, part in parts.items()
        }
        found: dict[str, Any] = {"name": self.data.name, **sizes}
        if self.data.sha256 is not None:
            found |= {"features": self.data.train.frames.shape[1], "states": self.data.states}
            found["sha256"] = self.data.sha256
        return {"speech": found}

    def arrays(self) -> Arrays:
        return self.engine.weights()

    def calls(self) -> int:
        return self.engine.calls()

    def restore(self, arrays: Arrays, calls: int) -> None:
        self.engine.restore(arrays, calls)


def make(config: RunConfig, data: Path | None, known: Speech | None = None) -> FrameRecognition:
    """The task of a run; `known` is its data, if that was read already.

    Raises:
        DataError: the data cannot be read.
    """
    speech = frames.load(data) if known is None else known
    recipe = config.recipe
    if known is None and recipe.part is not None:
        speech = replace(speech, train=speech.train.first(recipe.part))
    features = (recipe.before + 1 + recipe.after) * speech.train.frames.shape[1]
    return FrameRecognition(config, speech, make_engine(config, features, speech.states))
