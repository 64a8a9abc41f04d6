"""Runs, each in a process of its own: one after the other, or as a launcher has them; and what they
left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

from dropout_policies.catalog import ZAREMBA, resolve

from .checkpoint import write_atomically
from .config import BACKENDS, RunConfig
from .processes import INTERRUPTED
from .recipe import presets

Result = dict[str, Any]

Launcher = Callable[[Sequence[Path], float | None], int]
"""Runs the jobs in some folders, stops them at a checkpoint after some minutes, if any are given,
and returns the exit code of the first that did not end well, or 0."""

ROOT = Path(__file__).parents[1]

Backend = StrEnum("Backend", {name: name for name in BACKENDS})  # type: ignore[misc]


def configure(
    task: str,
    preset: str,
    backends: Sequence[str],
    policies: Sequence[str],
    rate: float | None,
    seeds: Sequence[int],
    epochs: int | None,
    same_start: bool = False,
) -> list[RunConfig]:
    """The runs that a user asks for; what is None is the preset's.

    Raises:
        PolicyError: no such policy, or a rate that it cannot have.
    """
    recipe = presets(task)[preset]
    configs = []
    for policy, seed, backend in product(policies, seeds, backends):
        # The preset's rate is the paper's, for the paper's placements; others have their own.
        papers = resolve(policy.partition("+")[0]).citation == ZAREMBA
        chosen = recipe.rate if rate is None and papers else rate
        length = epochs or recipe.epochs
        config = RunConfig(preset, backend, policy, chosen, seed, length, same_start, task)
        config.placement  # noqa: B018 # refused now, if it is to be refused
        configs.append(config)
    return configs


def launch(
    configs: Sequence[RunConfig],
    data: Path | None,
    out: Path,
    resume: bool,
    checkpoint_minutes: float,
    minutes: float | None,
    launcher: Launcher,
    processes: int,
) -> tuple[int, list[Result]]:
    """Train, as a launcher has it; its exit code, and all results so far."""
    folders = [(out / config.name).resolve() for config in configs]
    for config, folder in zip(configs, folders, strict=True):
        job = {
            "config": config.to_dict(),
            "data": None if data is None else str(data.resolve()),
            "resume": resume,
            "checkpoint_minutes": checkpoint_minutes,
            "processes": processes,
        }
        write_atomically(folder / "job.json", json.dumps(job))
    code = launcher(folders, minutes)
    results = read_results(out, [config.name for config in configs])
    if results:
        write_atomically(out / "results.jsonl", "".join(json.dumps(r) + "\n" for r in results))
    return code, results


def read_results(out: Path, runs: list[str]) -> list[Result]:
    """The results of the named runs that have any epochs, in that order."""
    paths = [out / run / "result.json" for run in runs]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    return [result for result in results if result["epochs"]]


def command(folder: Path) -> list[str]:
    """What runs the job in a folder, from `ROOT`."""
    return [sys.executable, "-m", "benchmarks.worker", str(folder)]


def one_by_one(folders: Sequence[Path], minutes: float | None) -> int:
    """A `Launcher`: each run when the one before has ended, and no more after a failure."""
    end = None if minutes is None else time.monotonic() + 60.0 * minutes
    for folder in folders:
        code = _run(folder, end)
        if code:
            return code
    return 0


def _run(folder: Path, end: float | None) -> int:
    """One run; `end` is the time, by the monotonic clock, at which it stops at a checkpoint."""
    worker = subprocess.Popen(command(folder), cwd=ROOT)
    while True:
        try:
            return worker.wait(None if end is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.terminate()  # it writes its checkpoint, and is waited for
            end = None
        except KeyboardInterrupt:  # the worker got it too, and is writing its checkpoint
            if worker.poll() is not None:
                return INTERRUPTED
