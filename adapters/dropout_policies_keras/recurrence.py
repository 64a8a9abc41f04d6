"""Running a Keras recurrent layer under given masks, on the fastest path that is right.

A step of ours runs in a generic loop (`loops`): the input's part of the gates is computed before it
for all steps at once, and the masks of each step travel with that. Where no mask falls inside
the recurrence, Keras's layer is asked first where it may have one kernel for all steps (cuDNN), on
masked weights where masks fall on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    CUSTOM,
    CellType,
    Geometry,
    Placement,
    Plan,
    Site,
    plan_masks,
)

from . import custom_cell
from .cells import (
    ORDER,
    TYPES,
    Cell,
    Noise,
    States,
    Weights,
    in_keras_order,
    is_tied,
    step_of,
    to_gates,
    type_of,
)
from .kernels import compiled, products
from .loops import Looped, over_steps, swapped
from .masks import Masks
from .tracing import Tensor


class _Fallback(keras.layers.RNN):  # type: ignore[misc]
    """Where Keras's layers go on when they have no one kernel for all steps: to a loop of ours."""

    otherwise: Callable[[], Looped]

    def inner_loop(self, *_: Any, **__: Any) -> Looped:
        return self.otherwise()


class _LSTM(keras.layers.LSTM, _Fallback): ...  # type: ignore[misc]


class _GRU(keras.layers.GRU, _Fallback): ...  # type: ignore[misc]


FUSED = {keras.layers.LSTM: _LSTM, keras.layers.GRU: _GRU}
"""The layers that may have one kernel for all steps."""


@dataclass(frozen=True)
class Part:
    """One layer of a recurrent layer object: its cell, its kind, and where it stands."""

    cell: Cell
    type: CellType
    placement: Placement


def cells_of(layer: Any) -> list[Cell]:
    """A recurrent layer's cells: one, or those of a `StackedRNNCells`."""
    cell = layer.cell
    return list(cell.cells) if type(cell) is keras.layers.StackedRNNCells else [cell]


def known_cells(layer: Any) -> list[Cell]:
    """Those of Keras's own, whose dropout a policy takes over; none of a layer without a cell."""
    return (
        [cell for cell in cells_of(layer) if type(cell) in TYPES] if hasattr(layer, "cell") else []
    )


def parts_of(layer: Any, placement: Placement) -> list[Part]:
    """The layers that an object holds, each in its place of the stack."""
    cells, policy, where = cells_of(layer), placement.policy, placement
    return [
        Part(
            cell,
            type_of(cell),
            Placement(
                policy,
                where.layer + inner,
                where.first and inner == 0,
                where.last and inner == len(cells) - 1,
                where.depth + inner,
            ),
        )
        for inner, cell in enumerate(cells)
    ]


def planned(parts: list[Part], width: int, batch: Any, steps: Any, direction: int) -> Plan:
    """The masks of one call of some layers, each of which feeds the next.

    Args:
        parts: the layers.
        width: D of the first one.
        batch, steps: B and T.
        direction: 1 for an object that runs backward.
    """
    plan: Plan = {}
    for each in parts:
        state, output = custom_cell.sizes(each.cell)

        def of(hidden: int, each: Part = each, width: int = width) -> Plan:
            sizes = Geometry(
                width, hidden, 1, (direction,), batch=batch, steps=steps, cell=each.type
            )
            return plan_masks(each.placement, sizes)

        # The output of a cell of the user's own may have another width than its h.
        plan |= {s: mask for s, mask in of(output).items() if s.site is Site.OUTPUT}
        plan |= {s: mask for s, mask in of(state).items() if s.site is not Site.OUTPUT}
        width = output
    return plan


def run(
    layer: Any,
    parts: list[Part],
    sequences: Tensor,
    initial_state: list[Any],
    padding: Tensor | None,
    masks: Masks,
    training: bool,
    at_once: bool,
) -> Looped:
    """Run a recurrent layer object under its masks.

    Args:
        layer: whose loop runs; its direction is backward if `go_backwards`.
        parts: the layers that it holds.
        sequences: the input `[B, T, D]`.
        initial_state: the states of its one cell, or of each cell of a `StackedRNNCells`.
        padding: Keras's mask `[B, T]`, False where a step is padding, or None.
        masks: arrays by slot, in the order of the text.
        training: what a cell of the user's own is told.
        at_once: whether what the input brings to the gates is made for all steps at once, which is
            faster, or step by step, which takes less memory.
    """
    direction = int(layer.go_backwards)
    if direction:
        # From here on everything is in the order in which it is read.
        sequences = ops.flip(sequences, axis=1)
        padding = None if padding is None else ops.flip(padding, axis=1)
        masks = {slot: _turned(mask) for slot, mask in masks.items()}
    stacked = type(layer.cell) is keras.layers.StackedRNNCells
    last, outputs, ends = None, sequences, []
    for inner, each in enumerate(parts):
        start = initial_state[inner] if stacked else initial_state
        nested = isinstance(start, list | tuple)
        here = {s.site: m for s, m in masks.items() if s[1:] == (each.placement.layer, direction)}
        every = layer.return_sequences or each is not parts[-1]
        states = list(start) if nested else [start]
        last, outputs, end = _run_part(
            layer, each, outputs, states, padding, here, every, training, at_once
        )
        ends.append(list(end) if nested else end[0])
    return last, outputs, ends if stacked else ends[0]


