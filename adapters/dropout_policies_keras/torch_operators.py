"""Keras's cells over whole sequences, in PyTorch's operators, on Keras's torch backend.

The operators have PyTorch's layout of weights and its order of gates, which is the core's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from dropout_policies.adapter import (
    CellType,
    Site,
    cell_types,
)

from .cells import SiteMasks, States, Weights
from .policy_cells import GATE_ORDER, Cell
from .tracing import Tensor

if TYPE_CHECKING:
    import dropout_policies_kernels.cells as torch_cells


def run_sequence(
    cell: Cell,
    kind: CellType,
    weights: Weights,
    x: Tensor,
    input_mask: Tensor | None,
    states: States,
    masks: SiteMasks,
) -> tuple[Tensor, States] | None:
    """Run one cell over a whole sequence, if an operator can and is faster than a loop.

    On a GPU, and in half precision, no operator was tried under Keras, so the loop runs.

    Args:
        cell: the cell.
        kind: the type of the cell.
        weights: the weights, with their masks applied.
        x: the input, `[B, T, D]`, in reading order and without padding.
        input_mask: the masks of the input if each gate has its own, `[T or 1, B, G*D]`, else None.
        states: the initial states.
        masks: the other masks inside the recurrence by site, `[T or 1, B, F]`. Masks of gates are
            in the core's order.

    Returns:
        h of all steps `[B, T, H]`, and the last states. None: the loop has to run.
    """
    mode = _find_mode(cell, kind)
    if keras.backend.backend() != "torch" or mode is None:
        return None
    import torch
    from dropout_policies_kernels import operators, tracing

    by_step = x.transpose(0, 1)
    if (
        x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or torch.is_autocast_enabled("cpu")
        or tracing.has_dispatch_mode()
        or operators.is_loop_faster(by_step)
    ):
        return None
    masks = dict(masks) if input_mask is None else {**masks, Site.INPUT: input_mask}
    in_torch_layout = _in_torch_layout(weights, GATE_ORDER[kind])
    if not operators.supports(mode, in_torch_layout, masks, (by_step, *states)):
        return None
    outputs, end = operators.run_operator(
        mode, in_torch_layout, by_step, tuple(states), masks, reverse=False
    )
    return outputs.transpose(0, 1), list(end)


def _find_mode(cell: Cell, kind: CellType) -> str | None:
    """Find PyTorch's name for the equations of a cell. None if PyTorch has no such layer."""
    functions = keras.activations
    if kind is cell_types.RNN:
        modes = {functions.tanh: "RNN_TANH", functions.relu: "RNN_RELU"}
        return modes.get(cell.activation)
    if cell.activation is not functions.tanh or cell.recurrent_activation is not functions.sigmoid:
        return None
    if kind is cell_types.LSTM:
        return "LSTM"
    return "GRU" if kind is cell_types.GRU and cell.reset_after else None


def _in_torch_layout(weights: Weights, order: tuple[int, ...]) -> torch_cells.Weights:
    """Transpose weights, and put their gates into the core's order."""
    from dropout_policies_kernels import cells as torch_cells

    def convert(weight: Tensor) -> Tensor:
        transposed = ops.transpose(weight)
        if order == tuple(sorted(order)):
            return transposed
        # Along the first axis, backward too: along the last one it takes ten times as long.
        gates = ops.split(transposed, len(order))
        return ops.concatenate([gates[order.index(gate)] for gate in sorted(order)])

    biases = (weights.bias, weights.recurrent_bias)
    return torch_cells.Weights(
        convert(weights.kernel),
        convert(weights.recurrent_kernel),
        *(None if bias is None else convert(bias) for bias in biases),
    )
