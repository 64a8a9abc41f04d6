"""AN4, or speech of a user's own: frames and their states, checked, and in batches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import find, given, read_file
from ..task import DataError
from .presets import Preset

Floats = npt.NDArray[np.float32]
States = npt.NDArray[np.int32]

FILE = "an4_mfcc13_aligned.npz"
SHA256 = "0dd9b66e33040bdc410f670c1cbb452763df4d29dc17cbe3470a03d742bbf43b"
STATES = 102
"""How many AN4 has."""
OWN = "own speech"
"""The name of speech that is not AN4's."""
ANY = (
    "Any .npz will do that has, for train and for test, train_feat [frames, features], train_state "
    "[frames] and train_offset [utterances + 1]."
)
GET = (
    f"{FILE} holds the CMU AN4 (census) speech, BSD-style licence, as 13 MFCCs at 100 frames a "
    f"second, with states from an alignment. Put it in a folder and give that with --data DIR or "
    f"the variable AN4_DIR. {ANY}"
)


class Batch(NamedTuple):
    """Pieces of utterances: x `[B, T, D]`, the state of each frame y `[B, T]`, and its weight
    `[B, T]`, 0 where there is no frame."""

    x: Floats
    y: States
    weight: Floats


@dataclass(frozen=True)
class Part:
    """Utterances one after the other: frames `[N, D]`, states `[N]`, and where each begins, and
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
    """Training speakers, and others that are held out. Speech of one's own has the name `OWN` and
    its file's SHA-256."""

    train: Part
    test: Part
    states: int = STATES
    """How many there are, numbered from 0."""
    name: str = "an4"
    sha256: str | None = None


def load(data: Path | None = None) -> Speech:
    """Speech from a file, or from the one in a folder, or in that of AN4_DIR; features of mean 0
    and deviation 1 in training.

    Args:
        data: the file or the folder, if one is named.

    Raises:
        DataError: there is no such file, it has not the arrays that it must, or it is a damaged
            AN4.
    """
    path = find(given(data, "AN4_DIR", "the speech", GET), FILE, (".npz",), GET)
    raw, sha256 = read_file(path, GET)
    if path.name == FILE and sha256 != SHA256:
        raise DataError(
            f"{path} is not the file expected. Expected: SHA-256 {SHA256}. Received: {sha256}. "
            f"{GET}"
        )
    arrays = _arrays(path, raw)
    try:
        parts = [_part(arrays, name) for name in ("train", "test")]
        if parts[0].frames.shape[1] != parts[1].frames.shape[1]:
            widths = [part.frames.shape[1] for part in parts]
            raise ValueError(
                "train_feat and test_feat must have the same number of features. Received: "
                f"{widths[0]} and {widths[1]}"
            )
        speech = normalised(Speech(*parts))
        for name, part in (("train", speech.train), ("test", speech.test)):
            if not np.isfinite(part.frames).all():
                raise ValueError(f"{name}_feat is too large or not finite")
    except ValueError as error:
        raise DataError(f"{path}: {error}. {ANY}") from None
    if sha256 == SHA256:
        return speech
    states = 1 + max(int(part.states.max()) for part in parts)
    return replace(speech, states=states, name=OWN, sha256=sha256)


def _arrays(path: Path, raw: bytes) -> dict[str, Any]:
    """The six arrays of a file."""
    kinds = ("feat", "state", "offset")
    names = [f"{part}_{kind}" for part in ("train", "test") for kind in kinds]
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names}
    except Exception as error:  # whatever a file may hold: zip, zlib and NumPy have their own
        raise DataError(
            f"{path} cannot be read as an .npz of speech ({type(error).__name__}: {error}). {ANY}"
        ) from None


def _part(arrays: dict[str, Any], name: str) -> Part:
    """A part of the speech, or ValueError."""
    frames, states, edges = (arrays[f"{name}_{kind}"] for kind in ("feat", "state", "offset"))
    if frames.ndim != 2 or 0 in frames.shape or frames.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}_feat must be numbers [frames, features]. Received: {_described(frames)}"
        )
    if states.shape != frames.shape[:1] or states.dtype.kind not in "iu":
        raise ValueError(
            f"{name}_state must be a whole number for each of {len(frames)} frames. Received: "
            f"{_described(states)}"
        )
    least, most = int(states.min()), int(states.max())
    if least < 0 or most >= len(frames):
        raise ValueError(
            f"{name}_state must number the states from 0, and there can be no more than frames. "
            f"Received: {least} to {most}"
        )
    if edges.ndim != 1 or edges.dtype.kind not in "iu" or len(edges) < 2:
        raise ValueError(
            f"{name}_offset must be whole numbers [utterances + 1]. Received: {_described(edges)}"
        )
    ends = edges.astype(np.int64)
    if ends[0] != 0 or ends[-1] != len(frames) or (np.diff(ends) < 1).any():
        raise ValueError(
            f"{name}_offset must rise from 0 to the number of frames, {len(frames)}. Received: "
            f"{ends[0]} to {ends[-1]}"
        )
    with np.errstate(over="ignore"):  # what is too large is found at the end
        return Part(frames.astype(np.float32), states.astype(np.int32), ends)


def _described(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


def normalised(speech: Speech) -> Speech:
    """The same, each feature of mean 0 and deviation 1 over the training part; one that never
    changes there stays as it is, but for its mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = speech.train.frames.mean(0), speech.train.frames.std(0)
        deviation = np.where(deviation > 0.0, deviation, np.float32(1.0))

        def scaled(part: Part) -> Part:
            return Part((part.frames - mean) / deviation, part.states, part.edges)

        return replace(speech, train=scaled(speech.train), test=scaled(speech.test))


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
