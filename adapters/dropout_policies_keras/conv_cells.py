"""One step of Keras's convolutional LSTM under a policy.

Values have spatial axes: `[B, *S, C]`, or `[B, C, *S]`, depending on the cell's `data_format`.
Masks are drawn as the core plans them, `[T, B, F]`. Here they get the axes of the masked values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from keras import ops

from dropout_policies.adapter import WEIGHTS, Policy, Site

from .cells import SiteMasks, States, StepFunction, apply_mask, as_tensor, update_lstm
from .layer_cells import spatial_shape_of_state
from .policy_cells import Cell
from .tracing import Tensor

GATES = 4
"""The number of gates: i, f, g and o, in Keras's order and in the core's."""

ToGates = Callable[[Tensor, Tensor | None], Tensor]
"""A function that maps the input of one or all steps, and its masks, to its part of the gates."""


def masks_of_values(cell: Cell, policy: Policy, masks: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Give the masks of a call the axes of the values that they mask.

    Args:
        cell: the built cell.
        policy: the policy of the masks.
        masks: the masks by site, `[T or 1, B, F]`. F is 1 for the mean of a mask.

    Returns:
        The masks by site, `[T or 1, B, *S or 1, C]`, in the cell's `data_format`. If each gate has
        its own mask, the masks lie side by side along the channels. Masks of weights stay as they
        are.
    """
    inside, outside = tuple(cell.spatial_dims), spatial_shape_of_state(cell)
    found = {}
    for site, mask in masks.items():
        if site in WEIGHTS:
            found[site] = mask
            continue
        is_input = site in (Site.INPUT, Site.BETWEEN)
        spatial, channels = (inside, cell.input_dim) if is_input else (outside, cell.filters)
        is_mean = mask.shape[-1] == 1
        gates = GATES if policy[site].gates == "untied" and not is_mean else 1
        has_positions = mask.shape[-1] == gates * channels * prod(spatial)
        sizes = spatial if has_positions else (1,) * len(spatial)
        values = ops.reshape(
            mask, (*ops.shape(mask)[:2], 1 if is_mean else gates * channels, *sizes)
        )
        is_last = cell.data_format == "channels_last"
        found[site] = ops.moveaxis(values, 2, -1) if is_last else values
    return found


def make_step(cell: Cell, dtype: str, masks: dict[Site, Tensor]) -> tuple[ToGates, StepFunction]:
    """Make the functions of a cell under masks: for its input, and for one step.

    Args:
        cell: the built cell.
        dtype: the dtype of the computation.
        masks: the masks by site. Those of weights are removed.

    Returns:
        The function from the input to its part of the gates, and the function for one step.
    """
    kernel = _masked_kernel(cell.kernel, masks.pop(Site.INPUT_WEIGHT, None), dtype)
    recurrent = _masked_kernel(cell.recurrent_kernel, masks.pop(Site.RECURRENT_WEIGHT, None), dtype)
    axis = -1 if cell.data_format == "channels_last" else -(cell.rank + 1)
    bias = None if cell.bias is None else _bias_of_gates(cell, dtype)

    def convolve_input(value: Tensor, weight: Tensor) -> Tensor:
        return cell.input_conv(value, weight, None, padding=cell.padding)

    def to_gates(x: Tensor, mask: Tensor | None) -> Tensor:
        has_steps = len(x.shape) == cell.rank + 3
        convolve = _of_all_steps(convolve_input) if has_steps else convolve_input
        gates = _gates(convolve, x, mask, kernel, axis)
        return gates if bias is None else gates + bias

    def step(input_gates: Tensor, states: States, masks: SiteMasks) -> States:
        hidden = masks.get(Site.HIDDEN)
        gates = input_gates + _gates(cell.recurrent_conv, states[0], hidden, recurrent, axis)
        return update_lstm(cell, gates, states, masks, axis)

    return to_gates, step


def _gates(
    convolve: Callable[[Tensor, Tensor], Tensor],
    value: Tensor,
    mask: Tensor | None,
    kernel: Tensor,
    axis: int,
) -> Tensor:
    """Compute a value's part of the gates, under one mask or one for each gate."""
    if mask is None or mask.shape[axis] in (1, value.shape[axis]):
        return convolve(apply_mask(mask, value), kernel)
    pairs = zip(ops.split(mask, GATES, axis=axis), ops.split(kernel, GATES, axis=-1), strict=True)
    return ops.concatenate([convolve(value * m, weight) for m, weight in pairs], axis=axis)


def _of_all_steps(
    convolve: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a convolution of the values of all steps, `[B, T, ...]`."""

    def convolve_all(values: Tensor, kernel: Tensor) -> Tensor:
        batch, steps = ops.shape(values)[:2]
        flat = convolve(ops.reshape(values, (-1, *values.shape[2:])), kernel)
        return ops.reshape(flat, (batch, steps, *flat.shape[1:]))

    return convolve_all


def _masked_kernel(variable: Any, mask: Tensor | None, dtype: str) -> Tensor:
    """Apply a mask `[1, G*F, C*K]`, or its mean `[1, 1, 1]`, to a kernel `[*K, C, G*F]`."""
    kernel = as_tensor(variable, dtype)
    if mask is None:
        return kernel
    if prod(mask.shape) == 1:
        return kernel * mask[0, 0, 0]
    *taps, channels, gates = kernel.shape
    by_tap = ops.reshape(mask[0], (gates, channels, *taps))
    return kernel * ops.transpose(by_tap, (*range(2, 2 + len(taps)), 1, 0))


def _bias_of_gates(cell: Cell, dtype: str) -> Tensor:
    """Return the bias `[G*F]` in a shape that can be added to gates with spatial axes."""
    bias = as_tensor(cell.bias, dtype)
    if cell.data_format == "channels_last":
        return bias
    return ops.reshape(bias, (-1, *(1 for _ in range(cell.rank))))
