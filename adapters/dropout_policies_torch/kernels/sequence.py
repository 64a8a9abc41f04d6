"""What the operators of whole sequences are made of; and the plain loop that stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_policies.adapter import (
    Site,
)

from ..cells import STEPS, Weights, into_gates, over_steps
from ..tracing import has_batched_gradients, has_dispatch_mode, keeps_graph
from .kernel_memory import is_plain

SITES = {
    "LSTM": (
        Site.HIDDEN,
        Site.CANDIDATE,
        Site.CELL,
        Site.STATE,
        Site.HIDDEN_UPDATE,
        Site.CELL_UPDATE,
    ),
    "GRU": (Site.HIDDEN, Site.CANDIDATE, Site.STATE, Site.HIDDEN_UPDATE),
}
"""The kinds of layers that have an operator, and its masks in order."""


Slices = Sequence[Tensor] | None
"""A mask step by step, or None where nothing is masked."""


def slices(mask: Tensor | None, steps: int, state: Tensor) -> Slices:
    """Of a mask `[T or 1, B or 1, H or 1]`, each step's `[B, H]`."""
    return None if mask is None else whole(mask.expand(len(mask), *state.shape), steps)


def whole(every: Tensor, steps: int) -> Sequence[Tensor]:
    """Each step's part; one and the same where there is but one."""
    return every.unbind(0) if len(every) == steps else [every[0]] * steps


def or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    """An output's gradient, where autograd may have none. (Were it told to make zeros itself, it
    would for the outputs that are not differentiable too.)"""
    return torch.zeros_like(like) if gradient is None else gradient


def by_loop(*gradients: Tensor, eager: bool) -> bool:
    """Whether an operator's gradients are to come by the plain loop: where theirs are asked for
    too, where many are asked for at once, which have no memory of their own, and where one is of
    a subclass, unless the pass is part of a graph.
    """
    if torch.is_grad_enabled() or has_batched_gradients(gradients):
        return True
    return eager and not all(is_plain(gradient) for gradient in gradients)


def order(steps: int, backward: bool) -> Sequence[int]:
    return range(steps - 1, -1, -1) if backward else range(steps)


ROWS = 128
"""Rows of x that are brought to the gates at once where nothing is kept: as fast as all of them,
on a CPU, and no array of all gates is made."""


