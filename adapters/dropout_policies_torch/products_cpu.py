"""A weight as `products.c` reads it, where steps on a CPU are taken by functions in C."""

from __future__ import annotations

from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from .compiled import in_c


def panels(weight: Tensor, bias: Tensor | None) -> Tensor:
    """A weight `[G, F]` in panels, `[⌈G/lanes⌉, 1 + F, lanes]`: its columns in groups, each below
    its part of the bias `[G]`, or zeros, and zeros where a group is not full."""
    functions, (columns, depth) = in_c(weight.dtype), weight.shape
    lanes = functions.lanes()
    found = weight.new_empty(-(-columns // lanes), 1 + depth, lanes)
    bias = None if bias is None else bias.contiguous()
    functions.lay_out(
        c_void_p(weight.data_ptr()),
        *map(c_int64, weight.stride()),
        c_void_p(None if bias is None else bias.data_ptr()),
        c_void_p(found.data_ptr()),
        *map(c_int64, (columns, depth, torch.get_num_threads())),
    )
    return found
