"""The keys that a module draws its masks from, and the number of its calls."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from dropout_policies_kernels.tracing import export_tracer, shared_memory
from torch import Tensor


class MaskKeys:
    """The keys that a module draws its masks from.

    Args:
        seed: the seed of keyed masks. None: use PyTorch's own generator.
        number: the number of calls so far.
        hold: whether every call has the masks of the first call.
        always: whether masks also fall in evaluation.
        rates_at: the call whose rates are used, for a schedule that must not move. None: each call
            uses its own rates.

    Attributes:
        calls: the number of calls, as a scalar tensor that compiled graphs read and increment.
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
        # Both share one number. Outside graphs it is read and incremented without PyTorch's
        # operators, because torch.func allows no in-place operator on it.
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    @property
    def number(self) -> int:
        return int(self._number)

    @number.setter
    def number(self, number: int) -> None:
        self._number[()] = number

    def in_graph(self) -> Tensor:
        """Return the number of calls as a graph reads it. An exported program has its own."""
        tracer = export_tracer()
        if tracer is None:
            return self.calls
        if self._exported is None or self._exported.tracer() is not tracer:
            self._exported = ExportedCalls(tracer, self.number)
        return self._exported.calls

    def count_in_graph(self) -> None:
        """Make a graph count a call."""
        self.in_graph().add_(1)
        if self._exported is not None and export_tracer() is not None:
            self._exported.reset(self.number)  # a call counts only when the program runs

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskKeys, (self.seed, self.number, self.hold, self.always, self.rates_at)


class ExportedCalls:
    """The counter of one exported program. It starts at the layer's current number of calls.

    Args:
        tracer: the tracer that records the program.
        number: the number of calls so far.

    Attributes:
        calls: the counter, which the program keeps as its own constant.
    """

    def __init__(self, tracer: Any, number: int) -> None:
        self.tracer = weakref.ref(tracer)
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    def reset(self, number: int) -> None:
        """Set the counter without PyTorch's operators, which would be recorded."""
        self._number[()] = number
