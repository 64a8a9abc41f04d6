"""What compiled functions can work on: on a GPU those by Triton, made when a process first needs
them, and in the CPU's memory those in C (`dropout_policies.compiled`).

Where there is no Triton, or `DROPOUT_POLICIES_COMPILE=0` says that none may run, PyTorch's own
functions do the same, one after another.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dropout_policies.adapter import (
    OPENMP,
    compilation_allowed,
    compiled_library,
)

from .kernel_memory import has_memory

_logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fused.c")
"""A layer's steps in C, and with them the products of `products.c` and the runs of `runs.c`."""

TYPES: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
"""What is defined in the source for each type that it can be had for."""

ONE_THREAD = (
    "dropout_policies runs its compiled functions on one thread, and PyTorch's own functions where "
    "many threads are worth more: {reason}, through which they would use PyTorch's threads. "
    "torch.set_num_threads(1) runs without this warning."
)


def in_c(dtype: torch.dtype) -> Any:
    """The functions of a layer's steps in C, as they are for one type; None without a compiler."""
    return compiled_library(SOURCE, *TYPES[dtype])


def takes(x: Tensor) -> bool:
    """Whether the functions in C can be had for a tensor; not for an empty one."""
    return has_memory(x) and x.dtype in TYPES and in_c(x.dtype) is not None


def has_threads(dtype: torch.dtype) -> bool:
    """Whether functions in C run on as many threads as PyTorch's own do."""
    if torch.get_num_threads() == 1 or in_c(dtype).has_threads():
        return True
    compiled_library.warn_once(
        ONE_THREAD, f"no OpenMP runtime in this process has {', '.join(OPENMP)}"
    )
    return False


@functools.cache
def kernels() -> ModuleType | None:
    """Triton's kernels; None where they cannot be had."""
    if not compilation_allowed():
        return None
    try:
        from . import triton_kernels
    except ImportError as error:
        _logger.info("no Triton: %s", error)
        return None
    return triton_kernels


_started: dict[tuple[Any, ...], Any] = {}


def start(name: str, like: Tensor, units: int, block: int, *arguments: Any) -> None:
    """Start one of the kernels, on the device of `like`, which is to be the current one.

    Triton looks at every argument before each start, which takes longer than most of these kernels
    run. They are compiled the same whatever sizes and addresses are, so that what was compiled for
    this type and these absences starts again without that look.

    Args:
        name: the kernel's.
        like: a tensor of the type that its arrays are of.
        units: how many there are to compute.
        block: how many of them one program takes.
        arguments: tensors, integers, or None for what is not there.
    """
    absent = tuple(argument is None for argument in arguments)
    key = (name, block, like.dtype, like.device.index, absent)
    grid, known = (-(-units // block), 1, 1), _started.get(key)
    if known is not None:
        known[grid](*arguments, block)
        return
    found = getattr(kernels(), name)[grid](*arguments, block)
    if found is not None:  # as it is where Triton interprets
        _started[key] = found


def describe() -> dict[str, Any]:
    """What runs compiled in this process, for `dropout_policies.show_config`."""
    threads = torch.get_num_threads()
    steps = "PyTorch's own functions"
    if in_c(torch.float32) is not None:
        on = "1 thread" if threads == 1 or not in_c(torch.float32).has_threads() else "all threads"
        steps = f"functions in C, on {on}"
    on_gpu = "no GPU"
    if torch.cuda.is_available():
        on_gpu = "PyTorch's own functions" if kernels() is None else "Triton kernels"
    return {"threads": threads, "steps on a CPU": steps, "steps on a GPU": on_gpu}
