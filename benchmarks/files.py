"""Files read and written: whole or not at all, and with an error that names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from .errors import BenchmarkError


class FileError(BenchmarkError):
    """A file that cannot be read or written."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: where; its folder is made.
        content: text, which is written as UTF-8, or bytes.

    Raises:
        FileError: it cannot be written; the old file stays.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())  # some file systems say only here that the disk is full
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise FileError(f"{path} cannot be written: {reason(error)}.") from None


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Args:
        path: which; a pipe or a device, which may never end, is refused.

    Raises:
        FileError: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise FileError(f"{path} cannot be read: it is not a regular file.")
        return path.read_bytes()
    except MemoryError:
        raise FileError(f"{path} cannot be read: it is larger than the memory.") from None
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.") from None


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Args:
        path: which.

    Raises:
        FileError: it cannot be read, or is not JSON.
    """
    raw = read_bytes(path)
    try:
        return parse_json(raw)
    except ValueError as error:
        raise FileError(f"{path} cannot be read as JSON: {error}.") from None


def parse_json(raw: str | bytes) -> Any:
    """What JSON holds, by the standard alone: without NaN and Infinity.

    Args:
        raw: the JSON.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def reason(error: Exception) -> str:
    """Why the operating system refused, without the path."""
    return getattr(error, "strerror", None) or str(error)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
