"""Taking a layer's steps one after another, with the masks of each beside it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    Site,
)

from .cells import States
from .kernels.products import By, Ledger, Seen, Turns
from .tracing import Tensor

Looped = tuple[Tensor, Tensor, Any]
"""What a loop gives: last output `[B, H]`, outputs `[B, T, H]` (or only the last, `[B, 1, H]`), and
the last states."""

Step = Callable[[Tensor, States, Mapping[Site, Tensor]], tuple[Tensor, States]]
"""What comes into a step `[B, ...]`, the states and the noise, to the output and new states."""


@dataclass(frozen=True)
class Given:
    """What the steps of a loop are given, in the order in which they are taken.

    A mask that holds for all steps is there from outside; one of each step goes in beside the
    input. Drawn inside, it would be the same at every step under JAX, without a word.
    """

    into: Tensor
    """What comes into each step, `[B, T, F]`."""

    padding: Tensor | None
    """Keras's mask `[B, T]`, False where a step is padding, or None."""

    held: Mapping[Site, Tensor]
    """The masks of all steps, `[B, F]`."""

    moving: Mapping[Site, Tensor]
    """The masks of each step, `[T, B, F]`."""


def over_steps(
    layer: Any,
    step: Step,
    into: Tensor,
    states: States,
    padding: Tensor | None,
    masks: Mapping[Site, Tensor],
    every: bool,
    by: By | None = None,
) -> Looped:
    """Take the steps of `into` `[B, T, F]`, in reading order.

    Args:
        layer: whose loop it is.
        step: a step of its.
        into: what comes into each step.
        states: those at the start.
        padding: Keras's mask `[B, T]`, False where a step is padding, or None.
        masks: by site, `[T or 1, B, F]`.
        every: whether all outputs are wanted.
        by: what makes the products inside the step, if it can tell.
    """
    held = {site: mask[0] for site, mask in masks.items() if mask.shape[0] == 1}
    moving = {site: mask for site, mask in masks.items() if mask.shape[0] != 1}
    given = Given(into, padding, held, moving)
    if isinstance(by, Ledger) and not layer.unroll:
        return _by_scan(layer, step, given, states, every, by)
    # What torch runs is a loop of Python's in any case, to which Keras's own adds a step before the
    # first, and cycles of references that keep what comes into the steps.
    loop = _in_python if keras.backend.backend() == "torch" else _by_keras
    return loop(layer, step, given, states, every)


def _by_keras(layer: Any, step: Step, given: Given, states: States, every: bool) -> Looped:
    """In Keras's generic loop."""

    def cell(inputs: Any, before: Any, **_: Any) -> tuple[Tensor, States]:
        noise = {**given.held, **dict(zip(given.moving, inputs[1:], strict=True))}
        return step(inputs[0], list(before), noise)

    loop = SimpleNamespace(
        cell=cell,
        go_backwards=False,
        stateful=False,
        unroll=layer.unroll,
        zero_output_for_mask=layer.zero_output_for_mask,
        return_sequences=every,
    )
    through = _side_by_side(len(given.moving))(given.into, *map(swapped, given.moving.values()))
    return keras.layers.RNN.inner_loop(  # type: ignore[no-any-return]
        loop, through, states, given.padding
    )


@cache
def _side_by_side(masks: int) -> type[Any]:
    """A sequence with masks of its steps beside it; Keras's loops take each apart, step by step."""
    fields = ["into", *(f"mask_{number}" for number in range(masks))]
    shape = property(lambda steps: steps.into.shape)
    return type("Steps", (namedtuple("Steps", fields),), {"shape": shape})


def _in_python(layer: Any, step: Step, given: Given, states: States, every: bool) -> Looped:
    """In a loop of Python's, to the same as Keras's."""
    each = {site: ops.unstack(mask) for site, mask in given.moving.items()}
    there = None
    if given.padding is not None:
        there = ops.unstack(ops.cast(given.padding, "bool"), axis=1)
    outputs: list[Tensor] = []
    for t, x in enumerate(ops.unstack(given.into, axis=1)):
        noise = {**given.held, **{site: each[site][t] for site in each}}
        output, new = step(x, list(states), noise)
        if there is not None:
            held_over = outputs and not layer.zero_output_for_mask
            before = outputs[-1] if held_over else ops.zeros_like(output)
            output = _where(there[t], output, before)
            new = [_where(there[t], *pair) for pair in zip(new, states, strict=True)]
        states = new
        outputs = outputs if every else []
        outputs.append(output)
    return outputs[-1], ops.stack(outputs, axis=1), list(states)


def _by_scan(
    layer: Any, step: Step, given: Given, states: States, every: bool, ledger: Ledger
) -> Looped:
    """In JAX's scan, for a cell whose output is its h; what its products see comes out beside it.

    Keras's loop is a scan too, but nothing else comes out of that.
    """
    import jax

    there = None if given.padding is None else ops.transpose(ops.cast(given.padding, "bool"))

    def output_of(there: Tensor | None, h: Tensor) -> Tensor:
        if there is None or not layer.zero_output_for_mask:
            return h
        return _where(there, h, ops.zeros_like(h))

    def loop(into: Tensor, turns: Turns) -> tuple[Looped, Seen]:
        def one(before: States, at: Any) -> tuple[States, Any]:
            x, there, moving, turns = at
            (_, new), seen = ledger.taken(lambda: step(x, before, {**given.held, **moving}), turns)
            if there is not None:
                new = [_where(there, *pair) for pair in zip(new, before, strict=True)]
            return new, (output_of(there, new[0]) if every else None, seen)

        at_steps = into, there, given.moving, turns
        end, (outputs, seen) = jax.lax.scan(one, list(states), at_steps)
        last = output_of(None if there is None else there[-1], end[0])
        outputs = swapped(outputs) if every else ops.expand_dims(last, 1)
        return (last, outputs, end), seen

    return ledger.differentiated(loop, swapped(given.into))  # type: ignore[no-any-return]


def _where(there: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """A step's values `[B, ...]` for the samples whose step is no padding, else those before."""
    sizes = (-1, *(1 for _ in new.shape[1:]))
    return ops.where(ops.reshape(there, sizes), new, old)


def swapped(values: Tensor) -> Tensor:
    """`[T, B, F]` as `[B, T, F]`, and back."""
    return ops.transpose(values, (1, 0, 2))
