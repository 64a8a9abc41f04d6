"""Products with a weight, as fast as the machine has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from . import products_cpu
from .kernel_memory import dense, has_memory, resolved

Product = Callable[[Tensor], Tensor]
Added = Callable[[Tensor, Tensor], Tensor]


LARGE = 2**19
"""Entries from which on a weight is worth being laid out for oneDNN."""


def _in_onednn(*tensors: Tensor | None) -> bool:
    """Whether oneDNN multiplies by a weight, as it does in PyTorch's own recurrent layers.

    On the CPU, `torch.mm` leaves single precision to another library, which on some machines takes
    twice as long for the product of a step. oneDNN's has no public name; those used here are what
    PyTorch's own compiler writes.
    """
    return (
        all(x is None or (has_memory(x) and x.dtype == torch.float32) for x in tensors)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # A weight that is a part of a larger array would be read in a far slower way.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    if bias is not None:
        bias = dense(bias)  # which is read as if it were
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return found


def _packed(weight: Tensor, rows: int, bias: Tensor | None = None) -> Tensor | None:
    """The weight as products with that many rows read it, where it pays."""
    if weight.numel() < LARGE or not _in_onednn(weight, bias):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(dense(weight), rows)
    return packed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[..., F]` by a weight `[G, F]`, once: `[..., G]`."""
    # oneDNN's function checks no shapes; what does not fit, PyTorch's refuses.
    columns, fits = weight.shape[:1], x.shape[-1:] == weight.shape[1:]
    if fits and (bias is None or bias.shape == columns) and _in_onednn(x, weight, bias):
        return _linear(resolved(x), resolved(weight), bias)
    return functional.linear(x, weight, bias)


def outer(d: Tensor, x: Tensor) -> Tensor:
    """Of rows `[N, G]` and `[N, F]`, the sum of each two's outer product `[G, F]`."""
    if products_cpu.fits(d, x):
        return products_cpu.outer(d, x)
    if d.shape[1] * x.shape[1] >= LARGE and _in_onednn(d, x):
        return _linear(d.t(), x.t(), None)
    return d.t() @ x


class Recurrent:
    """A weight `[G, F]`, and a bias `[G]`, that the rows `[B, F]` of every step are taken by.

    It is laid out once, as those who take the steps ask for it.
    """

    def __init__(self, weight: Tensor, rows: int, bias: Tensor | None = None) -> None:
        self.weight, self.rows, self.bias = weight, rows, bias

    @cached_property
    def by(self) -> Product:
        """What takes x to `[B, G]`, which may be overwritten by the next."""
        bias, t = self.bias, self.weight.t()
        packed = _packed(self.weight, self.rows, bias)
        if packed is not None:
            return lambda x: _linear(x, packed, bias)
        out = self.weight.new_empty(self.rows, len(self.weight))
        if bias is None:
            return lambda x: torch.mm(x, t, out=out)
        return lambda x: torch.addmm(bias, x, t, out=out)

    @cached_property
    def added(self) -> Added:
        """What adds x's product, without the bias, to `[B, G]` in place."""
        packed, t = _packed(self.weight, self.rows), self.weight.t()
        if packed is not None:
            return lambda out, x: out.add_(_linear(x, packed, None))
        return lambda out, x: out.addmm_(x, t)

    @cached_property
    def panels(self) -> Tensor:
        """The weight and the bias as functions in C read them; see `products_cpu`."""
        return products_cpu.panels(self.weight, self.bias)
