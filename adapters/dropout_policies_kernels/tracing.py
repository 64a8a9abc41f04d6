"""What observes a call: tracers, graphs, torch.func's transformations and dispatch modes.

No tracer sees what functions in C write, and a graph holds a number that Python counts as a
constant. PyTorch has hardly any public API to detect this. This module holds all the private names
that the detection needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def in_trace() -> bool:
    """Whether `torch.jit.trace` records operations, as for the older ONNX exporter."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def in_make_fx() -> bool:
    """Whether the user's `make_fx` records operations, and not torch.compile or torch.export."""
    if not has_dispatch_mode() or torch.compiler.is_compiling():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def export_tracer() -> Any:
    """Return the tracer of the program that `torch.export` is making. None if there is none."""
    if not torch.compiler.is_exporting() or torch.compiler.is_dynamo_compiling():
        return None
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode()


def shared_memory(array: npt.NDArray[Any]) -> Tensor:
    """Make a tensor that shares an array's memory, even if a tracer would make it a constant."""
    with torch.inference_mode(False):  # an inference tensor could not be changed outside that mode
        if not has_dispatch_mode():
            return torch.from_numpy(array)
        from torch.utils._python_dispatch import _disable_current_modes

        with _disable_current_modes():
            return torch.from_numpy(array)


def has_dispatch_mode() -> bool:
    """Whether a `TorchDispatchMode` handles every operation. It does not see writes by C code."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_observed() -> bool:
    """Whether a graph, a dispatch mode or a trace must see every operation."""
    return torch.compiler.is_compiling() or has_dispatch_mode() or in_trace()


def in_torch_func() -> bool:
    """Whether the call runs under a transformation of torch.func."""
    return torch._C._functorch.maybe_current_level() is not None


def is_vmapped(tensors: Iterable[Any]) -> bool:
    """Whether `torch.func.vmap` batches one of these tensors, so that one call runs for many.

    jacfwd and hessian batch only derivatives. Each call under them is one call.
    """
    if not in_torch_func():
        return False
    functorch = torch._C._functorch
    for x in tensors:
        while isinstance(x, Tensor) and functorch.is_functorch_wrapped_tensor(x):
            if functorch.is_batchedtensor(x):
                return True
            x = functorch.get_unwrapped(x)
    return False


def has_batched_gradients(gradients: Iterable[Tensor]) -> bool:
    """Whether gradients are batched, and so have no memory of their own.

    `is_grads_batched` batches them, and so does torch.func around `torch.autograd.grad`.
    """
    functorch = torch._C._functorch
    batched = (functorch.is_legacy_batchedtensor, functorch.is_functorch_wrapped_tensor)
    return any(is_batched(gradient) for is_batched in batched for gradient in gradients)


def in_backward_pass() -> bool:
    """Whether the call runs during a backward pass of autograd."""
    return torch._C._current_graph_task_id() != -1


def retains_graph() -> bool:
    """Whether the current backward pass retains its graph for another pass."""
    return torch._C._autograd._get_current_graph_task_keep_graph()


def in_cuda_graph() -> bool:
    """Whether a CUDA graph is capturing the current operations."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return initialized and torch.cuda.is_current_stream_capturing()
