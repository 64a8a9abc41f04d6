"""Penn Treebank, checked; and a part of it for the demo."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

SHA256 = {
    "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}


class CorpusError(ValueError):
    """A text that cannot be read, or is not what it should be."""


@dataclass(frozen=True)
class Corpus:
    """A text in three parts, as word numbers, with its vocabulary."""

    name: str
    vocabulary: tuple[str, ...]
    train: Tokens
    valid: Tokens
    test: Tokens
    floor: float | None
    source: str


def load(data: Path | None = None) -> Corpus:
    """The corpus in a folder, or in the one that the variable PTB_DIR names."""
    if data is None and "PTB_DIR" not in os.environ:
        raise CorpusError("Give the folder of the corpus, or set PTB_DIR.")
    return read_ptb(Path(os.environ["PTB_DIR"]) if data is None else data)


def read_ptb(folder: Path) -> Corpus:
    """Read and check the three files of a folder."""
    words: dict[str, list[str]] = {}
    for part, expected in SHA256.items():
        raw = (folder / f"ptb.{part}.txt").read_bytes()
        if hashlib.sha256(raw).hexdigest() != expected:
            raise CorpusError(f"{folder}/ptb.{part}.txt is corrupt.")
        words[part] = raw.decode().replace("\n", " <eos> ").split()
    counts = Counter(words["train"])
    vocabulary = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    number = {word: index for index, word in enumerate(vocabulary)}
    parts = {part: np.array([number[w] for w in text], np.int32) for part, text in words.items()}
    return Corpus("ptb", vocabulary, **parts, floor=None, source=f"Penn Treebank in {folder}")


def part(corpus: Corpus, train: int, other: int, vocabulary: int) -> Corpus:
    """The first tokens of each part, with the most frequent words; the others become <unk>."""
    counts = Counter(corpus.train[:train].tolist())
    unknown = corpus.vocabulary.index("<unk>")
    kept = [w for w, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    kept = [unknown, *[w for w in kept if w != unknown][: vocabulary - 1]]
    table = np.zeros(len(corpus.vocabulary), np.int32)
    table[kept] = np.arange(len(kept))
    return replace(
        corpus,
        vocabulary=tuple(corpus.vocabulary[w] for w in kept),
        train=table[corpus.train[:train]],
        valid=table[corpus.valid[:other]],
        test=table[corpus.test[:other]],
    )
