"""One step of Keras's own cells under a policy, computed from their weights and activations.

Masks come in the core's order of gates: i, f, g, o or r, z, n. Keras has a GRU's as z, r, n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from dropout_policies.adapter import (
    CellType,
    Site,
    cell_types,
)

from .kernels.compiled import checkpoint_update
from .kernels.products import MakeProduct
from .policy_cells import GATE_ORDER, Cell
from .tracing import Tensor

States = list[Tensor]
"""The state that a layer carries from step to step: h `[B, H]`, and for an LSTM also c `[B, H]`."""

SiteMasks = Mapping[Site, Tensor]
"""The masks of one step by site, each `[B or 1, F or 1]`. A site that is missing has no mask."""


@dataclass(frozen=True)
class Weights:
    """A cell's weights as tensors, in Keras's layout: `[D, G*H]`, `[H, G*H]`, `[G*H]`, `[G*H]`."""

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor | None = None
    recurrent_bias: Tensor | None = None

    @classmethod
    def of(cls, cell: Cell, kind: CellType, dtype: str, masks: dict[Site, Tensor]) -> Weights:
        """Apply weight masks `[1, G*H, D or H]` to a cell's weights, and pop them from `masks`."""
        order = GATE_ORDER[kind]

        def masked(variable: Any, site: Site) -> Tensor:
            weight, mask = as_tensor(variable, dtype), masks.pop(site, None)
            if mask is None:
                return weight
            transposed = ops.transpose(in_keras_order(mask, order, axis=1)[0])
            # On torch, a transposed tensor is a view, which is slow in products, forward and
            # backward. Flattening gives it the memory layout of the weight.
            return weight * ops.reshape(ops.reshape(transposed, (-1,)), transposed.shape)

        kernel = masked(cell.kernel, Site.INPUT_WEIGHT)
        recurrent_kernel = masked(cell.recurrent_kernel, Site.RECURRENT_WEIGHT)
        if cell.bias is None:
            return cls(kernel, recurrent_kernel)
        bias = as_tensor(cell.bias, dtype)
        if len(bias.shape) == 2:  # a GRU with reset_after
            return cls(kernel, recurrent_kernel, bias[0], bias[1])
        return cls(kernel, recurrent_kernel, bias)


def as_tensor(variable: Any, dtype: str) -> Tensor:
    return ops.cast(ops.convert_to_tensor(variable), dtype)


def in_keras_order(mask: Tensor, order: tuple[int, ...], axis: int = -1) -> Tensor:
    """Reorder a mask whose gates lie side by side from the core's gate order to Keras's."""
    if order == tuple(sorted(order)) or mask.shape[axis] == 1:
        return mask
    by_gate = ops.split(mask, len(order), axis=axis)
    return ops.concatenate([by_gate[gate] for gate in order], axis=axis)


def is_shared_by_gates(mask: Tensor | None, width: int) -> bool:
    """Whether all gates share one mask of a value of this width, or have none."""
    return mask is None or mask.shape[-1] in (1, width)


