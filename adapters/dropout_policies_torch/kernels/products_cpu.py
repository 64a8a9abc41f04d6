"""Products by functions in C, `products.c`, and a weight as they read it."""

from __future__ import annotations

from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from .compiled import has_threads, in_c, takes
from .kernel_memory import check, dense, resolved

ROWS = 1024
"""Rows that are summed up at once, so that what is copied of them stays near a core."""


def fits(*rows: Tensor) -> bool:
    """Whether `outer` can have such rows."""
    return all(takes(x) and x.dim() == 2 for x in rows) and has_threads(rows[0].dtype)


def panels(weight: Tensor, bias: Tensor | None) -> Tensor:
    """A weight `[G, F]` in panels, `[⌈G/lanes⌉, 1 + F, lanes]`: its columns in groups, each below
    its part of the bias `[G]`, or zeros, and zeros where a group is not full.

    Raises:
        RuntimeError: the bias is not one of such a weight.
    """
    weight = resolved(weight)
    functions, (columns, depth) = in_c(weight.dtype), weight.shape
    lanes = functions.lanes()
    found = weight.new_empty(-(-columns // lanes), 1 + depth, lanes)
    bias = None if bias is None else check("bias", dense(bias), (columns,), weight)
    functions.lay_out(
        c_void_p(weight.data_ptr()),
        *map(c_int64, weight.stride()),
        c_void_p(None if bias is None else bias.data_ptr()),
        c_void_p(found.data_ptr()),
        *map(c_int64, (columns, depth, torch.get_num_threads())),
    )
    return found


def outer(d: Tensor, x: Tensor) -> Tensor:
    """Of rows `[N, G]` and `[N, F]`, the sum of each two's outer product `[G, F]`.

    Raises:
        RuntimeError: the rows are not as many, or of another type.
    """
    check("rows", x, (len(d), x.shape[1]), d, contiguous=False)
    d = resolved(d)
    d = d if d.stride(1) == 1 and d.stride(0) >= d.shape[1] else d.contiguous()
    found = d.new_empty(d.shape[1], x.shape[1])
    threads, count = torch.get_num_threads(), -(-len(d) // ROWS)
    for number, (some, others) in enumerate(zip(d.chunk(count), x.chunk(count), strict=True)):
        laid = panels(others.t(), None)
        in_c(d.dtype).outer(
            c_void_p(some.data_ptr()),
            *map(c_int64, (some.stride(0), some.shape[1])),
            c_void_p(laid.data_ptr()),
            c_int64(len(some)),
            c_void_p(found.data_ptr()),
            *map(c_int64, (x.shape[1], number, threads)),
        )
    return found
