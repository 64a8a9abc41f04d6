"""The bits of masks that calls inside `dropout_policies.sequence` and `hold` keep.

The bits of a held mask are drawn once. The bits of steps are drawn some steps in advance. This also
makes compiled code smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from dropout_policies.adapter import PlannedMask, Slot, steps_to_draw

from . import tracing
from .tracing import Tensor


class DrawnBits(NamedTuple):
    """The bits of some steps of a mask: which elements are kept.

    Args:
        made_for: the properties that they were drawn for.
        graph: the graph that they belong to.
        first: the number of the first step.
        keep: the bits, `[T, B, F]`.
    """

    made_for: Any
    graph: Any
    first: int
    keep: Tensor


class KeptBits:
    """The bits that the calls of one layer have drawn inside a scope.

    Args:
        goes_on: whether each call continues at the step where the previous one ended.
    """

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self._by_slot: dict[Slot, DrawnBits] = {}

    def find(
        self,
        slot: Slot,
        mask: PlannedMask,
        rows: int | Tensor,
        first: int | Tensor,
        draw: Callable[[tuple[Any, Any, int], int | Tensor], Tensor],
    ) -> Tensor:
        """Return the bits of a mask: those already kept, or newly drawn ones.

        Args:
            slot: the slot of the mask.
            mask: the planned mask.
            rows: the number of the batch's first row, or the number of each row. No scope changes
                the numbers of the rows.
            first: the number of the first step.
            draw: a function that draws bits of a shape `(T, B, F)` from a first step on.
        """
        steps, batch, width = mask.shape
        if not (isinstance(steps, int) and isinstance(batch, int) and isinstance(first, int)):
            return draw(mask.shape, first)
        first_row = rows if isinstance(rows, int) else None
        made_for, graph = (batch, width, mask.rate, first_row), tracing.current_graph()
        before = self._by_slot.get(slot)
        if before is not None and (before.made_for != made_for or before.graph is not graph):
            before = None
        if before is None or not before.first <= first <= first + steps <= _end(before):
            drawn = 0 if before is None else int(before.keep.shape[0])
            count = steps_to_draw(steps, drawn, self.goes_on)
            before = DrawnBits(made_for, graph, first, draw((count, batch, width), first))
            if _can_be_kept(before.keep):
                self._by_slot[slot] = before
        begin = first - before.first
        return before.keep[begin : begin + steps]


def _end(drawn: DrawnBits) -> int:
    return drawn.first + int(drawn.keep.shape[0])


def _can_be_kept(keep: Tensor) -> bool:
    """Whether bits can be used after the code that draws them.

    They cannot if a transformation of `torch.func` ends in between.
    """
    return keras.backend.backend() != "torch" or tracing.has_values(keep)
