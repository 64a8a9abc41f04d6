"""Training steps on a GPU: every policy beside the stock layer, as they run and in CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .jobs import CAPTURED, IN_LOOP, Job, same_dropout_of
from .timing import Seconds, interleaved
from .torch_layers import layer, stock, training_step, with_dropout

WARM_UPS = 3


def steps(job: Job) -> Seconds:
    """All policies and the stock layer, in one process: most of a job's time would be its start."""
    torch.set_float32_matmul_precision("high")  # as cuDNN has it in the stock layer
    modules: dict[str, nn.Module] = {"stock": stock(job)}
    for policy in job.policies:
        modules[policy] = layer(job, policy)
        if policy not in IN_LOOP:
            modules[same_dropout_of(policy)] = with_dropout(job, policy)
    made: dict[str, Callable[[], None]] = {}
    for name, module in modules.items():
        made[name] = training_step(module, job.shape, job.device)
        made[name + CAPTURED] = _captured(training_step(module, job.shape, job.device, wait=False))
    return interleaved(made, job.seconds)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay
