"""The one check before compiled code.

Functions in C and Triton kernels get addresses. A tensor whose device, dtype, shape or layout they
do not expect would crash the process or give wrong numbers.

`is_plain` and `has_memory` choose the path: an unusual tensor takes PyTorch's own functions.
`make_contiguous` prepares a tensor, and `check_memory` is the final check.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PLAIN_TYPES = frozenset({Tensor, nn.Parameter})
_STRIDED = torch.strided


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is an ordinary array with values on its device.

    A tensor subclass is not: tracers and distributed tensors are subclasses. Neither is a tensor
    with a sparse, nested, quantized or oneDNN layout.
    """
    return (
        type(x) in _PLAIN_TYPES
        and x.layout is _STRIDED
        and not (x.is_nested or x.is_quantized or x.is_meta)
    )


def has_memory(x: Tensor) -> bool:
    """Whether a tensor has elements in the CPU's memory, where functions in C can read them."""
    if not x.is_cpu or not is_plain(x):
        return False
    try:
        return x.data_ptr() != 0
    except RuntimeError:  # a tensor of torch.func has no memory of its own
        return False


def resolve_bits(x: Tensor) -> Tensor:
    """Resolve the conjugate and the negative bit, so that the tensor's memory holds its values."""
    return x.resolve_conj().resolve_neg()


def make_contiguous(x: Tensor) -> Tensor:
    """Return the tensor, contiguous and with these bits resolved."""
    return resolve_bits(x).contiguous()


def check_memory(
    name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, contiguous: bool = True
) -> Tensor:
    """Make sure that compiled code can take a tensor, and return the tensor.

    Args:
        name: the name that errors use for the tensor.
        x: the tensor.
        shape: the shape that the code expects.
        like: a tensor with the device and the dtype that the code expects.
        contiguous: whether the code expects a contiguous tensor.

    Raises:
        RuntimeError: the tensor is not what the code expects.
    """
    if (
        type(x) in _PLAIN_TYPES
        and x.layout is _STRIDED
        and x.shape == shape
        and x.dtype is like.dtype
        and x.device == like.device
        and (not contiguous or x.is_contiguous())
        and not x.is_neg()
        and not x.is_conj()
    ):
        return x
    dense = "dense " * contiguous
    bits = " negated" * x.is_neg() + " conjugated" * x.is_conj()
    strides = list(x.stride()) if x.layout is torch.strided else x.layout
    raise RuntimeError(
        f"{name}: expected a {dense}tensor of shape {list(shape)}, {like.dtype}, on {like.device}. "
        f"Received: {type(x).__name__} of shape {list(x.shape)}, {x.dtype}, on {x.device}, strides "
        f"{strides}{bits}"
    )
