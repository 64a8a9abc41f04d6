"""AN4: frames of speech and their states, checked, and in batches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import folder, read
from .presets import Preset

Floats = npt.NDArray[np.float32]
States = npt.NDArray[np.int32]

FILE = "an4_mfcc13_aligned.npz"
SHA256 = "0dd9b66e33040bdc410f670c1cbb452763df4d29dc17cbe3470a03d742bbf43b"
STATES = 102
GET = (
    f"{FILE} holds the CMU AN4 (census) speech, BSD-style licence, as 13 MFCCs at 100 frames a "
    f"second, with states from an alignment. Put it in a folder and give that with --data DIR or "
    f"the variable AN4_DIR."
)


class Batch(NamedTuple):
    """Pieces of utterances: x `[B, T, D]`, the state of each frame y `[B, T]`, and its weight
    `[B, T]`, 0 where there is no frame."""

    x: Floats
    y: States
    weight: Floats


@dataclass(frozen=True)
class Part:
    """Utterances one after the other: frames `[N, 13]`, states `[N]`, and where each begins, and
    the last ends `[U+1]`."""

    frames: Floats
    states: States
    edges: npt.NDArray[np.int64]

    def first(self, utterances: int) -> Part:
        """Its first utterances."""
        edges = self.edges[: utterances + 1]
        return Part(self.frames[: edges[-1]], self.states[: edges[-1]], edges)


@dataclass(frozen=True)
class Speech:
    """Training speakers, and others that are held out."""

    train: Part
    test: Part


def load(data: Path | None = None) -> Speech:
    """AN4 from a folder, or from that of AN4_DIR; features of mean 0 and deviation 1 in training.

    Raises:
        DataError: there is no such file, or it is another.
    """
    path = folder(data, "AN4_DIR", "the speech", GET) / FILE
    raw = io.BytesIO(read(path, SHA256, GET))
    with np.load(raw, allow_pickle=False) as arrays:
        parts = {
            name: Part(
                arrays[f"{name}_feat"].astype(np.float32),
                arrays[f"{name}_state"].astype(np.int32),
                arrays[f"{name}_offset"],
            )
            for name in ("train", "test")
        }
    return normalised(Speech(**parts))


def normalised(speech: Speech) -> Speech:
    """The same, each feature of mean 0 and deviation 1 over the training part."""
    mean, deviation = speech.train.frames.mean(0), speech.train.frames.std(0)

    def scaled(part: Part) -> Part:
        return Part((part.frames - mean) / deviation, part.states, part.edges)

    return Speech(scaled(speech.train), scaled(speech.test))


def pieces(part: Part, window: int) -> npt.NDArray[np.int64]:
    """Pieces of at most `window` frames, none across two utterances, `[P, 2]`: from and to; and in
    two columns more, from where to where their utterance goes, `[P, 4]`."""
    found = [
        (start, min(start + window, end), begin, end)
        for begin, end in zip(part.edges[:-1], part.edges[1:], strict=True)
        for start in range(begin, end, window)
    ]
    return np.array(found, np.int64)


def batches(part: Part, order: npt.NDArray[np.int64], recipe: Preset) -> Iterator[Batch]:
    """Batches of pieces in the order given, each B by T; the last is filled up with weight 0.

    A frame comes with those around it, of its own utterance: the first and last stand for what
    would lie beyond.
    """
    around = np.arange(-recipe.before, recipe.after + 1)
    width = len(around) * part.frames.shape[1]
    for at in range(0, len(order), recipe.batch):
        x = np.zeros((recipe.batch, recipe.window, width), np.float32)
        y = np.zeros((recipe.batch, recipe.window), np.int32)
        weight = np.zeros((recipe.batch, recipe.window), np.float32)
        for row, (start, stop, begin, end) in enumerate(order[at : at + recipe.batch]):
            count = stop - start
            near = np.clip(np.arange(start, stop)[:, None] + around, begin, end - 1)
            x[row, :count] = part.frames[near].reshape(count, width)
            y[row, :count] = part.states[start:stop]
            weight[row, :count] = 1.0
        yield Batch(x, y, weight)
