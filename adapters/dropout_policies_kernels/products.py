"""Products with a weight, with the fastest library on the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from . import cpu_products
from .kernel_memory import has_memory, make_contiguous, resolve_bits

MIN_PACKED_ENTRIES = 2**19
"""A weight with at least this many entries is worth packing for oneDNN."""

MIN_ONEDNN_PRODUCT = 2**22
"""From this many multiplications on, a product is faster with oneDNN, despite its slow start."""


def _supports_onednn(*tensors: Tensor | None) -> bool:
    """Whether oneDNN can compute a product, as it does in PyTorch's own recurrent layers.

    For single precision on the CPU, `torch.mm` uses another library. On some machines that takes
    twice as long for the product of a step. oneDNN's product has no public name. The private names
    used here are those that PyTorch's own compiler emits.
    """
    return (
        all(x is None or (has_memory(x) and x.dtype == torch.float32) for x in tensors)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # oneDNN is far slower with a weight that is a part of a larger array.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    if bias is not None:
        bias = make_contiguous(bias)  # oneDNN reads it as if it were contiguous
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


def _pack_for_onednn(weight: Tensor, rows: int, bias: Tensor | None = None) -> Tensor | None:
    """Pack a weight for oneDNN's products with `rows` rows. None if that is not worthwhile."""
    if weight.numel() < MIN_PACKED_ENTRIES or not _supports_onednn(weight, bias):
        return None
    weight = make_contiguous(weight)
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(weight, rows)
    return packed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply x `[..., F]` by a weight `[G, F]`, and add a bias `[G]`. It returns `[..., G]`."""
    # oneDNN's function checks no shapes. PyTorch's function refuses wrong ones.
    columns, same_width = weight.shape[:1], x.shape[-1:] == weight.shape[1:]
    shapes_match = same_width and (bias is None or bias.shape == columns)
    is_large = x.numel() * len(weight) >= MIN_ONEDNN_PRODUCT and not cpu_products.prefers_mkl()
    if is_large and shapes_match and _supports_onednn(x, weight, bias):
        return _onednn_linear(resolve_bits(x), resolve_bits(weight), bias)
    return functional.linear(x, weight, bias)


def sum_outer_products(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum the outer products of the rows of left `[N, G]` and right `[N, F]`.

    Args:
        left: the rows that form the rows of the sum.
        right: the rows that form its columns.
        out: the tensor for the result. None: create one.

    Returns:
        The sum, `[G, F]`.
    """
    if cpu_products.supports(left, right):
        return cpu_products.sum_outer_products(left, right, out)
    is_large = left.shape[1] * right.shape[1] >= MIN_PACKED_ENTRIES
    if is_large and _supports_onednn(left, right) and not cpu_products.prefers_mkl():
        total = _onednn_linear(left.t(), right.t(), None)
        return total if out is None else out.copy_(total)
    return torch.mm(left.t(), right, out=out)


class InputWeight:
    """The weight of the input. A kernel multiplies the input of several steps by it at once.

    Args:
        weight: `[G*H, D]`.
        bias: `[G*H]`, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self._bias = weight, bias

    @cached_property
    def panels(self) -> Tensor:
        """The weight and the bias as functions in C read them. See `cpu_products`."""
        return cpu_products.pack_in_panels(self.weight, self._bias)


class RecurrentWeight:
    """A weight that every step multiplies by. It is packed once, as each method needs it.

    If each gate has its own mask on h, each gate's part of the weight multiplies another masked h.
    The masked h lie side by side.

    Args:
        weight: `[G*H, P]`.
        rows: B, the number of rows that each step multiplies by it.
        bias: `[G*H]`, or None.
        masks: N, the number of masked h: 1 or G.
        backward: whether the rows are the gradients of the gates `[B, G*H]`, and the product is the
            gradient of the masked h `[B, N*P]`. If False, the rows are the masked h, and the
            product is the hidden state's part of the gates.
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
        """The number of columns of the product."""
        return sum(map(len, self._parts))

    @cached_property
    def multiply(self) -> Callable[[Tensor], Tensor]:
        """A function that maps rows to the product plus the bias.

        The next call may overwrite its result.
        """
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
        """A function `(out, rows)` that adds the product, without the bias, to `out` in place."""
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
        """The weight and the bias as functions in C read them, part after part.

        See `cpu_products`.
        """
        return cpu_products.pack_parts(self._parts, self._biases)
