"""Captions without a model: those of training images that look alike (Devlin et al. 2015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..sentences.words import Words
from .flickr import Flickr, Part

NEAREST = 20
"""How many images the consensus is of."""
ORDER = 4
"""The longest n-grams by which captions are compared."""


def retrieved(data: Flickr, seed: int) -> dict[str, list[str]]:
    """For each test image a training caption: any; the first one of the nearest image; the
    consensus of those of the nearest `NEAREST`."""
    near = nearest(data.train, data.test, NEAREST)
    rng = np.random.default_rng(seed)
    captions = [caption for each in data.train.captions for caption in each]
    drawn = rng.integers(len(captions), size=len(near))
    said: dict[str, list[Words]] = {
        "random": [captions[place] for place in drawn],
        "nearest image": [data.train.captions[row[0]][0] for row in near],
        f"consensus of {NEAREST}": [
            consensus([c for image in row for c in data.train.captions[image]]) for row in near
        ],
    }
    return {name: [" ".join(words) for words in each] for name, each in said.items()}


def nearest(among: Part, of: Part, count: int) -> np.ndarray:
    """The images of a part that look most like each image of another, by the cosine of their
    features, `[N, count]`, the nearest first."""
    a, b = (
        part.features / np.linalg.norm(part.features, axis=1, keepdims=True) for part in (of, among)
    )
    return np.argsort(-(a @ b.T), axis=1, kind="stable")[:, :count]


def consensus(captions: Sequence[Words]) -> Words:
    """The caption that is most like the others, on average."""
    sets = [ngrams(caption) for caption in captions]
    names = {name: place for place, name in enumerate(sorted(set().union(*sets)))}
    counts = np.zeros((len(captions), len(names)), np.float32)
    for row, found in enumerate(sets):
        for name, count in found.items():
            counts[row, names[name]] = count
    likeness = _f1(counts, [len(name) for name in names])
    np.fill_diagonal(likeness, 0.0)
    return captions[int(likeness.sum(axis=1).argmax())]


def ngrams(caption: Words) -> Counter[Words]:
    """How often each n-gram is in a caption, for n up to `ORDER`."""
    return Counter(
        caption[at : at + n] for n in range(1, ORDER + 1) for at in range(len(caption) - n + 1)
    )


def _f1(counts: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """How many n-grams two captions share, of those they have: the mean of F1 over n."""
    total = np.zeros((len(counts), len(counts)))
    for n in range(1, ORDER + 1):
        mine = counts[:, [length == n for length in lengths]]
        shared = np.array([np.minimum(mine, row).sum(axis=1) for row in mine])
        size = mine.sum(axis=1)
        total += 2.0 * shared / np.maximum(size[:, None] + size, 1.0)
    return total / ORDER
