"""Running a Keras recurrent layer under given masks, on the fastest correct path.

Our own steps run in a loop (`loops`). The input's part of the gates is computed before the loop for
all steps at once, and each step reads its own masks. If no mask falls inside the recurrence, and
Keras's layer may have one kernel for all steps (cuDNN), that layer runs instead. It then runs on
masked weights if the policy masks weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    CUSTOM,
    Site,
)

from . import conv_cells, custom_cell, torch_operators
from .cells import (
    SiteMasks,
    States,
    Weights,
    apply_mask,
    in_keras_order,
    is_shared_by_gates,
    make_gates_product,
    make_step,
)
from .kernels import compiled, products
from .layer_cells import PlacedCell
from .loops import LoopResult, loop_over_steps, swap_time_and_batch
from .masks import Masks
from .policy_cells import GATE_ORDER, Cell, is_convolutional
from .tracing import Tensor


class _FallbackLoop(keras.layers.RNN):  # type: ignore[misc]
    """The base class whose loop Keras's layers run if they have no single kernel for all steps.

    Here, that loop is our own.
    """

    fallback: Callable[[], LoopResult]

    def inner_loop(self, *_: Any, **__: Any) -> LoopResult:
        return self.fallback()


class _LSTM(keras.layers.LSTM, _FallbackLoop): ...  # type: ignore[misc]


class _GRU(keras.layers.GRU, _FallbackLoop): ...  # type: ignore[misc]


FUSED_LAYERS = {keras.layers.LSTM: _LSTM, keras.layers.GRU: _GRU}
"""The layers that may have a single kernel for all steps."""


def run_cells(
    layer: Any,
    cells: list[PlacedCell],
    sequences: Tensor,
    initial_state: list[Any],
    padding: Tensor | None,
    masks: Masks,
    training: bool,
    project_at_once: bool,
) -> LoopResult:
    """Run a recurrent layer object under its masks.

    Args:
        layer: the object. It runs backward if `go_backwards`.
        cells: its cells.
        sequences: the input `[B, T, D]`.
        initial_state: the states of its one cell, or of each cell of a `StackedRNNCells`.
        padding: Keras's mask `[B, T]`, False where a step is padding, or None.
        masks: the masks by slot. Masks of steps are in the order of the text.
        training: the `training` argument of a user's own cell.
        project_at_once: whether to compute the input's part of the gates for all steps at once.
            This is faster, but takes more memory than computing it step by step.

    Returns:
        The last output, the outputs, and the last states.
    """
    direction = int(layer.go_backwards)
    if direction:
        # From here on everything is in reading order.
        sequences = ops.flip(sequences, axis=1)
        padding = None if padding is None else ops.flip(padding, axis=1)
        masks = {slot: _reverse_steps(mask) for slot, mask in masks.items()}
    is_stacked = type(layer.cell) is keras.layers.StackedRNNCells
    last, outputs, end_states = None, sequences, []
    for number, each in enumerate(cells):
        start = initial_state[number] if is_stacked else initial_state
        is_nested = isinstance(start, list | tuple)
        own = {s.site: m for s, m in masks.items() if s[1:] == (each.placement.layer, direction)}
        return_sequences = layer.return_sequences or each is not cells[-1]
        states = list(start) if is_nested else [start]
        last, outputs, end = _run_cell(
            layer, each, outputs, states, padding, own, return_sequences, training, project_at_once
        )
        end_states.append(list(end) if is_nested else end[0])
    return last, outputs, end_states if is_stacked else end_states[0]


def _reverse_steps(mask: Tensor) -> Tensor:
    return mask if mask.shape[0] == 1 else ops.flip(mask, axis=0)


def _run_cell(
    layer: Any,
    each: PlacedCell,
    x: Tensor,
    states: States,
    padding: Tensor | None,
    masks: dict[Site, Tensor],
    return_sequences: bool,
    training: bool,
    project_at_once: bool,
) -> LoopResult:
    """Run one cell under its masks by site over `x` `[B, T, D]`, in reading order."""
    if is_convolutional(each.cell):
        masks = conv_cells.masks_of_values(each.cell, each.placement.policy, masks)
    output_mask = masks.pop(Site.OUTPUT, None)
    input_mask = masks.pop(Site.INPUT, masks.pop(Site.BETWEEN, None))
    if is_convolutional(each.cell):
        result = _run_conv_cell(
            layer,
            each.cell,
            x,
            input_mask,
            states,
            padding,
            masks,
            return_sequences,
            project_at_once,
        )
        return _mask_output(result, output_mask, return_sequences)
    if input_mask is not None and is_shared_by_gates(input_mask, x.shape[-1]):
        x, input_mask = x * swap_time_and_batch(input_mask), None
    if each.type is CUSTOM:
        step = custom_cell.make_step(each.cell, training)
        result = loop_over_steps(layer, step, x, states, padding, masks, return_sequences)
    else:
        result = _run_keras_cell(
            layer, each, x, input_mask, states, padding, masks, return_sequences, project_at_once
        )
    return _mask_output(result, output_mask, return_sequences)


def _mask_output(
    result: LoopResult, output_mask: Tensor | None, return_sequences: bool
) -> LoopResult:
    """Apply the mask of a layer's output to its result."""
    if output_mask is None:
        return result
    last, outputs, end = result
    output_mask = swap_time_and_batch(output_mask)
    return last * output_mask[:, -1], outputs * output_mask if return_sequences else outputs, end


