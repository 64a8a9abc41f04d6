"""Trained models: a run's model as its checkpoint has it, and several together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import checkpoint
from .checkpoint import CheckpointError
from .config import RunConfig
from .machine import machine, versions


class Trained(NamedTuple):
    """A run's model, in the backend that it is to be evaluated in."""

    config: RunConfig
    """As it was trained."""
    task: Any
    """Its `benchmarks.task.Task`."""
    epochs: int

    @property
    def engine(self) -> Any:
        return self.task.engine


def load(folder: Path, backend: str, task: str, known: Any = None) -> Trained:
    """The model of a run.

    Args:
        folder: the run's, as `--out` has them.
        backend: where it is to run; weights are the same in all.
        task: which task's run it has to be.
        known: data that was read already, if it is the run's.

    Raises:
        CheckpointError: there is no such run, or its checkpoint cannot be read.
        DataError: its data cannot be read.
    """
    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is no run's folder: it has no job.json.") from error
    config = RunConfig.from_dict(job["config"])
    if config.task != task:
        raise CheckpointError(
            f"{folder} is a run of another task. Write: python -m benchmarks.{config.task} ..."
        )
    arrays, record = checkpoint.load(folder / "checkpoint.safetensors")
    data = None if job["data"] is None else Path(job["data"])
    made = import_module(f"benchmarks.{task}.task").make(
        replace(config, backend=backend), data, known
    )
    for key, here in made.record().items():
        if record["identity"].get(key) != here:
            raise CheckpointError(
                f"{folder} was trained on other data: {record['identity'].get(key)}. "
                f"Received: {here}."
            )
    made.restore(arrays, int(record["calls"]))
    return Trained(config, made, int(record["progress"]["epoch"]))


def averaged(
    models: Sequence[Trained], backend: str, found: list[dict[str, Any]]
) -> dict[str, Any]:
    """A line of results for the first 1, 2, ..., N models averaged, of which `found` has the
    figures in that order."""
    return {
        "members": [{**m.config.to_dict(), "trained_epochs": m.epochs} for m in models],
        "backend": backend,
        "averages": [{"models": count, **row} for count, row in enumerate(found, 1)],
        "versions": versions(),
        "machine": machine(),
    }


def mean_logarithms(log_p: np.ndarray) -> np.ndarray:
    """The logarithms of the means of the first 1, 2, ..., N probabilities, along the first axis.

    By their logarithms, so that no probability vanishes.
    """
    counts = np.arange(1, len(log_p) + 1).reshape(-1, *[1] * (log_p.ndim - 1))
    return np.logaddexp.accumulate(log_p, axis=0) - np.log(counts)
