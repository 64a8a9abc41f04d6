"""Products with a recurrent kernel, step after step, whose gradient is one product."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from .compiled import has_values
from .masks import Tensor

Product = Callable[[Tensor], Tensor]
"""A value `[..., F]`, by a kernel `[F, G]`."""

By = Callable[[Tensor], Product]
"""What makes the product with a kernel."""


def plain(kernel: Tensor) -> Product:
    """The product with a kernel as it is."""
    return lambda x: ops.matmul(x, kernel)


def by_steps(rows: Any, steps: Any) -> By:
    """What makes products that are taken once at each of so many steps, of values `[rows, F]`.

    On torch each step would add a product of its own to a kernel's gradient: few rows are slow to
    multiply, and the whole gradient is read and written each time. Here it is one product of all
    steps' rows. Where torch does more with a step than record its gradient, that goes on as it is:
    what is compiled, in forward mode, under `torch.func` or autocast.
    """
    if keras.backend.backend() != "torch":
        return plain
    import torch

    def by(kernel: Tensor) -> Product:
        at_once = plain(kernel)
        if not has_values(kernel) or torch.is_autocast_enabled(kernel.device.type):
            return at_once
        one_step, all_steps = _functions()
        handed_out = all_steps.apply(kernel, rows, steps)
        turns = zip(*(each.unbind() for each in handed_out), strict=True)

        def product(x: Tensor) -> Tensor:
            if len(x) != rows or not has_values(x):
                return at_once(x)
            return one_step.apply(x, kernel, *next(turns))

        return product

    return by


@functools.cache
def _functions() -> tuple[Any, Any]:
    """The product of one step, and what makes the kernel's gradient of all of them.

    The second hands out a turn for each step, of which come back, as if they were its gradient, the
    step's value and the gradient of its product: those of one backward pass, however far it goes
    and whatever is asked of it.
    """
    import torch

    class OneStep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, kernel: Tensor, *_: Tensor) -> Tensor:
            ctx.save_for_backward(x, kernel)
            return ops.matmul(x, kernel)

        @staticmethod
        def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
            x, kernel = ctx.saved_tensors
            return ops.matmul(d, kernel.T) if ctx.needs_input_grad[0] else None, None, x, d

    class AllSteps(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, kernel: Tensor, rows: int, steps: int) -> tuple[Tensor, ...]:
            nothing = kernel.new_zeros(())
            return tuple(nothing.expand(steps, rows, width) for width in kernel.shape)

        @staticmethod
        def backward(_: Any, x: Tensor, d: Tensor) -> tuple[Tensor, None, None]:
            return ops.matmul(x.flatten(0, 1).T, d.flatten(0, 1)), None, None

    return OneStep, AllSteps
