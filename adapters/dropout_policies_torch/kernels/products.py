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

MIN_ONEDNN_PRODUCT = 2**22
"""Multiplications in a product from which on oneDNN's takes less time in spite of its slow
start."""


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
    is_large = x.numel() * len(weight) >= MIN_ONEDNN_PRODUCT and not cpu_products.prefers_mkl()
    if is_large and shapes_match and _supports_onednn(x, weight, bias):
        return _onednn_linear(resolve_bits(x), resolve_bits(weight), bias)
    return functional.linear(x, weight, bias)


def sum_outer_products(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """The sum `[G, F]` of the outer products of the rows of left `[N, G]` and right `[N, F]`; in
    `out`, if that is given."""
    if cpu_products.supports(left, right):
        return cpu_products.sum_outer_products(left, right, out)
    is_large = left.shape[1] * right.shape[1] >= MIN_PACKED_ENTRIES
    if is_large and _supports_onednn(left, right) and not cpu_products.prefers_mkl():
        total = _onednn_linear(left.t(), right.t(), None)
        return total if out is None else out.copy_(total)
    return torch.mm(left.t(), right, out=out)


class InputWeight:
    """The weight of the input, which a kernel multiplies some steps' input by at once.

    Args:
        weight: `[G*H, D]`.
        bias: `[G*H]`, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self._bias = weight, bias

    @cached_property
    def panels(self) -> Tensor:
        """The weight and the bias as functions in C read them; see `cpu_products`."""
        return cpu_products.pack_in_panels(self.weight, self._bias)


class RecurrentWeight:
    """A weight that is multiplied at every step. It is packed once, as each method needs it.

    Where each gate has a mask of its own on h, each gate's part of the weight takes another masked
    h; they lie side by side.

    Args:
        weight: `[G*H, P]`.
        rows: B, the number of rows that each step multiplies by it.
        bias: `[G*H]`, or None.
        masks: N, how many masked h there are: 1, or G.
        backward: whether rows are the gates' gradients `[B, G*H]`, and the product is that of the
            masked h `[B, N*P]`. If not, it is the other way round.
    """

    def __init__(
        self,
        weight: Tensor,
        rows: int,
        bias: Tensor | None = None,
        masks: int = 1,
        backward: bool = False,
    ) -> None:
        self.weight, self.rows, self.masks = weight, rows, masks
        self._parts = [part.t() if backward else part for part in weight.chunk(masks)]
        self._biases = [None] * masks if bias is None else list(bias.chunk(masks))

    @property
    def product_width(self) -> int:
        """How many columns the product has."""
        return sum(map(len, self._parts))

    @cached_property
    def multiply(self) -> Callable[[Tensor], Tensor]:
        """The function from rows to the product plus the bias. The next call may overwrite its
        result."""
        out = self.weight.new_empty(self.rows, self.product_width)
        if self.masks == 1:
            return self._multiply_part(self._parts[0], self._biases[0], out)
        parts = [
            self._multiply_part(part, bias, columns)
            for part, bias, columns in zip(
                self._parts, self._biases, out.chunk(self.masks, dim=1), strict=True
            )
        ]

        def multiply(x: Tensor) -> Tensor:
            for part, columns in zip(parts, x.chunk(len(parts), dim=1), strict=True):
                part(columns)
            return out

        return multiply

    def _multiply_part(
        self, weight: Tensor, bias: Tensor | None, out: Tensor
    ) -> Callable[[Tensor], Tensor]:
        packed = _pack_for_onednn(weight, self.rows, bias) if self.masks == 1 else None
        if packed is not None:
            return lambda x: _onednn_linear(x, packed, bias)
        transposed = weight.t()
        if bias is None:
            return lambda x: torch.mm(x, transposed, out=out)
        return lambda x: torch.addmm(bias, x, transposed, out=out)

    @cached_property
    def add_product(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The function of `out` and rows that adds the product, without the bias, to `out` in
        place."""
        if self.masks == 1:
            (weight,) = self._parts
            packed = _pack_for_onednn(weight, self.rows)
            if packed is not None:
                return lambda out, x: out.add_(_onednn_linear(x, packed, None))
        transposed, count = [weight.t() for weight in self._parts], self.masks

        def add_product(out: Tensor, x: Tensor) -> Tensor:
            columns = zip(out.chunk(count, dim=1), x.chunk(count, dim=1), transposed, strict=True)
            for part, rows, weight in columns:
                part.addmm_(rows, weight)
            return out

        return add_product

    @cached_property
    def panels(self) -> Tensor:
        """The weight and the bias as functions in C read them, each part after the other; see
        `cpu_products`."""
        return cpu_products.pack_parts(self._parts, self._biases)
