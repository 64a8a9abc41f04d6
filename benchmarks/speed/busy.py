"""Training steps on a machine that is busy: a second process trains the same layers meanwhile."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from .jobs import IN_LOOP, Job
from .timing import Seconds, interleaved
from .torch_layers import layer, stock, training_step, with_dropout


def steps(job: Job) -> dict[str, Seconds]:
    """Of each policy: its step and that of what it is held against, alone and beside a second
    process that takes the same steps on as many threads."""
    return {
        policy: interleaved(_contestants(job, policy), job.seconds / 2 / len(job.policies))
        | {
            f"{name}, busy": seconds
            for name, seconds in _beside_another(job, policy).items()
        }
        for policy in job.policies
    }  # fmt: skip


def _contestants(job: Job, policy: str) -> dict[str, Callable[[], None]]:
    other = stock(job) if policy in IN_LOOP else with_dropout(job, policy)
    modules = {"stock": other, "policy": layer(job, policy)}
    return {name: training_step(each, job.shape, job.device) for name, each in modules.items()}


def _beside_another(job: Job, policy: str) -> Seconds:
    context = multiprocessing.get_context("spawn")
    started: Any = context.Event()
    other = context.Process(target=_keep_busy, args=(job, policy, started), daemon=True)
    other.start()
    try:
        while not started.wait(timeout=1.0):
            if not other.is_alive():
                raise RuntimeError(f"the second process ended with {other.exitcode}")
        return interleaved(_contestants(job, policy), job.seconds / 2 / len(job.policies))
    finally:
        other.terminate()
        other.join()


def _keep_busy(job: Job, policy: str, started: Any) -> None:
    """Take the same steps in turns, until the process is ended."""
    contestants = _contestants(job, policy)
    while True:
        for step in contestants.values():
            step()
        started.set()