def make_gates_product(
    kernel: Tensor,
    gates: int,
    mask_per_gate: bool,
    make_product: MakeProduct,
    added_gates: int = 0,
) -> Callable[..., Tensor]:
    """Make a function that maps a value `[..., F]` and its mask or None to the gates `[..., G*H]`.

    Args:
        kernel: `[F, G*H]`.
        gates: G.
        mask_per_gate: whether each gate has its own mask. The masks lie side by side in Keras's
            order, `[..., G*F]`.
        make_product: the function that makes the product with a kernel.
        added_gates: how many of the first gates are only added to the gates of the input.
    """
    if not mask_per_gate:
        product = make_product(kernel, added_gates * kernel.shape[1] // gates)
        return lambda value, mask: product(apply_mask(mask, value))
    products = [make_product(of_gate) for of_gate in ops.split(kernel, gates, axis=-1)]

    def gate_by_gate(value: Tensor, masks: Tensor) -> Tensor:
        pairs = zip(products, ops.split(masks, gates, axis=-1), strict=True)
        return ops.concatenate([product(value * mask) for product, mask in pairs], axis=-1)

    return gate_by_gate


def apply_mask(mask: Tensor | None, value: Tensor) -> Tensor:
    """Return D(value): the value under the mask, or the value itself without a mask."""
    return value if mask is None else value * mask


def apply_drop(masks: SiteMasks, site: Site, value: Tensor) -> Tensor:
    """Return D(value) if the step has a mask at the site, otherwise the value."""
    return apply_mask(masks.get(site), value)


def apply_zoneout(masks: SiteMasks, site: Site, previous: Tensor, new: Tensor) -> Tensor:
    """Return d ⊙ previous + (1 − d) ⊙ new for the site's mask d, or `new` without a mask."""
    if site not in masks:
        return new
    d = masks[site]
    return d * previous + (1.0 - d) * new


StepFunction = Callable[[Tensor, States, SiteMasks], States]
"""A function that maps the input's part of the gates `[B, G*H]`, states and masks to new states."""

HiddenGates = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""The part of h in a GRU's z, its part in r, and a function that maps r to its part in n."""


def make_step(
    cell: Cell,
    kind: CellType,
    weights: Weights,
    mask_per_gate: bool,
    make_product: MakeProduct,
) -> StepFunction:
    """Make the function for one step of one of Keras's cells under masks.

    Args:
        cell: the cell.
        kind: the type of the cell.
        weights: the weights of the cell.
        mask_per_gate: whether each gate has its own mask of h, in Keras's order.
        make_product: the function that makes the product with a kernel. A step uses each product
            once.
    """
    kinds = {
        cell_types.LSTM: _make_lstm_step,
        cell_types.GRU: _make_gru_step,
        cell_types.RNN: _make_rnn_step,
    }
    return kinds[kind](cell, weights, mask_per_gate, make_product)


def _make_lstm_step(
    cell: Cell, weights: Weights, mask_per_gate: bool, make_product: MakeProduct
) -> StepFunction:
    to_gates = make_gates_product(weights.recurrent_kernel, 4, mask_per_gate, make_product, 4)

    def step(input_gates: Tensor, states: States, masks: SiteMasks) -> States:
        gates = input_gates + to_gates(states[0], masks.get(Site.HIDDEN))
        return update_lstm(cell, gates, states, masks)

    return step


def update_lstm(
    cell: Cell, gates: Tensor, states: States, masks: SiteMasks, axis: int = -1
) -> States:
    """Compute the new states of an LSTM.

    Args:
        cell: the cell whose activations are used.
        gates: i, f, g and o side by side, before their activations.
        states: h and c.
        masks: the masks by site.
        axis: the axis along which the gates lie.
    """

    @checkpoint_update
    def update(gates: Tensor, h: Tensor, c: Tensor) -> States:
        i, f, g, o = ops.split(gates, 4, axis=axis)
        i, f, o = (cell.recurrent_activation(gate) for gate in (i, f, o))
        new_c = f * c + i * apply_drop(masks, Site.CANDIDATE, cell.activation(g))
        new_c = apply_drop(masks, Site.CELL, new_c)
        new_h = apply_drop(masks, Site.STATE, o * cell.activation(new_c))
        return [
            apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h),
            apply_zoneout(masks, Site.CELL_UPDATE, c, new_c),
        ]

    return update(gates, *states)


def _make_gru_step(
    cell: Cell, weights: Weights, mask_per_gate: bool, make_product: MakeProduct
) -> StepFunction:
    def reset_after() -> Callable[[Tensor, Tensor | None], HiddenGates]:
        to_gates = make_gates_product(weights.recurrent_kernel, 3, mask_per_gate, make_product, 2)

        def hidden_gates(h: Tensor, mask: Tensor | None) -> HiddenGates:
            gates = to_gates(h, mask)
            if weights.recurrent_bias is not None:
                gates = gates + weights.recurrent_bias
            z, r, n = ops.split(gates, 3, axis=-1)
            return z, r, lambda reset: reset * n

        return hidden_gates

    def reset_before() -> Callable[[Tensor, Tensor | None], HiddenGates]:
        kernels = ops.split(weights.recurrent_kernel, 3, axis=-1)
        to_z, to_r, to_n = (make_product(kernel) for kernel in kernels)

        def hidden_gates(h: Tensor, mask: Tensor | None) -> HiddenGates:
            gate_masks = ops.split(mask, 3, axis=-1) if mask_per_gate else [mask] * 3
            for_z, for_r, for_n = (apply_mask(each, h) for each in gate_masks)
            return to_z(for_z), to_r(for_r), lambda reset: to_n(reset * for_n)

        return hidden_gates

    hidden_gates = reset_after() if cell.reset_after else reset_before()

    def step(input_gates: Tensor, states: States, masks: SiteMasks) -> States:
        (h,) = states
        hidden_z, hidden_r, hidden_n = hidden_gates(h, masks.get(Site.HIDDEN))
        input_z, input_r, input_n = ops.split(input_gates, 3, axis=-1)

        @checkpoint_update
        def update(z: Tensor, n: Tensor, h: Tensor) -> States:
            z = cell.recurrent_activation(z)
            n = apply_drop(masks, Site.CANDIDATE, cell.activation(n))
            new_h = apply_drop(masks, Site.STATE, z * h + (1.0 - z) * n)
            return [apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h)]

        return update(
            input_z + hidden_z,
            input_n + hidden_n(cell.recurrent_activation(input_r + hidden_r)),
            h,
        )

    return step


def _make_rnn_step(
    cell: Cell, weights: Weights, mask_per_gate: bool, make_product: MakeProduct
) -> StepFunction:
    to_gates = make_gates_product(weights.recurrent_kernel, 1, mask_per_gate, make_product, 1)

    def step(input_gates: Tensor, states: States, masks: SiteMasks) -> States:
        (h,) = states
        new_h = cell.activation(input_gates + to_gates(h, masks.get(Site.HIDDEN)))
        new_h = apply_drop(masks, Site.STATE, new_h)
        return [apply_zoneout(masks, Site.HIDDEN_UPDATE, h, new_h)]

    return step
