"""Products with a recurrent kernel, step after step, whose gradient is one product."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import keras
from keras import ops

from ..tracing import Tensor, has_values

Product = Callable[[Tensor], Tensor]
"""A value `[..., F]`, by a kernel `[F, G]`."""

By = Callable[..., Product]
"""What makes the product with a kernel, of whose columns the first `added` (0, if not told) are
added to what comes into a step, at its first columns, and go nowhere else."""

Turns = list[Tensor | None]
"""By kernel, what is added to the other columns of its products: of a step, or of all steps."""

Seen = list[Tensor]
"""By kernel, the values that its products were taken of: of a step, or of all steps."""

Kernels = tuple[Tensor, ...]

Loop = Callable[[Tensor, Turns], tuple[Any, Seen]]
"""What comes into each step and the turns of each step, to what a loop gives and has seen."""


def plain(kernel: Tensor, _added: int = 0) -> Product:
    """The product with a kernel as it is."""
    return lambda x: ops.matmul(x, kernel)


def by_steps(rows: Any, steps: Any, given: Sequence[Tensor | None] = ()) -> By:
    """What makes products that are taken once at each of so many steps, of values `[rows, F]`, in
    a loop that is given these tensors.

    Each step would add a product of its own to a kernel's gradient: few rows are slow to multiply,
    and the whole gradient is read and written each time. Here it is one product of all steps' rows,
    on JAX (see `Ledger`) and torch. Where torch does more with a step than record its gradient,
    that goes on as it is: what is compiled, in forward mode, under `torch.func` or autocast.
    """
    match keras.backend.backend():
        case "torch":
            # One of them is enough: under torch.func.vmap all that is made of it is mapped.
            whole = all(x is None or has_values(x) for x in given)
            return _by_turns(rows, steps) if whole else plain
        case "jax":
            return Ledger()
        case _:
            return plain


def _by_turns(rows: int, steps: int) -> By:
    import torch

    def by(kernel: Tensor, _added: int = 0) -> Product:
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


class Ledger:
    """The products inside a loop on JAX, and that loop's derivative.

    JAX's scan carries a kernel's gradient from step to step, and each adds a product of its own. So
    the loop gets a rule of forward mode, which JAX turns round and differentiates again: a kernel
    that moves by `d` moves its product with x by x @ d, as if that were added, and of all steps
    that is one product. It comes in with what comes into a step, where the product is only added
    to that, and else by a turn.
    """

    def __init__(self) -> None:
        self._kernels: list[Tensor] = []
        self._added: list[int] = []
        # What there is only inside the loop, and inside a step; kept longer, tracers would leak.
        self._inside: Kernels | None = None
        self._step: tuple[Turns, dict[int, Tensor]] | None = None

    def __call__(self, kernel: Tensor, added: int = 0) -> Product:
        number = len(self._kernels)
        self._kernels.append(kernel)
        self._added.append(added)

        def product(x: Tensor) -> Tensor:
            if self._inside is None or self._step is None:
                return ops.matmul(x, kernel)
            turns, seen = self._step
            seen[number] = x
            found, turn = ops.matmul(x, self._inside[number]), turns[number]
            if turn is None:
                return found
            return ops.concatenate([found[..., :added], found[..., added:] + turn], axis=-1)

        return product

    def taken(self, step: Callable[[], Any], turns: Turns) -> tuple[Any, Seen]:
        """What a step gives under its turns, and what its products were taken of."""
        seen: dict[int, Tensor] = {}
        self._step = turns, seen
        try:
            return step(), [seen[number] for number in range(len(turns))]
        finally:
            self._step = None

    def differentiated(self, loop: Loop, into: Tensor) -> Any:
        """What a loop over `into` `[T, B, G*H]` gives, with its derivative."""
        import jax

        kernels = tuple(self._kernels)

        def of(kernels: Kernels, into: Tensor, turns: Turns) -> tuple[Any, Seen]:
            self._inside = kernels
            try:
                return loop(into, turns)
            finally:
                self._inside = None

        whole, others = _closed(of, kernels, into, self._no_turns(into))

        def found(kernels: Kernels, into: Tensor, others: list[Tensor]) -> Any:
            return whole(others, kernels, into, self._no_turns(into))[0]

        def rule(at: Any, along: Any) -> tuple[Any, Any]:
            kernels, into, others = at
            d_kernels, d_into, d_others = along
            moves = [not _is_zero(each) for each in d_others]

            def of_rest(into: Tensor, turns: Turns, moving: list[Tensor]) -> Any:
                given = iter(moving)
                every = [
                    next(given) if each else other
                    for each, other in zip(moves, others, strict=True)
                ]
                return whole(every, kernels, into, turns)

            rest = into, self._no_turns(into), list(compress(others, moves))
            result, along_rest, seen = jax.linearize(of_rest, *rest, has_aux=True)
            d_into = ops.zeros_like(into) if _is_zero(d_into) else d_into
            d_into, d_turns = self._moved(seen, d_kernels, d_into)
            return result, along_rest(d_into, d_turns, list(compress(d_others, moves)))

        differentiated = jax.custom_jvp(found)
        differentiated.defjvp(rule, symbolic_zeros=True)
        return differentiated(kernels, into, others)

    def _no_turns(self, into: Tensor) -> Turns:
        """Turns of all steps that add nothing, for what of a product is not only added."""
        widths = [k.shape[1] - added for k, added in zip(self._kernels, self._added, strict=True)]
        return [ops.zeros_like(into[..., :n]) if n else None for n in widths]

    def _moved(self, seen: Seen, d_kernels: Kernels, d_into: Tensor) -> tuple[Tensor, Turns]:
        """How what comes into the steps moves, and their turns, if kernels do."""
        d_turns = self._no_turns(d_into)
        for number, (x, d_kernel) in enumerate(zip(seen, d_kernels, strict=True)):
            if _is_zero(d_kernel):
                continue
            d, added = ops.matmul(x, d_kernel), self._added[number]
            if added:
                beyond = d_into.shape[2] - added
                d_into = d_into + ops.pad(d[..., :added], [[0, 0], [0, 0], [0, beyond]])
            if d_turns[number] is not None:
                d_turns[number] = d[..., added:]
        return d_into, d_turns


def _closed(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A function that takes what it closes over as its first argument, and that.

    `jax.closure_convert` would keep all of it in a cache, long after the call.
    """
    import jax

    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)

    def opened(others: list[Any], *arguments: Any) -> Any:
        found = jax.core.eval_jaxpr(closed.jaxpr, others, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return opened, list(closed.consts)


def _is_zero(tangent: Any) -> bool:
    """Whether JAX says of a tangent that there is none."""
    import jax

    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
