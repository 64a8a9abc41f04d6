"""Runs as tasks of Ray: side by side on this machine, or on a cluster that RAY_ADDRESS names."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from .errors import BenchmarkError
from .files import read_json, write_atomically
from .job import FILE
from .launch import ROOT, Launcher, command
from .locks import WORKER, check_unlocked
from .output import print_error
from .processes import INTERRUPTED, LAST_SECONDS
from .stopping import signals_interrupt, start, stop

RETRIES = 3
"""How often a run whose process dies is started again; it goes on from its checkpoint."""


STARTED, STOP = "started", "stop"
"""Files in a run's folder: that it has been started in this launch, and that it is to stop."""


class RunDiedError(RuntimeError):
    """A run's process was killed."""


def on_ray(cores: int, gpus: float) -> Launcher:
    """A `Launcher` that has as many runs side by side as there are cores, and GPUs.

    Args:
        cores: how many a run takes.
        gpus: how many GPUs a run takes, or which part of one.

    Raises:
        ModuleNotFoundError: there is no Ray.
    """
    import ray

    @ray.remote(
        num_cpus=cores, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=[RunDiedError]
    )  # Ray sets OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES by them
    def run(folder: Path, seconds: float | None) -> int:
        return _run(folder, seconds)

    def launch(folders: Sequence[Path], minutes: float | None) -> int:
        for folder, mark in product(folders, (STARTED, STOP)):
            (folder / mark).unlink(missing_ok=True)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unasked
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # no two lines of an epoch are the same
        ray.init(include_dashboard=False, ignore_reinit_error=True)
        seconds = None if minutes is None else 60.0 * minutes
        tasks: list[Any] = []
        try:
            with signals_interrupt():  # Ray has just put a handler of its own there
                tasks.extend(run.options(name=each.name).remote(each, seconds) for each in folders)
                codes = ray.get(tasks)
        except KeyboardInterrupt:
            # Not by `ray.cancel`, which does what it can and no more.
            for folder in folders:
                (folder / STOP).touch()
            ray.wait(tasks, num_returns=len(tasks))
            return INTERRUPTED
        return next((code for code in codes if code), 0)

    return launch


def _run(folder: Path, seconds: float | None) -> int:
    """One run to its end, on the machine that Ray chose; a second time, from its checkpoint."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    if (folder / STOP).exists():
        return INTERRUPTED
    if (folder / STARTED).exists():
        try:
            # Where the task died and not its run, that is writing its checkpoint.
            check_unlocked(folder, WORKER, LAST_SECONDS)
            job = read_json(folder / FILE)
            write_atomically(folder / FILE, json.dumps(job | {"resume": True}))
        except BenchmarkError as error:
            print_error(error)
            return 1
    (folder / STARTED).touch()
    process = start(command(folder), cwd=ROOT)
    try:
        while process.poll() is None and time.monotonic() < end and not (folder / STOP).exists():
            time.sleep(0.2)
    finally:
        stop(process)  # it writes its checkpoint
    code = process.wait()
    if code < 0:
        raise RunDiedError(f"{folder.name} was killed: {signal.Signals(-code).name}")
    return code
