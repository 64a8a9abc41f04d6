"""What the masks of a module's calls are drawn from, and the number of its calls."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from torch import Tensor

from .tracing import export_tracer, shared_memory


class MaskKeys:
    """What the masks of a module's calls are drawn from.

    Args:
        seed: for keyed masks; None for PyTorch's own generator.
        number: how many calls there were.
        hold: every call has the masks of the first.
        always: masks fall in evaluation too.
        rates_at: the call whose rates hold, where a schedule is not to move; None for each its own.

    Attributes:
        calls: the number of calls, as a scalar that compiled graphs read and count up.
    """

    def __init__(
        self,
        seed: int | None,
        number: int = 0,
        hold: bool = False,
        always: bool = False,
        rates_at: int | None = None,
    ) -> None:
        self.seed, self.hold, self.always, self.rates_at = seed, hold, always, rates_at
        self._exported: ExportedCalls | None = None
        # One number for both: outside graphs it is read and counted past PyTorch's operators, of
        # which torch.func allows none in place.
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    @property
    def number(self) -> int:
        return int(self._number)

    @number.setter
    def number(self, number: int) -> None:
        self._number[()] = number

    def in_graph(self) -> Tensor:
        """The number of calls as a graph reads it; that of an exported program is its own."""
        tracer = export_tracer()
        if tracer is None:
            return self.calls
        if self._exported is None or self._exported.tracer() is not tracer:
            self._exported = ExportedCalls(tracer, self.number)
        return self._exported.calls

    def count_in_graph(self) -> None:
        """Have a graph count a call."""
        self.in_graph().add_(1)
        if self._exported is not None and export_tracer() is not None:
            self._exported.reset(self.number)  # only what runs later is a call

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskKeys, (self.seed, self.number, self.hold, self.always, self.rates_at)


class ExportedCalls:
    """The counter of one exported program, which goes on from the number that the layer was at.

    Args:
        tracer: what records the program.
        number: how many calls there were.

    Attributes:
        calls: the counter, which the program keeps as a constant of its own.
    """

    def __init__(self, tracer: Any, number: int) -> None:
        self.tracer = weakref.ref(tracer)
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    def reset(self, number: int) -> None:
        """Set the counter past PyTorch's operators, which would be recorded."""
        self._number[()] = number
