"""The compiled functions, and the tensors that they can work on.

On a GPU these are Triton kernels, and on a CPU functions in C. Both are compiled when a process
first needs them. If there is no Triton or no C compiler, or if `DROPOUT_POLICIES_COMPILE=0` forbids
compilation, PyTorch's own functions do the same work, one after another.
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

C_SOURCE = Path(__file__).with_name("steps.c")
"""The C source of a layer's steps. It includes the other C files."""

C_DEFINES: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
"""The dtypes that the functions in C support, with the compiler's arguments for each."""

ONE_THREAD_WARNING = (
    "dropout_policies runs its compiled functions on one thread, and uses PyTorch's own "
    "functions where several threads are faster: {reason}, through which they would use "
    "PyTorch's threads. torch.set_num_threads(1) runs without this warning."
)


def load_c_functions(dtype: torch.dtype) -> Any:
    """Load the functions in C for one dtype. None if they cannot be compiled."""
    return compiled_library(C_SOURCE, *C_DEFINES[dtype])


def has_c_functions() -> bool:
    """Whether there are functions in C for single precision."""
    return load_c_functions(torch.float32) is not None


def supports_c(x: Tensor) -> bool:
    """Whether functions in C can work on a tensor. They cannot if the tensor is empty."""
    return has_memory(x) and x.dtype in C_DEFINES and load_c_functions(x.dtype) is not None


def uses_torch_threads(dtype: torch.dtype) -> bool:
    """Whether functions in C run on as many threads as PyTorch's own functions."""
    if torch.get_num_threads() == 1 or load_c_functions(dtype).has_threads():
        return True
    compiled_library.warn_once(
        ONE_THREAD_WARNING, f"no OpenMP runtime in this process has {', '.join(OPENMP)}"
    )
    return False


@functools.cache
def load_triton_kernels() -> ModuleType | None:
    """Load the module of Triton kernels. None if there is no Triton or compilation is off."""
    if not compilation_allowed():
        return None
    try:
        from . import triton_kernels
    except ImportError as error:
        _logger.info("no Triton: %s", error)
        return None
    return triton_kernels


_compiled_kernels: dict[tuple[Any, ...], Any] = {}


def launch_kernel(name: str, like: Tensor, units: int, block: int, *arguments: Any) -> None:
    """Launch a Triton kernel on the device of `like`, which must be the current device.

    Triton inspects every argument before each launch, which takes longer than most of these kernels
    run. The kernels are compiled the same for all sizes and addresses. So a kernel that was already
    compiled for a dtype, and for the arguments that are None, is launched without that inspection.

    Args:
        name: the kernel's name.
        like: a tensor with the dtype of the kernel's arrays.
        units: how many units the kernel computes.
        block: how many units one program computes.
        arguments: tensors, integers, or None for an array that is left out.
    """
    is_none = tuple(argument is None for argument in arguments)
    key = (name, block, like.dtype, like.device.index, is_none)
    grid, compiled = (-(-units // block), 1, 1), _compiled_kernels.get(key)
    if compiled is not None:
        compiled[grid](*arguments, block)
        return
    compiled = getattr(load_triton_kernels(), name)[grid](*arguments, block)
    if compiled is not None:  # it is None in Triton's interpreter
        _compiled_kernels[key] = compiled


def describe() -> dict[str, Any]:
    """Describe what runs compiled in this process, for `dropout_policies.show_config`."""
    threads, functions = torch.get_num_threads(), load_c_functions(torch.float32)
    steps = "PyTorch's own functions"
    if functions is not None:
        one_thread = threads == 1 or not functions.has_threads()
        steps = f"functions in C, on {'1 thread' if one_thread else 'all threads'}"
    on_gpu = "no GPU"
    if torch.cuda.is_available():
        on_gpu = "PyTorch's own functions" if load_triton_kernels() is None else "Triton kernels"
    return {"threads": threads, "steps on a CPU": steps, "steps on a GPU": on_gpu}
