"""One run in several processes of PyTorch's, by torchrun, or on several devices of JAX's, by Keras.

PyTorch's processes each take an equal share of the rows of every batch, and agree on all that is
not the same for each. A run that is in one process asks the same, and is alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import RunConfig
from .errors import BenchmarkError

if TYPE_CHECKING:
    from torch import Tensor, nn

INTERRUPTED = 130
"""The exit code of a run that was stopped at a checkpoint."""

LAST_SECONDS = 600
"""How long processes that are to stop may take: before the checkpoint there may be a validation."""


class ProcessesError(BenchmarkError):
    """A number of processes that a run cannot have."""


def check(count: int, backends: Sequence[str], batch: int) -> None:
    """Refuse what cannot be shared.

    Raises:
        ProcessesError: a backend runs in one process alone, or the rows of a batch have no equal
            shares.
    """
    alone = [backend for backend in backends if backend not in ("torch", "jax")]
    if count > 1 and alone:
        raise ProcessesError(
            f"{alone[0]} runs in one process. Received: --processes {count} with --backend "
            f"{alone[0]}. Write --backend torch or --backend jax."
        )
    if batch % count:
        fitting = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise ProcessesError(
            f"A batch of {batch} rows has no equal shares for {count}. Received: --processes "
            f"{count}. Write one of {fitting}."
        )


def launches_processes(config: RunConfig, count: int) -> bool:
    """Whether a run is to be in several processes, and this is none of them."""
    return config.backend == "torch" and count > 1 and "TORCHELASTIC_RUN_ID" not in os.environ


def torchrun(count: int, module: str, *arguments: str) -> int:
    """Run a module in so many processes; the exit code of the first that failed, or 0."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    threads = max(1, (os.cpu_count() or 1) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(LAST_SECONDS))
    try:
        run.main(["--standalone", "--nproc-per-node", str(count), "-m", module, *arguments])
    except SignalException:  # passed on to all of them, and waited for
        return INTERRUPTED
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode
    return 0


@contextmanager
def process_group(config: RunConfig, count: int) -> Iterator[None]:
    """What runs in it is one of the processes that torchrun started, or on so many devices of JAX.

    Raises:
        ProcessesError: there are no equal shares, or not so many devices.
    """
    if config.backend == "torch" and "TORCHELASTIC_RUN_ID" in os.environ:
        import torch
        from torch import distributed

        distributed.init_process_group()  # gloo for what is on a CPU, NCCL on GPUs
        check(distributed.get_world_size(), [config.backend], config.recipe.batch)
        if torch.cuda.is_available():
            _check_device_count(torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"]))
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        yield
        distributed.destroy_process_group()  # not after an error: the others may not come to it
        return
    if count > 1:
        # Both are read when they are first imported.
        os.environ["KERAS_BACKEND"] = config.backend
        flags = (os.environ.get("XLA_FLAGS"), f"--xla_force_host_platform_device_count={count}")
        os.environ["XLA_FLAGS"] = " ".join(filter(None, flags))
        from keras import distribution

        devices = distribution.list_devices()
        _check_device_count(len(devices), count)
        distribution.set_distribution(distribution.DataParallel(devices=devices[:count]))
    yield


def _check_device_count(devices: int, count: int) -> None:
    if devices < count:
        raise ProcessesError(
            f"{count} processes or devices are asked for, and this machine has {devices}. "
            f"Received: --processes {count}. Write --processes {devices} or fewer."
        )


def _group() -> Any:
    """`torch.distributed`, if this is one of several processes; without PyTorch it is none."""
    group = sys.modules.get("torch.distributed")
    several = group is not None and group.is_initialized() and group.get_world_size() > 1
    return group if several else None


def process_count() -> int:
    """How many processes, or devices, the run is on."""
    if group := _group():
        return int(group.get_world_size())
    keras = sys.modules.get("keras")
    spread = None if keras is None else keras.distribution.distribution()
    return 1 if spread is None else int(spread.device_mesh.devices.size)


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    group = _group()
    return group is None or group.get_rank() == 0


def own_rows(batch: int) -> slice:
    """Which of a batch's rows are this process's."""
    group = _group()
    if group is None:
        return slice(0, batch)
    share = batch // group.get_world_size()
    return slice(share * group.get_rank(), share * (group.get_rank() + 1))


def as_distributed(model: nn.Module) -> nn.Module:
    """A model as training calls it: its gradients are the mean of all processes'."""
    if _group() is None:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model)


@contextmanager
def fail_together() -> Iterator[None]:
    """What one process may fail at: all of them then have an error, and none waits for one that has
    ended."""
    failure = None
    try:
        yield
    except BenchmarkError as error:
        failure = error
    (failed,) = any_process(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise BenchmarkError("another process of this run has failed.")


def any_process(*claims: bool) -> list[bool]:
    """Each thing said, true for all processes where one says it."""
    group = _group()
    if group is None:
        return list(claims)
    import torch

    flags = torch.tensor(claims, dtype=torch.int32)
    group.all_reduce(flags, group.ReduceOp.MAX)
    return [bool(flag) for flag in flags]


def sum_over_processes(figure: Tensor) -> float:
    """A figure of this process's rows, summed over all processes."""
    figure = figure.detach().clone()
    if group := _group():
        group.all_reduce(figure)
    return figure.item()


def gather_rows(part: Tensor, axis: int) -> np.ndarray:
    """All rows of an array, from what each process has of them on `axis`."""
    import torch

    parts = [part]
    if group := _group():
        parts = [torch.empty_like(part) for _ in range(group.get_world_size())]
        group.all_gather(parts, part)
    return torch.cat(parts, axis).cpu().numpy()
