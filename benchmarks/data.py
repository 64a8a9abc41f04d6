"""Files that a user gets for himself: found in a folder, and checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .task import DataError


def folder(data: Path | None, variable: str, what: str, get: str) -> Path:
    """The folder that is given, or that a variable of the environment names.

    Args:
        data: the folder given, if any.
        variable: the variable's name.
        what: what lies in it, for the error.
        get: where a user gets it, for the error.

    Raises:
        DataError: neither names one.
    """
    named = data if data is not None else os.environ.get(variable) or None
    if named is None:
        raise DataError(f"No folder is given for {what}. {get}")
    return Path(named).expanduser()


def read(path: Path, sha256: str, get: str) -> bytes:
    """A file's bytes.

    Raises:
        DataError: it cannot be read, or it is another file; `get` says where to get it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. {get}") from error
    received = hashlib.sha256(raw).hexdigest()
    if received != sha256:
        raise DataError(
            f"{path} is not the file expected. Expected: SHA-256 {sha256}. Received: {received}. "
            f"{get}"
        )
    return raw
