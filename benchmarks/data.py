"""Files that a user gets for himself: found, checked, and named where they are known."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .files import FileError, read_bytes, reason
from .task import DataError

OWN = ("own text", "own speech")
"""The names that results have for data that the benchmarks do not know."""
LISTED = 8
"""How many files of a folder an error names."""


def is_own(result: dict[str, Any]) -> bool:
    """Whether a line of results is of data that the benchmarks do not know."""
    for key in ("corpus", "translation", "speech"):
        data = result.get(key)
        if (data.get("name") if isinstance(data, dict) else data) in OWN:
            return True
    return False


def given(data: Path | None, variable: str, what: str, get: str) -> Path:
    """The path that is given, or that a variable of the environment names.

    Args:
        data: the path given, if any.
        variable: the variable's name.
        what: what lies there, for the error.
        get: where a user gets it, for the error.

    Raises:
        DataError: neither names one.
    """
    named = data if data is not None else os.environ.get(variable) or None
    if named is None:
        raise DataError(f"No folder is given for {what}. {get}")
    return expanded(named)


def expanded(path: Path | str) -> Path:
    """A path with the home folder in place of ~.

    Raises:
        DataError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path} is not a path: {error}.") from None


def entries(folder: Path, get: str) -> list[Path]:
    """What lies in a folder, without hidden files, by name.

    Args:
        folder: which.
        get: what to put there, for the error.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"There is no folder {folder}. {get}") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is not a folder. {get}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read: {reason(error)}. {get}") from None


def listed(paths: list[Path]) -> str:
    """Files as an error lists them."""
    names = [path.name + "/" * path.is_dir() for path in paths]
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join(names[:LISTED] + more) or "nothing"


def find(path: Path, known: str, suffixes: tuple[str, ...], get: str) -> Path:
    """The file that a path names, or the one file of a kind in the folder that it names.

    Args:
        path: of a file or a folder.
        known: the name of a file that is taken before all others.
        suffixes: what the names of files of the kind end with.
        get: what to write or to put there, for the error.

    Raises:
        DataError: there is none, or there are several.
    """
    try:
        if path.exists() and not path.is_dir():
            return path
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. {get}") from None
    there = entries(path, get)
    if (path / known).is_file():
        return path / known
    found = [each for each in there if each.suffix.lower() in suffixes and each.is_file()]
    if len(found) != 1:
        raise DataError(
            f"{path} must hold {known}, or one file that ends with {' or '.join(suffixes)}. "
            f"Found: {listed(found or there)}. Write the file itself after --data. {get}"
        )
    return found[0]


def read_file(path: Path, get: str) -> tuple[bytes, str]:
    """A file's bytes, and their SHA-256.

    Args:
        path: which.
        get: where a user gets it, for the error.

    Raises:
        DataError: it cannot be read.
    """
    try:
        raw = read_bytes(path)
    except FileError as error:
        raise DataError(f"{error} {get}") from None
    return raw, hashlib.sha256(raw).hexdigest()


def read(path: Path, sha256: str, get: str) -> bytes:
    """The bytes of a file that is known.

    Args:
        path: which.
        sha256: its SHA-256.
        get: where a user gets it, for the error.

    Raises:
        DataError: it cannot be read, or it is another file.
    """
    raw, received = read_file(path, get)
    if received != sha256:
        raise DataError(
            f"{path} is not the file expected. Expected: SHA-256 {sha256}. Received: {received}. "
            f"{get}"
        )
    return raw


def decode(path: Path, raw: bytes) -> str:
    """The text of a file, without the mark that some editors put before it.

    Args:
        path: the file's, for the error.
        raw: its bytes.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: the text is not UTF-8. Received: the byte "
            f"0x{error.object[error.start]:02x}. Save the file as UTF-8."
        ) from None
