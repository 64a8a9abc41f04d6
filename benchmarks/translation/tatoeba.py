"""Tatoeba, or pairs of sentences of a user's own: checked and split."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data import decode, find, given, read_file
from ..sentences.words import Words
from ..task import DataError

FILE = "fra-eng.zip"
MEMBER = "fra-eng/fra.txt"
SHA256 = "161c93f18da3a7e6df611ed961426613260de8af06ccf8c79c977afe5135ac44"
TEXT_SHA256 = "0bb85dbaa1c896844649094d7eaf2e34bee34e84fe362b26ce7e8f2e12aae104"
"""Of the text in it, where it lies unpacked."""
OWN = "own text"
"""The name of pairs that are not Tatoeba's."""
SUFFIXES = (".tsv", ".tab", ".txt")
"""What the names of files of pairs end with, where a folder is searched for one."""
ANY = "Any UTF-8 file will do that has a sentence, a tab and its translation in each line."
GET = (
    f"{FILE} holds sentence pairs of tatoeba.org, CC BY 2.0 FR, as ManyThings.org packed them on 7 "
    "April 2019. Put it in a folder and give that with --data DIR or the variable TATOEBA_DIR. "
    + ANY
)
HELD_OUT = 3000
"""How many English sentences each of validation and test has, before any choice by length. Of
pairs of one's own it is the most, and a tenth of the sentences where that is less."""


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
    """Three parts that have no English sentence in common.

    Pairs of one's own have the name `OWN` and their file's SHA-256; whatever their languages are,
    the first is called English here, and the second French.
    """

    train: Part
    valid: Part
    test: Part
    name: str = "tatoeba"
    sha256: str | None = None


def words(sentence: str) -> Words:
    """A sentence in lower case, its punctuation apart."""
    return tuple(re.findall(r"\w+|[^\w\s]", sentence.lower()))


def load(data: Path | None = None) -> Tatoeba:
    """Pairs from a file, or from the one in a folder, or in that of TATOEBA_DIR, split by English
    sentence: all pairs of one, in lower case, are in one part. The split is drawn once, and is the
    same for all runs.

    Args:
        data: the file or the folder, if one is named.

    Raises:
        DataError: there is no such file, it has no pairs, or it is a damaged one of Tatoeba's.
    """
    path = find(given(data, "TATOEBA_DIR", "pairs of sentences", GET), FILE, SUFFIXES, GET)
    raw, sha256 = read_file(path, GET)
    if sha256 == SHA256:
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            raw, sha256 = packed.read(MEMBER), TEXT_SHA256
    elif path.name == FILE:
        raise DataError(
            f"{path} is not the file expected. Expected: SHA-256 {SHA256}. Received: {sha256}. "
            f"{GET}"
        )
    elif zipfile.is_zipfile(io.BytesIO(raw)):
        raise DataError(f"{path} is a zip file. Unpack it, and write its file of pairs. {ANY}")
    pairs = read_pairs(path, raw)
    if sha256 == TEXT_SHA256:
        return split(pairs, HELD_OUT)
    sentences = len({words(english) for english, _ in pairs})
    if sentences < 3:
        raise DataError(
            f"{path} must have 3 different first sentences, one for each part. Received: "
            f"{sentences}. {ANY}"
        )
    held_out = max(1, min(HELD_OUT, sentences // 10))
    return replace(split(pairs, held_out), name=OWN, sha256=sha256)


def read_pairs(path: Path, raw: bytes) -> list[tuple[str, str]]:
    """The pairs in the lines of a file; what stands after a second tab is left out, and so are
    empty lines.

    Args:
        path: the file's, for errors.
        raw: its bytes.

    Raises:
        DataError: it is not UTF-8, or a line has no pair.
    """
    pairs = []
    for number, line in enumerate(decode(path, raw).split("\n"), 1):
        if not line.strip():
            continue
        sides = line.split("\t")[:2]
        if len(sides) < 2 or not all(map(words, sides)):
            lacks = "no tab" if len(sides) < 2 else "no words on one side of the tab"
            raise DataError(f"{path}, line {number}: the line has {lacks}. {ANY}")
        pairs.append((sides[0], sides[1]))
    return pairs


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
