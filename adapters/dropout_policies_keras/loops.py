"""Runs the steps of a layer one after another, each with its masks."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

from .cells import SiteMasks, States
from .kernels.products import MakeProduct, Perturbations, ProductInputs, ScanProducts
from .tracing import Tensor

LoopResult = tuple[Tensor, Tensor, Any]
"""The result of a loop: the last output `[B, H]`, the outputs `[B, T, H]` (or only the last,
`[B, 1, H]`), and the last states."""

StepFunction = Callable[[Tensor, States, SiteMasks], tuple[Tensor, States]]
"""A function that maps the input of a step `[B, ...]`, the states and the step's masks to its
output and the new states."""


@dataclass(frozen=True)
class LoopInputs:
    """The values that a loop reads, in the order in which its steps run.

    A mask that holds for all steps comes from outside the loop. A mask of each step is an input of
    the step. If it were drawn inside the loop, JAX would use the same mask at every step without an
    error.
    """

    inputs: Tensor
    """The input of each step, `[B, T, F]`."""

    padding: Tensor | None
    """Keras's mask `[B, T]`, False where a step is padding, or None."""

    fixed_masks: SiteMasks
    """The masks that hold for all steps, `[B, F]`."""

    step_masks: SiteMasks
    """The masks of each step, `[T, B, F]`."""


def loop_over_steps(
    layer: Any,
    step: StepFunction,
    inputs: Tensor,
    states: States,
    padding: Tensor | None,
    masks: SiteMasks,
    return_sequences: bool,
    make_product: MakeProduct | None = None,
) -> LoopResult:
    """Run a step function over `inputs`, in reading order.

    Args:
        layer: the layer that the steps belong to.
        step: the function for one step.
        inputs: the input of each step, `[B, T, F]`.
        states: the states before the first step.
        padding: Keras's mask `[B, T]`, False where a step is padding, or None.
        masks: the masks by site, `[T or 1, B, F]`.
        return_sequences: whether to return the outputs of all steps instead of only the last.
        make_product: the function that made the products in the step, if it multiplies by kernels.
    """
    fixed_masks = {site: mask[0] for site, mask in masks.items() if mask.shape[0] == 1}
    step_masks = {site: mask for site, mask in masks.items() if mask.shape[0] != 1}
    read = LoopInputs(inputs, padding, fixed_masks, step_masks)
    if isinstance(make_product, ScanProducts) and not layer.unroll:
        return _run_in_scan(layer, step, read, states, return_sequences, make_product)
    # Keras's own loop on torch is also a Python loop. It adds a step before the first one, and
    # reference cycles that keep the inputs of the steps alive.
    run = _run_in_python if keras.backend.backend() == "torch" else _run_in_keras
    return run(layer, step, read, states, return_sequences)


def _run_in_keras(
    layer: Any, step: StepFunction, read: LoopInputs, states: States, return_sequences: bool
) -> LoopResult:
    """Run the steps in Keras's generic loop."""

    def cell(inputs: Any, previous: Any, **_: Any) -> tuple[Tensor, States]:
        masks = {**read.fixed_masks, **dict(zip(read.step_masks, inputs[1:], strict=True))}
        return step(inputs[0], list(previous), masks)

    loop = SimpleNamespace(
        cell=cell,
        go_backwards=False,
        stateful=False,
        unroll=layer.unroll,
        zero_output_for_mask=layer.zero_output_for_mask,
        return_sequences=return_sequences,
    )
    masks_by_step = map(swap_time_and_batch, read.step_masks.values())
    sequence = _steps_type(len(read.step_masks))(read.inputs, *masks_by_step)
    return keras.layers.RNN.inner_loop(  # type: ignore[no-any-return]
        loop, sequence, states, read.padding
    )


@cache
def _steps_type(masks: int) -> type[Any]:
    """Make the type of a sequence with `masks` masks of its steps, for Keras's loops to split."""
    fields = ["inputs", *(f"mask_{number}" for number in range(masks))]
    shape = property(lambda steps: steps.inputs.shape)
    return type("Steps", (namedtuple("Steps", fields),), {"shape": shape})


def _run_in_python(
    layer: Any, step: StepFunction, read: LoopInputs, states: States, return_sequences: bool
) -> LoopResult:
    """Run the steps in a Python loop, with the results of Keras's loop."""
    by_step = {site: ops.unstack(mask) for site, mask in read.step_masks.items()}
    valid = None
    if read.padding is not None:
        valid = ops.unstack(ops.cast(read.padding, "bool"), axis=1)
    outputs: list[Tensor] = []
    for t, x in enumerate(ops.unstack(read.inputs, axis=1)):
        masks = {**read.fixed_masks, **{site: by_step[site][t] for site in by_step}}
        output, new = step(x, list(states), masks)
        if valid is not None:
            repeats_output = outputs and not layer.zero_output_for_mask
            previous = outputs[-1] if repeats_output else ops.zeros_like(output)
            output = _keep_previous(valid[t], output, previous)
            new = [_keep_previous(valid[t], *pair) for pair in zip(new, states, strict=True)]
        states = new
        outputs = outputs if return_sequences else []
        outputs.append(output)
    return outputs[-1], ops.stack(outputs, axis=1), list(states)


def _run_in_scan(
    layer: Any,
    step: StepFunction,
    read: LoopInputs,
    states: States,
    return_sequences: bool,
    products: ScanProducts,
) -> LoopResult:
    """Run the steps in JAX's scan, for a cell whose output is its h.

    The scan also returns the inputs of the products. Keras's loop is a scan too, but it cannot.
    """
    import jax

    valid = None
    if read.padding is not None:
        valid = ops.transpose(ops.cast(read.padding, "bool"))

    def output_of(valid: Tensor | None, h: Tensor) -> Tensor:
        if valid is None or not layer.zero_output_for_mask:
            return h
        return _keep_previous(valid, h, ops.zeros_like(h))

    def loop(inputs: Tensor, perturbations: Perturbations) -> tuple[LoopResult, ProductInputs]:
        def scan_step(previous: States, of_step: Any) -> tuple[States, Any]:
            x, valid, step_masks, perturbations = of_step
            (_, new), product_inputs = products.run_step(
                lambda: step(x, previous, {**read.fixed_masks, **step_masks}), perturbations
            )
            if valid is not None:
                new = [_keep_previous(valid, *pair) for pair in zip(new, previous, strict=True)]
            output = output_of(valid, new[0]) if return_sequences else None
            return new, (output, product_inputs)

        by_step = inputs, valid, read.step_masks, perturbations
        end, (outputs, product_inputs) = jax.lax.scan(scan_step, list(states), by_step)
        last = output_of(None if valid is None else valid[-1], end[0])
        outputs = swap_time_and_batch(outputs) if return_sequences else ops.expand_dims(last, 1)
        return (last, outputs, end), product_inputs

    return products.run_loop(loop, swap_time_and_batch(read.inputs))  # type: ignore[no-any-return]


def _keep_previous(valid: Tensor, new: Tensor, previous: Tensor) -> Tensor:
    """Return the new values `[B, ...]`, but the previous ones for samples whose step is padding."""
    sizes = (-1, *(1 for _ in new.shape[1:]))
    return ops.where(ops.reshape(valid, sizes), new, previous)


def swap_time_and_batch(values: Tensor) -> Tensor:
    """Swap time and batch: `[T, B, ...]` becomes `[B, T, ...]`, and the reverse."""
    return ops.swapaxes(values, 0, 1)
