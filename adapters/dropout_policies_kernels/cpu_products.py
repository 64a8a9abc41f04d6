"""Products with the functions in C of `products.c`, and weights in the form that they read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from .compiled import load_c_functions, supports_c, uses_torch_threads
from .kernel_memory import check_memory, make_contiguous, resolve_bits

MAX_ROWS = 1024
"""The number of rows that are summed at once. With this number, the copy of some of their columns
stays in a core's cache."""


def supports(*rows: Tensor) -> bool:
    """Whether `sum_outer_products` takes these rows and is no slower than PyTorch's product."""
    return (
        all(supports_c(x) and x.dim() == 2 for x in rows)
        and not prefers_mkl()
        and uses_torch_threads(rows[0].dtype)
    )


@functools.cache
def prefers_mkl() -> bool:
    """Whether PyTorch's products of large matrices are the fastest.

    They are if PyTorch uses Intel's MKL on an Intel processor. It takes a fifth less time there
    than this module and oneDNN. On other processors, it takes up to twice as long.
    """
    functions = load_c_functions(torch.float32)
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_mkl and functions is not None and bool(functions.is_intel())


def pack_parts(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """Pack weights `[G, F]` of one shape in panels, one weight after the other.

    See `pack_in_panels`.
    """
    lanes, (columns, depth) = load_c_functions(weights[0].dtype).lanes(), weights[0].shape
    each = -(-columns // lanes)
    panels = weights[0].new_empty(len(weights) * each, 1 + depth, lanes)
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        pack_in_panels(weight, bias, panels[number * each : (number + 1) * each])
    return panels


def pack_in_panels(weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Pack a weight `[G, F]` in panels, `[⌈G/lanes⌉, 1 + F, lanes]`.

    A panel holds a group of the G columns that the product has. Its first row is the part of the
    bias `[G]` for them, or zeros. A group that is not full is padded with zeros.

    Args:
        weight: the weight.
        bias: the bias, or None.
        out: contiguous memory for the panels. None: allocate it.

    Raises:
        RuntimeError: the bias has a wrong shape or dtype.
    """
    weight = resolve_bits(weight)
    functions, (columns, depth) = load_c_functions(weight.dtype), weight.shape
    lanes = functions.lanes()
    shape = (-(-columns // lanes), 1 + depth, lanes)
    panels = weight.new_empty(shape) if out is None else check_memory("panels", out, shape, weight)
    if bias is not None:
        bias = check_memory("bias", make_contiguous(bias), (columns,), weight)
    functions.pack_in_panels(
        c_void_p(weight.data_ptr()),
        *map(c_int64, weight.stride()),
        c_void_p(None if bias is None else bias.data_ptr()),
        c_void_p(panels.data_ptr()),
        *map(c_int64, (columns, depth, torch.get_num_threads())),
    )
    return panels


def sum_outer_products(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum the outer products of the rows of left `[N, G]` and right `[N, F]`.

    Args:
        left: the rows that form the rows of the sum.
        right: the rows that form its columns.
        out: contiguous memory for the sum. None: allocate it.

    Returns:
        The sum, `[G, F]`.

    Raises:
        RuntimeError: the two differ in the number of rows or in dtype.
    """
    check_memory("rows", right, (len(left), right.shape[1]), left, contiguous=False)
    left = resolve_bits(left)
    rows_are_contiguous = left.stride(1) == 1 and left.stride(0) >= left.shape[1]
    left = left if rows_are_contiguous else left.contiguous()
    shape = (left.shape[1], right.shape[1])
    total = left.new_empty(shape) if out is None else check_memory("sum", out, shape, left)
    threads, count = torch.get_num_threads(), -(-len(left) // MAX_ROWS)
    chunks = zip(left.chunk(count), right.chunk(count), strict=True)
    for number, (some_left, some_right) in enumerate(chunks):
        panels = pack_in_panels(some_right.t(), None)
        load_c_functions(left.dtype).sum_outer_products(
            c_void_p(some_left.data_ptr()),
            *map(c_int64, (some_left.stride(0), some_left.shape[1])),
            c_void_p(panels.data_ptr()),
            c_int64(len(some_left)),
            c_void_p(total.data_ptr()),
            *map(c_int64, (right.shape[1], number, threads)),
        )
    return total
