"""Runs, each in a process of its own: one after the other, or as a launcher has them; and what they
left."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from itertools import product
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from dropout_policies.policies.catalog import ZAREMBA, resolve

from .config import BACKENDS, RunConfig
from .files import FileError, read_json, reason, write_atomically
from .job import Job
from .locks import LAUNCHER, WORKER, check_unlocked, locked
from .output import print_error
from .processes import INTERRUPTED
from .recipe import presets
from .stopping import signals_interrupt, start, stop

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
    return list(dict.fromkeys(configs))  # what is named twice runs once


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
    """Train, as a launcher has it; its exit code, and all results so far.

    Raises:
        LockedError: another run uses one of the folders.
        FileError: a file cannot be read or written.
    """
    try:
        folders = [(out / config.name).resolve() for config in configs]
        source = None if data is None else data.expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links; no such user
        raise FileError(f"{out} or {data} is not a path: {reason(error)}.") from None
    with ExitStack() as locks:
        for folder in dict.fromkeys(folders):
            locks.enter_context(locked(folder, LAUNCHER))
            check_unlocked(folder, WORKER)  # a worker may outlive its launcher
        for config, folder in zip(configs, folders, strict=True):
            Job(config, source, resume, checkpoint_minutes, processes).write(folder)
        with signals_interrupt():
            code = launcher(folders, minutes)
        results = read_results(out, [config.name for config in configs])
        if results:
            lines = "".join(json.dumps(result) + "\n" for result in results)
            write_atomically(out / "results.jsonl", lines)
    return code, results


def read_results(out: Path, runs: list[str]) -> list[Result]:
    """The results of the named runs that have any epochs, in that order.

    Raises:
        FileError: one cannot be read, or is not what a run writes.
    """
    results = []
    for path in (out / run / "result.json" for run in runs):
        if not path.exists():
            continue
        result = read_json(path)
        if type(result) is not dict or not {"config", "epochs", "run"} <= set(result):
            raise FileError(f"{path} is not a result that a run wrote. Delete it.")
        if result["epochs"]:
            results.append(result)
    return results


def command(folder: Path) -> list[str]:
    """What runs the job in a folder, from `ROOT`, when `stopping.start` starts it."""
    return [sys.executable, "-m", "benchmarks.worker", str(folder)]


def one_by_one(folders: Sequence[Path], minutes: float | None) -> int:
    """A `Launcher`: each run when the one before has ended, and no more after a failure."""
    end = None if minutes is None else time.monotonic() + 60.0 * minutes
    for number, folder in enumerate(folders):
        if number and end is not None and time.monotonic() >= end:
            return INTERRUPTED
        code = _run(folder, end)
        if code:
            return code
    return 0


def _run(folder: Path, end: float | None) -> int:
    """One run; `end` is the time, by the monotonic clock, at which it stops at a checkpoint."""
    worker = start(command(folder), cwd=ROOT)
    interrupted = False
    try:
        while True:
            try:
                code = worker.wait(None if end is None else max(0.0, end - time.monotonic()))
                break
            except TimeoutExpired:
                end = None
            except KeyboardInterrupt:
                interrupted = True
            stop(worker)  # it writes its checkpoint, and is waited for
    finally:
        stop(worker)  # its own children may outlive it
    if code < 0:
        print_error(f"{folder.name} was killed: {signal.Signals(-code).name}.")
        return 128 - code
    return code or (INTERRUPTED if interrupted else 0)
