"""The most memory that a step holds at once."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .jobs import DROPPED, IN_LOOP, Job
from .torch_layers import evaluation, layer, planned, stock, training_step, with_dropout


def peaks(job: Job) -> dict[str, dict[str, int]]:
    """Bytes of a policy, of the stock layer, and of that with dropout; and of the masks' elements.

    Gradients are among them, weights and input are not.
    """
    (policy,) = job.policies
    modules: dict[str, Callable[[], nn.Module]] = {
        "stock": lambda: stock(job),
        policy: lambda: layer(job, policy),
    }
    if policy not in IN_LOOP:
        modules[DROPPED] = lambda: with_dropout(job, policy)
    found = {
        name: {
            "training": peak(training_step(make(), job.shape, job.device), job.device),
            "evaluation": peak(evaluation(make(), job.shape, job.device), job.device),
        }
        for name, make in modules.items()
    }
    return found | {"masks": {"elements": _elements(job, policy)}}


def _elements(job: Job, policy: str) -> int:
    """How many elements the masks of a step have together."""
    shapes = [mask.shape for mask in planned(job, policy).values()]
    return sum(steps * batch * width for steps, batch, width in shapes)


def peak(step: Callable[[], None], device: str) -> int:
    """How far above what is there before a step its allocations go."""
    step()  # what is allocated once
    step()
    gc.collect()  # what is freed in the step is to be the step's
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        held += change["args"]["Bytes"]
        most = max(most, held)
    return most