def pieces(steps: int, batch: int, backward: bool, keep: bool) -> list[slice]:
    """The parts of a sequence whose gates are made at once, in the order in which they run."""
    size = steps if keep else -(-steps // max(1, steps * batch // ROWS))
    found = [slice(first, first + size) for first in range(0, steps, size)]
    return found[::-1] if backward else found


def cut(masks: Sequence[Tensor | None], piece: slice) -> list[Tensor | None]:
    """The part of each mask `[T or 1, ..., ...]` that falls there."""
    return [mask if mask is None or len(mask) == 1 else mask[piece] for mask in masks]


def four(parts: Tensor) -> Tensor:
    """`[T, B, 4*H]` as `[T, B, 4, H]`."""
    return parts.view(*parts.shape[:2], 4, parts.shape[2] // 4)


def shifted(first: Tensor, every: Tensor, backward: bool) -> list[tuple[slice, Tensor]]:
    """What steps had before them: which steps, and what; the very first had `first` `[B, H]`."""
    if backward:
        return [(slice(None, -1), every[1:]), (slice(-1, None), first[None])]
    return [(slice(1, None), every[:-1]), (slice(0, 1), first[None])]


def before(first: Tensor, every: Tensor, backward: bool, mask: Tensor | None = None) -> Tensor:
    """What each step had before it, seen through a mask, `[T, B, H]`."""
    seen = torch.empty_like(every)
    for now, earlier in shifted(first, every, backward):
        if mask is None:
            seen[now].copy_(earlier)
        else:
            torch.mul(earlier, mask[now] if len(mask) > 1 else mask, out=seen[now])
    return seen


def pulls(d_hs: Tensor, backward: bool) -> Sequence[Tensor]:
    """The gradient that reaches, from outside, what each step had before it."""
    by_step, nothing = list(d_hs.unbind(0)), torch.zeros_like(d_hs[0])
    return [*by_step[1:], nothing] if backward else [nothing, *by_step[:-1]]


def save(ctx: Any, *tensors: Tensor | None) -> None:
    """Keep tensors for the backward pass, and what they are."""
    ctx.save_for_backward(*tensors)
    ctx.kinds = None
    if not torch.compiler.is_compiling():
        ctx.kinds = [None if x is None else (x.shape, x.dtype, x.device) for x in tensors]


def saved(ctx: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """What `save` kept; `names` is how errors call it.

    Raises:
        RuntimeError: a hook on saved tensors gave back a tensor of another shape or type, or on
            another device.
    """
    tensors: tuple[Any, ...] = ctx.saved_tensors
    for name, kind, x in zip(names, ctx.kinds or (), tensors, strict=False):
        if kind is not None and (x.shape, x.dtype, x.device) != kind:
            shape, dtype, device = kind
            raise RuntimeError(
                f"the saved tensor {name} had the shape {list(shape)}, {dtype}, on {device}. "
                f"Received from a hook on saved tensors: {list(x.shape)}, {x.dtype}, on {x.device}"
            )
    return tensors


class SavedGates:
    """Whether a backward pass may write over the gates that were saved for it.

    It may in the last pass through a graph, if the memory is still the operator's own: a hook on
    saved tensors may have put the values elsewhere, into a file that is read only for instance.
    Should that pass fail after it began to write, the gates are no longer what they were, and the
    next attempt computes them anew.

    Args:
        gates: as they are saved.
    """

    def __init__(self, gates: Tensor) -> None:
        self.written = False
        self._address = gates.data_ptr() if is_plain(gates) else None

    def may_be_written(self, gates: Tensor) -> bool:
        """Whether a pass that got them back may write over them."""
        return (
            self._address is not None
            and is_plain(gates)
            and gates.data_ptr() == self._address
            and not keeps_graph()
        )


class Operator:
    """A computation over a whole sequence that has a backward pass of its own.

    In graphs, and where a dispatch mode handles every operation, it is an operator of
    `torch.library`; elsewhere an autograd function, for to reach such an operator takes as long as
    several steps of a small layer.

    Args:
        name: of the operator.
        forward: annotated for `torch.library`.
        fake: of the same arguments, outputs of the same shapes.
        backward: the gradients, from those of the outputs; annotated.
        backward_fake: of the same arguments, gradients of the same shapes.
        remember: `(ctx, inputs, outputs)`: keeps what `gradient` needs.
        gradient: `(ctx, run, *gradients)`: the inputs' gradients; `run` is `backward`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        fake: Callable[..., Any],
        backward: Callable[..., Any],
        backward_fake: Callable[..., Any],
        remember: Callable[..., None],
        gradient: Callable[..., Any],
    ) -> None:
        library = torch.library.custom_op
        self.in_graphs = library(f"dropout_policies::{name}", forward, mutates_args=())
        self.in_graphs.register_fake(fake)
        run = library(f"dropout_policies::{name}_backward", backward, mutates_args=())
        run.register_fake(backward_fake)
        self.in_graphs.register_autograd(
            lambda ctx, *given: gradient(ctx, run, *given), setup_context=remember
        )

        # With a setup_context, each call of an autograd function would look at its signature anew.
        def eager(ctx: Any, *inputs: Any) -> Any:
            found = forward(*inputs)
            remember(ctx, inputs, found)
            return found

        methods = {
            "forward": eager,
            "backward": lambda ctx, *given: gradient(ctx, backward, *given),
        }
        self.eager: Any = type(
            name,
            (torch.autograd.Function,),
            {part: staticmethod(function) for part, function in methods.items()},
        )

    def __call__(self, *inputs: Any) -> Any:
        if torch.compiler.is_compiling() or has_dispatch_mode():
            return self.in_graphs(*inputs)
        return self.eager.apply(*inputs)


def again(
    mode: str,
    given: Sequence[Any],
    masks: Sequence[Tensor | None],
    backward: bool,
    pulls: tuple[Tensor, Tensor],
) -> tuple[Any, ...]:
    """The gradients of an operator's inputs by way of the plain loop, differentiable themselves
    where gradients are on.

    Args:
        mode: whose operator it is.
        given: its inputs: x, the states, w_ih, w_hh, and one bias or two.
        masks: its masks.
        backward: its direction.
        pulls: the gradients of every h, and of the last c (of a GRU, h).
    """
    count, twice = 2 if mode == "LSTM" else 1, torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that derivatives end here: one input may have been computed from another, as a
        # state that is carried over was from the weights.
        given = [x.view_as(x) if x is not None and x.requires_grad else x for x in given]
    x, states, (w_ih, w_hh, *biases) = given[0], given[1 : 1 + count], given[1 + count :]
    weights = Weights(w_ih, w_hh, *biases)
    noise = {site: mask for site, mask in zip(SITES[mode], masks, strict=True) if mask is not None}
    step = STEPS[mode]
    with torch.enable_grad():
        into = into_gates(mode, x, weights, None).unbind(0)
        hs, end = over_steps(
            lambda t, before, here: step(into[t], before, weights, here),
            len(x),
            tuple(states),
            noise,
            None,
            backward,
        )
    wanted = [each for each in given if each is not None and each.requires_grad]
    found = torch.autograd.grad((hs, end[-1]), wanted, pulls, create_graph=twice, allow_unused=True)
    by_id = {id(each): grad for each, grad in zip(wanted, found, strict=True)}
    return tuple(by_id.get(id(each)) for each in given)
