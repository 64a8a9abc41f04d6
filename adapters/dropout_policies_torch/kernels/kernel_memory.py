"""The one gate before compiled code: functions in C and Triton's kernels are given addresses, so a
tensor of another device, type, shape or layout than they expect would crash the process or give
wrong numbers.

`is_plain` and `has_memory` choose: what is unusual takes PyTorch's own functions. `dense` prepares
a tensor, and `check` has the last word.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PLAIN = frozenset({Tensor, nn.Parameter})
_STRIDED = torch.strided


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is an ordinary array: no subclass, which tracers and distributed tensors
    are, no sparse, nested, quantized or oneDNN layout, and with values on its device."""
    return (
        type(x) in _PLAIN
        and x.layout is _STRIDED
        and not (x.is_nested or x.is_quantized or x.is_meta)
    )


def has_memory(x: Tensor) -> bool:
    """Whether a tensor has elements in the CPU's memory, where functions in C find them."""
    if not x.is_cpu or not is_plain(x):
        return False
    try:
        return x.data_ptr() != 0
    except RuntimeError:  # a tensor of torch.func has no memory of its own
        return False


def resolved(x: Tensor) -> Tensor:
    """A tensor whose memory holds its values: one with the conjugate or the negative bit holds
    values that are still to be changed."""
    return x.resolve_conj().resolve_neg()


def dense(x: Tensor) -> Tensor:
    """A tensor whose memory holds its values, one after another."""
    return resolved(x).contiguous()


def check(
    name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, contiguous: bool = True
) -> Tensor:
    """A tensor that compiled code may be given.

    Args:
        name: how errors call it.
        x: the tensor.
        shape: the shape that the code expects.
        like: a tensor on the device and of the type that the code expects.
        contiguous: whether the code expects the elements one after another.

    Raises:
        RuntimeError: it is another tensor than the code expects.
    """
    if (
        type(x) in _PLAIN
        and x.layout is _STRIDED
        and x.shape == shape
        and x.dtype is like.dtype
        and x.device == like.device
        and (not contiguous or x.is_contiguous())
        and not x.is_neg()
        and not x.is_conj()
    ):
        return x
    how = "dense " * contiguous
    bits = " negated" * x.is_neg() + " conjugated" * x.is_conj()
    strides = list(x.stride()) if x.layout is torch.strided else x.layout
    raise RuntimeError(
        f"{name}: expected a {how}tensor of shape {list(shape)}, {like.dtype}, on {like.device}. "
        f"Received: {type(x).__name__} of shape {list(x.shape)}, {x.dtype}, on {x.device}, strides "
        f"{strides}{bits}"
    )
