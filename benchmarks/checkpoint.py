"""Checkpoints: arrays and a JSON record in one safetensors file with a checksum.

The format carries no code, so that reading a stranger's checkpoint runs none. The checksum is the
SHA-256 of the whole file with zeros in the checksum's own place, so that it covers every byte. It
finds damage; it does not prove who wrote the file, so that what is read is checked as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from .errors import BenchmarkError
from .files import FileError, parse_json, read_bytes, reason, write_atomically

FORMAT = "dropout-policies checkpoint 2"
WITHOUT_CHECKSUM = "dropout-policies checkpoint 1"
"""The format before, which had no checksum."""
NO_SUM = "0" * 64
"""What stands in the checksum's place while it is computed."""
AGAIN = "Start the run again without --resume."


class CheckpointError(BenchmarkError):
    """A checkpoint that cannot be read, is damaged, or is not this run's."""


def save(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write arrays and a record; an interruption leaves the checkpoint that was there.

    Args:
        path: where.
        arrays: by name.
        record: what JSON can hold.

    Raises:
        FileError: it cannot be written; the checkpoint that was there stays.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "record": json.dumps(record, allow_nan=False),
        "sha256": NO_SUM,
    }
    raw = safetensors.numpy.save(contiguous, metadata)
    place = _place_of_sum(raw, NO_SUM)
    digest = hashlib.sha256(raw).hexdigest().encode()
    write_atomically(path, raw[:place] + digest + raw[place + len(digest) :])


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record that `save` wrote.

    Args:
        path: the checkpoint.

    Raises:
        CheckpointError: there is no such file, it is damaged, or another program wrote it.
    """
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such checkpoint.")
        raw = read_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}.") from None
    except FileError as error:
        raise CheckpointError(str(error)) from None
    try:
        metadata = _metadata(raw)
        found = metadata.get("format")
        if found == FORMAT:
            _check_sum(raw, metadata)
            arrays = safetensors.numpy.load(raw)
            record = parse_json(metadata["record"])
    except Exception as error:  # whatever a file may hold: each parser has errors of its own
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}). If it was "
            f"cut short or damaged, put back a copy, or delete it. {AGAIN}"
        ) from None
    if found == WITHOUT_CHECKSUM:
        raise CheckpointError(
            f"{path} was written by an earlier version, without a checksum, and cannot be "
            f"checked. {AGAIN}"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"{path} was not written by this benchmark. Received: format={found!r}, expected "
            f"{FORMAT!r}."
        )
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} has no record. Received: record={record!r:.60}.")
    return arrays, record


def _metadata(raw: bytes) -> dict[str, Any]:
    """The texts beside the arrays; {} where a safetensors file has none."""
    header = parse_json(raw[8 : 8 + _header_length(raw)])
    metadata = header.get("__metadata__") or {}
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    return dict(metadata)


def _header_length(raw: bytes) -> int:
    """The length of a safetensors file's header, which stands in its first eight bytes."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise ValueError("it is shorter than its header says")
    return length


def _place_of_sum(raw: bytes, digest: str) -> int:
    """Where a checksum stands in a file."""
    before = b'"sha256":"'
    header = raw[: 8 + _header_length(raw)]
    mark = before + digest.encode() + b'"'
    if header.count(mark) != 1:
        raise ValueError("its checksum is not in exactly one place")
    return header.index(mark) + len(before)


def _check_sum(raw: bytes, metadata: dict[str, Any]) -> None:
    stated = metadata.get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", stated):
        raise ValueError("it has no checksum")
    place, view = _place_of_sum(raw, stated), memoryview(raw)
    found = hashlib.sha256(view[:place])
    found.update(NO_SUM.encode())
    found.update(view[place + len(NO_SUM) :])
    if found.hexdigest() != stated:
        raise ValueError("its checksum is not that of its content")
