"""Products with a weight, by the fastest library of the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from . import cpu_products
from .kernel_memory import has_memory, make_contiguous, resolve_bits

MIN_PACKED_ENTRIES = 2**19
"""Entries from which on a weight is worth being packed for oneDNN."""


def _supports_onednn(*tensors: Tensor | None) -> bool:
    """Whether oneDNN computes a product, as it does in PyTorch's own recurrent layers.

    On the CPU, `torch.mm` leaves single precision to another library, which on some machines takes
    twice as long for the product of a step. oneDNN's has no public name; those used here are what
    PyTorch's own compiler writes.
    """
    return (
        all(x is None or (has_memory(x) and x.dtype == torch.float32) for x in tensors)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # oneDNN reads a weight that is a part of a larger array in a far slower way.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    if bias is not None:
        bias = make_contiguous(bias)  # oneDNN reads it as if it were
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


def _pack_for_onednn(weight: Tensor, rows: int, bias: Tensor | None = None) -> Tensor | None:
    """The weight as oneDNN reads it in products with that many rows; None where it does not pay."""
    if weight.numel() < MIN_PACKED_ENTRIES or not _supports_onednn(weight, bias):
        return None
    weight = make_contiguous(weight)
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(weight, rows)
    return packed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[..., F]` times a weight `[G, F]`, plus a bias `[G]`: `[..., G]`."""
    # oneDNN's function checks no shapes. PyTorch's refuses the wrong ones.
    columns, same_width = weight.shape[:1], x.shape[-1:] == weight.shape[1:]
    shapes_match = same_width and (bias is None or bias.shape == columns)
    if shapes_match and _supports_onednn(x, weight, bias):
        return _onednn_linear(resolve_bits(x), resolve_bits(weight), bias)
    return functional.linear(x, weight, bias)


def sum_outer_products(left: Tensor, right: Tensor) -> Tensor:
    """The sum `[G, F]` of the outer products of the rows of left `[N, G]` and right `[N, F]`."""
    if cpu_products.supports(left, right):
        return cpu_products.sum_outer_products(left, right)
    entries = left.shape[1] * right.shape[1]
    if entries >= MIN_PACKED_ENTRIES and _supports_onednn(left, right):
        return _onednn_linear(left.t(), right.t(), None)
    return left.t() @ right


class RecurrentWeight:
    """A weight that is multiplied at every step. It is packed once, as each method needs it.

    Args:
        weight: `[G, F]`.
        rows: B, the number of rows `[B, F]` that each step multiplies by it.
        bias: `[G]`, or None.
    """

    def __init__(self, weight: Tensor, rows: int, bias: Tensor | None = None) -> None:
        self.weight, self.rows, self.bias = weight, rows, bias

    @cached_property
    def multiply(self) -> Callable[[Tensor], Tensor]:
        """The function from x `[B, F]` to the product plus the bias `[B, G]`. The next call may
        overwrite its result."""
        bias, transposed = self.bias, self.weight.t()
        packed = _pack_for_onednn(self.weight, self.rows, bias)
        if packed is not None:
            return lambda x: _onednn_linear(x, packed, bias)
        out = self.weight.new_empty(self.rows, len(self.weight))
        if bias is None:
            return lambda x: torch.mm(x, transposed, out=out)
        return lambda x: torch.addmm(bias, x, transposed, out=out)

    @cached_property
    def add_product(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The function of `out` `[B, G]` and x `[B, F]` that adds the product, without the bias, to
        `out` in place."""
        packed, transposed = _pack_for_onednn(self.weight, self.rows), self.weight.t()
        if packed is not None:
            return lambda out, x: out.add_(_onednn_linear(x, packed, None))
        return lambda out, x: out.addmm_(x, transposed)

    @cached_property
    def panels(self) -> Tensor:
        """The weight and the bias as functions in C read them; see `cpu_products`."""
        return cpu_products.pack_in_panels(self.weight, self.bias)
