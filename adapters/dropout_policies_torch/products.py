"""Products with a weight, as fast as the machine has them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]
Added = Callable[[Tensor, Tensor], Tensor]


def _in_onednn(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by a weight, as it does in PyTorch's own recurrent layers.

    `torch.mm` on the CPU leaves single precision to another library, which lays the weight out
    anew at each product and on some machines takes twice as long for a step's. oneDNN's packed
    weights have no public name; those used here are what PyTorch's own compiler writes.
    """
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() > 0
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return found


def _packed(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(weight.contiguous(), rows)
    return packed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[..., F]` by a weight `[G, F]`, once: `[..., G]`."""
    if _in_onednn(weight):
        return _linear(x, weight, bias)
    return functional.linear(x, weight, bias)


def by(weight: Tensor, rows: int, bias: Tensor | None = None) -> Product:
    """What takes x `[rows, F]` by a weight `[G, F]`, again and again: `[rows, G]`."""
    if _in_onednn(weight):
        packed = _packed(weight, rows)
        return lambda x: _linear(x, packed, bias)
    t = weight.t()
    return (lambda x: x @ t) if bias is None else (lambda x: torch.addmm(bias, x, t))


def added(weight: Tensor, rows: int) -> Added:
    """What adds x `[rows, F]` by a weight `[G, F]` to `[rows, G]` in place, again and again."""
    if _in_onednn(weight):
        packed = _packed(weight, rows)
        return lambda out, x: out.add_(_linear(x, packed, None))
    t = weight.t()
    return lambda out, x: out.addmm_(x, t)
