"""Trained models: a run's model as its checkpoint has it, and several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checkpoint import CheckpointError
from .config import RunConfig
from .job import Job
from .machine import machine, versions
from .training import Saved


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
        FileError: its job cannot be read.
        PolicyError: its policy is not in the catalogue here.
        DataError: its data cannot be read.
    """
    job = Job.read(folder)
    config = job.config
    if config.task != task:
        raise CheckpointError(
            f"{folder} is a run of another task. Write: python -m benchmarks.{config.task} ..."
        )
    path = folder / "checkpoint.safetensors"
    saved = Saved.read(path)
    made = import_module(f"benchmarks.{task}.task").make(
        replace(config, backend=backend), job.data, known
    )
    for key, here in made.record().items():
        if saved.identity.get(key) != here:
            raise CheckpointError(
                f"{folder} was trained on other data: {saved.identity.get(key)}. Received: {here}."
            )
    saved.restore(made, path)
    return Trained(config, made, saved.progress.epoch)


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
