"""One step of Keras's own cells under a policy, from their weights and activations.

Masks come in the core's order of gates (i, f, g, o and r, z, n); Keras keeps a GRU's as z, r, n.
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
"""What is carried from step to step: h `[B, H]`, and c `[B, H]` of an LSTM."""

SiteMasks = Mapping[Site, Tensor]
"""The masks of one step by site, each `[B or 1, F or 1]`; a site without one is not masked."""


@dataclass(frozen=True)
class Weights:
    """The weights of a cell as tensors, as Keras keeps them: `[D, G*H]`, `[H, G*H]`, `[G*H]`."""

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor | None = None
    recurrent_bias: Tensor | None = None

    @classmethod
    def of(cls, cell: Cell, kind: CellType, dtype: str, masks: dict[Site, Tensor]) -> Weights:
        """A cell's weights under their masks `[1, G*H, D or H]`, which are taken out of `masks`."""
        order = GATE_ORDER[kind]

        def masked(variable: Any, site: Site) -> Tensor:
            weight, mask = as_tensor(variable, dtype), masks.pop(site, None)
            if mask is None:
                return weight
            transposed = ops.transpose(in_keras_order(mask, order, axis=1)[0])
            # On torch that is a view, and slow to multiply with, forward and backward. Flattened,
            # it is laid out as the weight is.
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
    """A mask whose gates lie side by side along an axis, from the core's order to Keras's."""
    if order == tuple(sorted(order)) or mask.shape[axis] == 1:
        return mask
    by_gate = ops.split(mask, len(order), axis=axis)
    return ops.concatenate([by_gate[gate] for gate in order], axis=axis)


def is_shared_by_gates(mask: Tensor | None, width: int) -> bool:
    """Whether all gates have one mask of a value of some width, or none."""
    return mask is None or mask.shape[-1] in (1, width)


def make_gates_product(
    kernel: Tensor,
    gates: int,
    mask_per_gate: bool,
    make_product: MakeProduct,
    added_gates: int = 0,
) -> Callable[..., Tensor]:
    """The function from a value `[..., F]` and its mask, if any, to the gates `[..., G*H]`.

    Args:
        kernel: `[F, G*H]`.
        gates: G.
        mask_per_gate: whether each gate has a mask of its own; the masks lie side by side in
            Keras's order, `[..., G*F]`.
        make_product: makes the product with a kernel.
        added_gates: how many of the gates, from the first, are only added to those of the input.
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
    """D(value), under a mask or none."""
    return value if mask is None else value * mask


def apply_drop(masks: SiteMasks, site: Site, value: Tensor) -> Tensor:
    """D(value), where a step has a mask at a site."""
    return apply_mask(masks.get(site), value)


def apply_zoneout(masks: SiteMasks, site: Site, previous: Tensor, new: Tensor) -> Tensor:
    """d ⊙ previous + (1 − d) ⊙ new."""
    if site not in masks:
        return new
    d = masks[site]
    return d * previous + (1.0 - d) * new


StepFunction = Callable[[Tensor, States, SiteMasks], States]
"""From the input's part of the gates `[B, G*H]`, the states and the masks to the new states."""

HiddenGates = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""The part of h in a GRU's z and r, and the function from r to its part in n."""


def make_step(
    cell: Cell,
    kind: CellType,
    weights: Weights,
    mask_per_gate: bool,
    make_product: MakeProduct,
) -> StepFunction:
    """One step of one of Keras's cells under masks.

    Args:
        cell: the cell.
        kind: its type.
        weights: its weights.
        mask_per_gate: whether each gate has a mask of h of its own, in Keras's order.
        make_product: makes products with a kernel, each of which is used once in a step.
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
    """The new states of an LSTM.

    Args:
        cell: whose activations they go through.
        gates: i, f, g and o side by side, before their activations.
        states: h and c.
        masks: by site.
        axis: the one along which the gates lie.
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