def _run_conv_cell(
    layer: Any,
    cell: Cell,
    x: Tensor,
    input_mask: Tensor | None,
    states: States,
    padding: Tensor | None,
    masks: dict[Site, Tensor],
    return_sequences: bool,
    project_at_once: bool,
) -> LoopResult:
    """Run a convolutional cell. `x` and the masks have spatial axes."""
    to_gates, cell_step = conv_cells.make_step(cell, x.dtype, masks)

    def step(inputs: Tensor, previous: States, step_masks: SiteMasks) -> tuple[Tensor, States]:
        gates = inputs if project_at_once else to_gates(inputs, None)
        new = cell_step(gates, previous, step_masks)
        return new[0], new

    if input_mask is not None:
        input_mask = swap_time_and_batch(input_mask)
    # In evaluation, which runs step by step, a mask is only its mean.
    inputs = to_gates(x, input_mask) if project_at_once else apply_mask(input_mask, x)
    return loop_over_steps(layer, step, inputs, states, padding, masks, return_sequences)


def _run_keras_cell(
    layer: Any,
    each: PlacedCell,
    x: Tensor,
    input_mask: Tensor | None,
    states: States,
    padding: Tensor | None,
    masks: dict[Site, Tensor],
    return_sequences: bool,
    project_at_once: bool,
) -> LoopResult:
    """Run one of Keras's cells. `input_mask` holds a mask for each gate, or is None."""
    weights, order = Weights.of(each.cell, each.type, x.dtype, masks), GATE_ORDER[each.type]
    fused = next((FUSED_LAYERS[kind] for kind in FUSED_LAYERS if isinstance(layer, kind)), None)
    may_be_fused = (
        fused is not None
        and input_mask is None
        and not masks
        and compiled.may_use_fused_kernel(layer, x)
    )
    if padding is None and not may_be_fused:
        found = torch_operators.run_sequence(
            each.cell, each.type, weights, x, input_mask, states, masks
        )
        if found is not None:
            outputs, end = found
            return outputs[:, -1], outputs if return_sequences else outputs[:, -1:], end
    loop_tensors = [x, input_mask, *states, *masks.values(), *vars(weights).values()]
    if input_mask is not None:
        input_mask = in_keras_order(input_mask, order)
    mask_per_gate = not is_shared_by_gates(masks.get(Site.HIDDEN), states[0].shape[-1])
    if mask_per_gate:
        masks[Site.HIDDEN] = in_keras_order(masks[Site.HIDDEN], order)
    # If the bias is added for all steps at once, that makes one more array of all of them. If it is
    # added in each step, it may cost an operation in each.
    bias, step_bias = (None, weights.bias) if compiled.fuses_elementwise() else (weights.bias, None)

    def loop() -> LoopResult:
        to_gates = make_gates_product(
            weights.kernel, len(order), input_mask is not None, products.plain_product
        )
        rows, steps = ops.shape(x)[:2]
        make_product = (
            products.select_product(rows, steps, loop_tensors)
            if project_at_once
            else products.plain_product
        )
        cell_step = make_step(each.cell, each.type, weights, mask_per_gate, make_product)

        def project(value: Tensor) -> Tensor:
            gates = to_gates(value, input_mask)
            return gates if bias is None else gates + bias

        def step(inputs: Tensor, previous: States, step_masks: SiteMasks) -> tuple[Tensor, States]:
            gates = inputs if project_at_once else project(inputs)
            new = cell_step(gates if step_bias is None else gates + step_bias, previous, step_masks)
            return new[0], new

        # The result is in the order in which the loop reads it, so that the loop makes no copy.
        inputs = swap_time_and_batch(project(swap_time_and_batch(x))) if project_at_once else x
        return loop_over_steps(
            layer, step, inputs, states, padding, masks, return_sequences, make_product
        )

    if fused is None or not may_be_fused:
        return loop()
    return _make_fused_layer(fused, layer, each.cell, weights, loop).inner_loop(
        x, states, padding, training=True
    )


def _make_fused_layer(
    kind: type[_FallbackLoop],
    layer: Any,
    cell: Cell,
    weights: Weights,
    fallback: Callable[[], LoopResult],
) -> _FallbackLoop:
    """Copy a layer, with a copy of its cell that has tensors in place of its weights.

    The layer and its cell do not change.
    """
    kernels = {"kernel": weights.kernel, "recurrent_kernel": weights.recurrent_kernel}
    changed = {"cell": _copy(cell, type(cell), kernels), "go_backwards": False}
    # TensorFlow skips an attribute that already reads as the new value, as our property may.
    changed["use_cudnn"] = vars(layer).get("use_cudnn", "auto")
    return _copy(layer, kind, changed | {"fallback": fallback})  # type: ignore[no-any-return]


def _copy(layer: Any, kind: type[Any], changed: Mapping[str, Any]) -> Any:
    """Make a shallow copy of a layer or cell, with another class and some other attributes."""
    copy = object.__new__(kind)
    vars(copy).update(vars(layer))
    vars(copy).update(changed)
    return copy
