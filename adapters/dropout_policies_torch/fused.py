"""What a step does beside its product, as one compiled function on the CPU: `fused.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .compiled import in_memory, library
from .products import Product

SERIAL = 2**15
"""Units of a step up to which PyTorch's own functions run on one thread, as these always do."""

Masks = Sequence[Tensor | None]
"""hidden, candidate, cell, state, hidden_update, cell_update."""


class _Arrays(ctypes.Structure):
    """`Layer` of fused.c."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("acts", "hs", "cs", "squashed", "seen")),
        *((name, ctypes.c_void_p) for name in ("h0", "c0", "scratch")),
        ("kept", ctypes.c_int64),
        ("masks", ctypes.c_void_p * 6),
        ("strides", ctypes.c_int64 * 6),
        *((name, ctypes.c_void_p) for name in ("d_hs", "d_gates", "d_h", "d_c")),
    )


def fits(acts: Tensor, state: Tensor) -> bool:
    """Whether steps run compiled: on a CPU, in single or double precision, unless a step is so
    large that many threads would share it."""
    return (
        in_memory(acts)
        and acts.dtype in (torch.float32, torch.float64)
        and state.numel() > 0
        and (state.numel() <= SERIAL or torch.get_num_threads() <= 2)
        and library("fused") is not None
    )


def through(back: Tensor, masks: Masks, backward: bool) -> Tensor:
    """What a product brings back to the state that the first step had, through its mask."""
    hidden = masks[0]
    return back if hidden is None else back * hidden[-1 if backward else 0]


class Steps:
    """The steps of one layer in one direction.

    Args:
        mode: `lstm` or `gru`.
        h0: the state to start from, `[B, H]`.
        masks: each `[T or 1, B or 1, H or 1]`.
        order: the steps, as they run.
        kept: whether every step has its part of `cs` and `squashed`.
        arrays: by the names of `Layer` in fused.c, contiguous.
    """

    def __init__(
        self,
        mode: str,
        h0: Tensor,
        masks: Masks,
        order: Sequence[int],
        kept: bool,
        **arrays: Tensor,
    ) -> None:
        compiled: Any = library("fused")
        kind = "float" if h0.dtype == torch.float32 else "double"
        self._start, self._forward, self._backward = (
            getattr(compiled, f"{name}_{kind}") for name in ("start", mode, f"{mode}_backward")
        )
        self._order = list(order)
        full = [
            None if mask is None else mask.expand(len(mask), *h0.shape).contiguous()
            for mask in masks
        ]
        h0 = h0.contiguous()
        self._seen, scratch = torch.empty_like(h0), h0.new_empty(3 * h0.shape[1])
        arrays |= {"h0": h0, "seen": self._seen, "scratch": scratch}
        self._alive = [*arrays.values(), *full]
        self._layer = _Arrays(
            *h0.shape,
            kept=h0.numel() if kept else 0,
            masks=(ctypes.c_void_p * 6)(*(None if m is None else m.data_ptr() for m in full)),
            strides=(ctypes.c_int64 * 6)(
                *(0 if m is None or len(m) == 1 else h0.numel() for m in full)
            ),
            **{name: array.data_ptr() for name, array in arrays.items()},
        )

    def forward(self, by_recurrent: Product) -> None:
        """Fill `hs`, `acts`, `cs` and `squashed`, of which `acts` holds the input's part.

        Args:
            by_recurrent: h as the gates see it `[B, H]`, to its part of them.
        """
        layer, steps = ctypes.byref(self._layer), [ctypes.c_int64(t) for t in (-1, *self._order)]
        self._start(layer, steps[1])
        for last, t, after in zip(steps, steps[1:], [*steps[2:], steps[0]], strict=False):
            product = by_recurrent(self._seen)
            self._forward(layer, t, last, after, ctypes.c_void_p(product.data_ptr()))

    def backward(self, by_recurrent: Product, d_gates: Sequence[Tensor]) -> Tensor:
        """Fill `d_gates`, change `d_h` and `d_c` to what is left for the start.

        Args:
            by_recurrent: the gates' gradients of a step, to those of h as the gates saw it.
            d_gates: the part of each step that goes there.

        Returns:
            What reached the gates' h of the first step, `[B, H]`; to be added to `d_h`.
        """
        layer, product, later = ctypes.byref(self._layer), None, -1
        for place in reversed(range(len(self._order))):
            t, earlier = self._order[place], self._order[place - 1] if place else -1
            address = ctypes.c_void_p(None if product is None else product.data_ptr())
            at = (ctypes.c_int64(each) for each in (t, later, earlier))
            self._backward(layer, *at, address)
            product, later = by_recurrent(d_gates[t]), t
        assert product is not None, "there is at least one step"
        return product
