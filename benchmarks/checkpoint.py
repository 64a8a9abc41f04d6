"""Checkpoints: arrays and a JSON record in one safetensors file, written atomically.

The format carries no code, so that reading a stranger's checkpoint runs none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "dropout-policies checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is not this run's."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def save(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write arrays and a record; an interruption leaves the checkpoint that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(contiguous, part, {"format": FORMAT, "record": json.dumps(record)})
    os.replace(part, path)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record that `save` wrote.

    Raises:
        CheckpointError: no such file, not a safetensors file, cut short, or another program's.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} was not written by this benchmark. Received: "
                    f"format={metadata.get('format')!r}, expected {FORMAT!r}"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, json.loads(metadata["record"])
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint.") from None
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({error}). If it was cut short, delete it "
            f"and start again without --resume."
        ) from None