def _turned(mask: Tensor) -> Tensor:
    return mask if mask.shape[0] == 1 else ops.flip(mask, axis=0)


def _run_part(
    layer: Any,
    each: Part,
    x: Tensor,
    states: States,
    padding: Tensor | None,
    masks: dict[Site, Tensor],
    every: bool,
    training: bool,
    at_once: bool,
) -> Looped:
    """One layer in reading order; `masks` by site; `every`: whether all outputs are wanted."""
    leaving = masks.pop(Site.OUTPUT, None)
    entry = masks.pop(Site.INPUT, masks.pop(Site.BETWEEN, None))
    if entry is not None and is_tied(entry, x.shape[-1]):
        x, entry = x * swapped(entry), None
    if each.type is CUSTOM:
        looped = over_steps(
            layer, custom_cell.step_of(each.cell, training), x, states, padding, masks, every
        )
    else:
        looped = _run_known(layer, each, x, entry, states, padding, masks, every, at_once)
    if leaving is None:
        return looped
    last, outputs, end = looped
    leaving = swapped(leaving)
    return last * leaving[:, -1], outputs * leaving if every else outputs, end


def _run_known(
    layer: Any,
    each: Part,
    x: Tensor,
    entry: Tensor | None,
    states: States,
    padding: Tensor | None,
    masks: dict[Site, Tensor],
    every: bool,
    at_once: bool,
) -> Looped:
    """One layer whose cell is one of Keras's own; `entry`: the untied masks of its input."""
    weights, order = Weights.of(each.cell, x.dtype, masks), ORDER[each.type]
    given = [x, entry, *states, *masks.values(), *vars(weights).values()]
    fused = next((FUSED[kind] for kind in FUSED if isinstance(layer, kind)), None)
    if entry is not None:
        entry = in_keras_order(entry, order)
    apart = not is_tied(masks.get(Site.HIDDEN), states[0].shape[-1])
    if apart:
        masks[Site.HIDDEN] = in_keras_order(masks[Site.HIDDEN], order)
    # Added for all steps at once it would be one more array of all; in a step it may cost a call.
    bias, later = (None, weights.bias) if compiled.fuses_a_step() else (weights.bias, None)

    def loop() -> Looped:
        to_input = to_gates(weights.kernel, len(order), entry is not None, products.plain)
        rows, steps = ops.shape(x)[:2]
        by = products.by_steps(rows, steps, given) if at_once else products.plain
        inside = step_of(each.cell, weights, apart, by)

        def gates(value: Tensor) -> Tensor:
            found = to_input(value, entry)
            return found if bias is None else found + bias

        def step(inputs: Tensor, before: States, noise: Noise) -> tuple[Tensor, States]:
            into = inputs if at_once else gates(inputs)
            new = inside(into if later is None else into + later, before, noise)
            return new[0], new

        # In the loop's own order, so that no copy of them is made for it.
        into = swapped(gates(swapped(x))) if at_once else x
        return over_steps(layer, step, into, states, padding, masks, every, by)

    if fused is None or entry is not None or masks or not compiled.may_have_kernel(layer, x):
        return loop()
    return _fused(fused, layer, each.cell, weights, loop).inner_loop(
        x, states, padding, training=True
    )


def _fused(
    kind: type[_Fallback], layer: Any, cell: Cell, weights: Weights, otherwise: Callable[[], Looped]
) -> _Fallback:
    """A copy of a layer, with a copy of its cell that has tensors in place of its weights.

    So nothing of theirs is changed.
    """
    kernels = {"kernel": weights.kernel, "recurrent_kernel": weights.recurrent_kernel}
    changed = {"cell": _copy(cell, type(cell), kernels), "go_backwards": False}
    # TensorFlow does not write down what the property that ours is says already.
    changed["use_cudnn"] = vars(layer).get("use_cudnn", "auto")
    return _copy(layer, kind, changed | {"otherwise": otherwise})  # type: ignore[no-any-return]


def _copy(layer: Any, kind: type[Any], changed: Mapping[str, Any]) -> Any:
    copy = object.__new__(kind)
    vars(copy).update(vars(layer))
    vars(copy).update(changed)
    return copy
