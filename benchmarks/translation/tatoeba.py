"""Tatoeba: sentences in English and in French, checked and split."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import folder, read
from ..sentences.words import Words

FILE = "fra-eng.zip"
MEMBER = "fra-eng/fra.txt"
SHA256 = "161c93f18da3a7e6df611ed961426613260de8af06ccf8c79c977afe5135ac44"
GET = (
    f"{FILE} holds sentence pairs of tatoeba.org, CC BY 2.0 FR, as ManyThings.org packed them on 7 "
    "April 2019. Put it in a folder and give that with --data DIR or the variable TATOEBA_DIR."
)
HELD_OUT = 3000
"""How many English sentences each of validation and test has, before any choice by length."""


@dataclass(frozen=True)
class Part:
    """English sentences, all different, and the French ones of each."""

    english: tuple[Words, ...]
    french: tuple[tuple[Words, ...], ...]

    def short(self, words: int) -> Part:
        """The sentences of at most so many words on both sides."""
        kept = [
            (english, tuple(each for each in french if len(each) <= words))
            for english, french in zip(self.english, self.french, strict=True)
            if len(english) <= words
        ]
        return _part([pair for pair in kept if pair[1]])

    def first(self, pairs: int) -> Part:
        """Its first sentences, that have so many pairs or the last one that exceeds them."""
        ends = np.cumsum([len(french) for french in self.french])
        count = int(np.searchsorted(ends, pairs)) + 1
        return Part(self.english[:count], self.french[:count])


@dataclass(frozen=True)
class Tatoeba:
    """Three parts that have no English sentence in common."""

    train: Part
    valid: Part
    test: Part


def words(sentence: str) -> Words:
    """A sentence in lower case, its punctuation apart."""
    return tuple(re.findall(r"\w+|[^\w\s]", sentence.lower()))


def load(data: Path | None = None) -> Tatoeba:
    """Tatoeba from a folder, or from that of TATOEBA_DIR, split by English sentence: all pairs of
    one, in lower case, are in one part. The split is drawn once, and is the same for all runs.

    Raises:
        DataError: there is no such file, or it is another.
    """
    raw = read(folder(data, "TATOEBA_DIR", "Tatoeba", GET) / FILE, SHA256, GET)
    with zipfile.ZipFile(io.BytesIO(raw)) as packed:
        lines = packed.read(MEMBER).decode("utf-8").splitlines()
    return split([line.split("\t")[:2] for line in lines], HELD_OUT)


def split(pairs: Sequence[Sequence[str]], held_out: int) -> Tatoeba:
    """Pairs in three parts; validation and test have `held_out` English sentences each."""
    found: dict[Words, dict[Words, None]] = {}
    for english, french in pairs:
        found.setdefault(words(english), {})[words(french)] = None
    each = [(english, tuple(french)) for english, french in found.items()]
    drawn = [each[place] for place in np.random.default_rng(0).permutation(len(each))]
    valid, test, train = drawn[:held_out], drawn[held_out : 2 * held_out], drawn[2 * held_out :]
    return Tatoeba(_part(train), _part(valid), _part(test))


def _part(pairs: Sequence[tuple[Words, tuple[Words, ...]]]) -> Part:
    return Part(tuple(english for english, _ in pairs), tuple(french for _, french in pairs))
