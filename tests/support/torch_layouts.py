"""Tensors that lie in memory in unusual ways, and tensors that no recurrent layer can take."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Layout = Callable[[Tensor], Tensor]


class Subclass(torch.Tensor):
    """A tensor of a user's own class."""


def _surrounded(value: Tensor, before: int, step: int) -> Tensor:
    """The value inside a larger array of NaNs, of which no element may be read."""
    room = value.new_full([before + step * size + 1 for size in value.shape], torch.nan)
    part = room[tuple(slice(before, before + step * size, step) for size in value.shape)]
    return part.copy_(value)


def _reversed_strides(value: Tensor) -> Tensor:
    """As a matrix that was transposed: the first dimension's elements lie side by side."""
    dims = tuple(reversed(range(value.dim())))
    return value.permute(dims).contiguous().permute(dims)


def _first_two_swapped(value: Tensor) -> Tensor:
    """As what is stored with the batch first."""
    if value.dim() < 2:
        return _surrounded(value, 1, 2)
    return value.transpose(0, 1).contiguous().transpose(0, 1)


def _misaligned(value: Tensor) -> Tensor:
    """Contiguous, but one element beyond where memory was allocated."""
    return torch.cat([value.new_full((1,), torch.nan), value.flatten()])[1:].view(value.shape)


def _negative(value: Tensor) -> Tensor:
    """Memory that holds -value, and a bit that says so; two elements apart."""
    return torch.complex(torch.zeros_like(value), -value).conj().imag


def _negative_contiguous(value: Tensor) -> Tensor:
    """The same in one piece. Private, because nothing public makes one."""
    return torch._neg_view(-value)


def _overlapping(value: Tensor) -> Tensor:
    """Rows that share elements with the next row, as a sliding window's."""
    flat, width = value.flatten(), value.shape[-1]
    strides, step = [], 1
    for size in reversed(value.shape):
        strides.append(step)
        step += (size - 1) // max(width // 2, 1)
    strides.reverse()
    return flat.as_strided(value.shape, strides)


def _odd_strides(value: Tensor) -> Tensor:
    """Contiguous; but dimensions of one element have strides that nothing needs."""
    value = value.contiguous()
    strides = [
        7 if size == 1 else stride for size, stride in zip(value.shape, value.stride(), strict=True)
    ]
    return value.as_strided(value.shape, strides)


LAYOUTS: dict[str, Layout] = {
    "contiguous": lambda value: value,
    "reversed strides": _reversed_strides,
    "first two swapped": _first_two_swapped,
    "every other element": lambda value: _surrounded(value, 1, 2),
    "part of a larger array": lambda value: _surrounded(value, 1, 1),
    "misaligned": _misaligned,
    "odd strides": _odd_strides,
    "negative bit": _negative,
    "negative bit, contiguous": _negative_contiguous,
    "parameter": lambda value: nn.Parameter(value, requires_grad=False),
    "subclass": lambda value: value.as_subclass(Subclass),
}
"""Ways in which the same numbers can lie in memory."""

REPEATED: dict[str, Layout] = {
    "expanded": lambda value: value[:1].expand_as(value),
    "one element expanded": lambda value: (
        value.flatten()[:1].view([1] * value.dim()).expand_as(value)
    ),
    "overlapping": _overlapping,
}
"""Ways in which several elements share memory; the numbers are other ones then."""

ALL_LAYOUTS = LAYOUTS | REPEATED


def laid_out(value: Tensor, layout: str, requires_grad: bool = False) -> Tensor:
    """A leaf with the numbers of `value`, or with some of them again and again, in a layout.

    Args:
        value: contiguous.
        layout: one of `ALL_LAYOUTS`. Half precision has no negative bit here, and stays as it is.
        requires_grad: whether the leaf does.
    """
    if layout == "negative bit" and value.dtype not in (torch.float32, torch.float64):
        layout = "negative bit, contiguous"
    found = ALL_LAYOUTS[layout](value.detach().clone())
    leaf = found if isinstance(found, nn.Parameter) else found.detach()
    return leaf.requires_grad_(requires_grad)


def plain(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The numbers of a tensor in memory of their own, contiguous and without any bits."""
    bare = value.detach().as_subclass(Tensor).resolve_conj().resolve_neg()
    return bare.to(dtype or bare.dtype, copy=True).contiguous()


def _last_padded(value: Tensor) -> Tensor:
    return torch.cat([value, value[..., :1]], -1)


def _quantized(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)


def _nested(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([value])


def _mkldnn(value: Tensor) -> Tensor:
    return (value.float() if value.dtype == torch.float64 else value).to_mkldnn()


def _csr(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value.to_sparse_csr() if value.dim() > 1 else value.to_sparse()


def _other_float(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.dtype == torch.float64 else torch.float64)


FAULTS: dict[str, Callable[[Tensor], Any]] = {
    "meta": lambda value: value.to("meta"),
    "one column more": _last_padded,
    "one column fewer": lambda value: value[..., :-1],
    "no columns": lambda value: value[..., :0],
    "one column": lambda value: value[..., :1],
    "one row more": lambda value: torch.cat([value, value[:1]]),
    "one row fewer": lambda value: value[:-1],
    "no rows": lambda value: value[:0],
    "one row": lambda value: value[:1],
    "twice the rows": lambda value: torch.cat([value, value]),
    "transposed": lambda value: value.transpose(0, -1),
    "flat": lambda value: value.flatten(),
    "one dimension more": lambda value: value[None],
    "one dimension fewer": lambda value: value[0],
    "a number": lambda value: value.sum(),
    "other float": _other_float,
    "half": lambda value: value.half(),
    "bfloat16": lambda value: value.bfloat16(),
    "integers": lambda value: value.long(),
    "booleans": lambda value: value > 0,
    "complex": lambda value: torch.complex(value, value),
    "sparse": lambda value: value.to_sparse(),
    "compressed sparse": _csr,
    "quantized": _quantized,
    "mkldnn": _mkldnn,
    "nested": _nested,
    "NumPy": lambda value: value.numpy(),
    "list": lambda value: value.tolist(),
    "None": lambda _: None,
}
"""What can be wrong with a tensor. Some of it is harmless in some places."""


def _strided(mask: np.ndarray) -> np.ndarray:
    room = np.full([2 * size + 1 for size in mask.shape], np.nan, mask.dtype)
    part = room[tuple(slice(1, None, 2) for _ in mask.shape)]
    part[...] = mask
    return part


def _read_only(mask: np.ndarray) -> np.ndarray:
    made = mask.copy()
    made.flags.writeable = False
    return made


MASK_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "contiguous": lambda mask: mask,
    "columns first": np.asfortranarray,
    "against its order": lambda mask: np.flip(np.flip(mask).copy()),
    "every other element": _strided,
    "read only": _read_only,
    "other byte order": lambda mask: mask.astype(mask.dtype.newbyteorder()),
    "tensor": torch.from_numpy,
}
"""How masks for `dp.replay` can lie in memory."""
