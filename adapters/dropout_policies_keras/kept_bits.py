"""What calls inside `dropout_policies.sequence` and `hold` keep of their masks.

The bits of a mask that is held are drawn once, those of steps some steps in advance. That makes
what is compiled smaller, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from dropout_policies.adapter import PlannedMask, Slot, steps_to_draw

from . import tracing
from .tracing import Tensor


class DrawnBits(NamedTuple):
    """Which elements of some steps of a mask are kept.

    Args:
        made_for: what they were drawn for.
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
        goes_on: whether each call goes on at the step at which the one before ended.
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
        """The bits of a mask, kept or drawn now.

        Args:
            slot: the mask's.
            mask: what is planned.
            rows: the number of the batch's first row, or of each row, which no scope changes.
            first: the number of the first step.
            draw: draws bits of a shape `(T, B, F)` from a first step on.
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
    """Whether bits can be used after what draws them: not where a transformation of `torch.func`
    ends in between."""
    return keras.backend.backend() != "torch" or tracing.has_values(keep)
