"""Flickr8k: features of images and five captions of each, checked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data import given, read
from ..sentences.words import Words

Floats = npt.NDArray[np.float32]

SHA256 = {
    "captions.txt": "e6cf5e8d8025d25b50a4945c38580d96a940b78644f31a90368dfcdca3c7e036",
    "squeezenet11_features.npz": "3b59dffa6f9d15b8d92929ba037bb14bd89248bd62b1a381e9bfd2957959eb69",
    "Flickr_8k.trainImages.txt": "e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e",
    "Flickr_8k.devImages.txt": "18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504",
    "Flickr_8k.testImages.txt": "c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17",
}
POOLED = 512
"""The first columns of the features: activations averaged over the image; class scores follow."""
GET = (
    "Flickr8k (Hodosh, Young and Hockenmaier 2013) is for research and education alone, and its "
    "images belong to their owners. The files are "
    + ", ".join(SHA256)
    + "; put them in one folder and give that with --data DIR or the variable FLICKR8K_DIR."
)


@dataclass(frozen=True)
class Part:
    """Images: their names, their features `[N, 512]`, and the captions of each."""

    names: tuple[str, ...]
    features: Floats
    captions: tuple[tuple[Words, ...], ...]

    def first(self, images: int) -> Part:
        """Its first images."""
        return Part(self.names[:images], self.features[:images], self.captions[:images])


@dataclass(frozen=True)
class Flickr:
    """The three parts of the official split."""

    train: Part
    valid: Part
    test: Part


def words(caption: str) -> Words:
    """A caption in lower case, without punctuation."""
    return tuple(re.sub(r"[^\w\s]", "", caption.lower()).split())


def load(data: Path | None = None) -> Flickr:
    """Flickr8k from a folder, or from that of FLICKR8K_DIR; features of mean 0 and deviation 1 over
    the training part.

    Raises:
        DataError: a file is not there, or it is another.
    """
    where = given(data, "FLICKR8K_DIR", "Flickr8k", GET)
    raw = {name: read(where / name, sha256, GET) for name, sha256 in SHA256.items()}
    captions: dict[str, list[Words]] = {}
    for line in csv.DictReader(io.StringIO(raw["captions.txt"].decode("utf-8"))):
        captions.setdefault(line["image"], []).append(words(line["caption"]))
    with np.load(io.BytesIO(raw["squeezenet11_features.npz"]), allow_pickle=False) as arrays:
        rows = {str(name): row for row, name in enumerate(arrays["names"])}
        features = arrays["features"][:, :POOLED].astype(np.float32)
    parts = {}
    for part in ("train", "dev", "test"):
        names = tuple(raw[f"Flickr_8k.{part}Images.txt"].decode("utf-8").split())
        chosen = features[[rows[name] for name in names]]
        parts[part] = Part(names, chosen, tuple(tuple(captions[name]) for name in names))
    return Flickr(*_normalised([parts["train"], parts["dev"], parts["test"]]))


def _normalised(parts: Sequence[Part]) -> list[Part]:
    mean = parts[0].features.mean(axis=0)
    deviation = parts[0].features.std(axis=0).clip(min=1e-6)
    return [Part(p.names, (p.features - mean) / deviation, p.captions) for p in parts]
