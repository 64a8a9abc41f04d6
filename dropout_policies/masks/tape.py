"""Recording the masks of calls as arrays, and replacing masks by given arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..argument_checks import short_repr
from ..errors import PolicyError
from ..placement.plans import Plan, Slot

MaskArrays = dict[Slot, npt.NDArray[Any]]
"""The masks of one call of one layer object, each with its planned shape; see `PlannedMask`."""

Record = dict[str, list[MaskArrays]]
"""The masks of each layer's calls in order, by the layer's name."""


class Tape(Protocol):
    """An object between a layer and the drawing of its masks.

    Attributes:
        plays: whether it provides masks of its own, which apply in evaluation too.
        position: the number of the next call. It is set back when activation checkpointing runs a
            call again.
    """

    plays: bool
    position: int

    def masks(
        self,
        plan: Plan,
        draw: Callable[[], dict[Slot, Any]],
        to_array: Callable[[Any], npt.NDArray[Any]],
        from_array: Callable[[npt.NDArray[Any]], Any],
    ) -> dict[Slot, Any]: ...


class Recorder:
    """Records the masks of one layer's calls.

    Args:
        calls: the list to which it adds them.
        source: the tape that provides the masks. None: they are drawn.
    """

    def __init__(self, calls: list[MaskArrays], source: Tape | None = None) -> None:
        self.calls, self.source = calls, source
        self.position, self.plays = 0, source is not None and source.plays

    def masks(
        self,
        plan: Plan,
        draw: Callable[[], dict[Slot, Any]],
        to_array: Callable[[Any], npt.NDArray[Any]],
        from_array: Callable[[npt.NDArray[Any]], Any],
    ) -> dict[Slot, Any]:
        """Draw masks and record them. A call that is run again is recorded only once."""
        source = self.source
        drawn = draw() if source is None else source.masks(plan, draw, to_array, from_array)
        if self.position == len(self.calls):
            self.calls.append({slot: np.array(to_array(mask)) for slot, mask in drawn.items()})
        self.position += 1
        return drawn


class Player:
    """Provides recorded masks, call by call.

    Args:
        name: the name of the layer.
        calls: the masks of its calls.
    """

    plays = True

    def __init__(self, name: str, calls: Sequence[Mapping[Slot, npt.NDArray[Any]]]) -> None:
        self.name, self.calls, self.position = name, calls, 0

    def masks(
        self,
        plan: Plan,
        draw: Callable[[], dict[Slot, Any]],  # noqa: ARG002 - nothing is drawn
        to_array: Callable[[Any], npt.NDArray[Any]],  # noqa: ARG002
        from_array: Callable[[npt.NDArray[Any]], Any],
    ) -> dict[Slot, Any]:
        """The masks of the next call.

        Raises:
            PolicyError: there is no further call, or its masks do not match the plan.
        """
        if self.position == len(self.calls):
            raise PolicyError(
                f"{self.name}: masks of {len(self.calls)} call(s) were given, and this is one more."
            )
        call = self.calls[self.position]
        if not isinstance(call, Mapping):
            raise PolicyError(
                f"{self.name}: call {self.position} needs a dict from dp.Slot to masks. "
                f"Received: {short_repr(call)}"
            )
        given = {slot: self._array(slot, mask) for slot, mask in call.items()}
        planned = {slot: tuple(mask.shape) for slot, mask in plan.items()}
        shapes = {slot: mask.shape for slot, mask in given.items()}
        if shapes != planned:
            received = {_slot_text(slot): shape for slot, shape in shapes.items()}
            needed = {_slot_text(slot): shape for slot, shape in planned.items()}
            raise PolicyError(
                f"{self.name}: call {self.position} needs masks of the shapes {needed}. "
                f"Received: {received}"
            )
        self.position += 1
        return {slot: from_array(mask) for slot, mask in given.items()}

    def _array(self, slot: Slot, mask: object) -> npt.NDArray[Any]:
        """A given mask as an array of numbers."""
        try:
            array = np.asarray(mask)
            numbers = array.dtype.kind not in "OSUMmc" and array.dtype.names is None
        except Exception:  # rows of several lengths, for one
            numbers = False
        if not numbers:
            raise PolicyError(
                f"{self.name}: call {self.position} needs masks that are arrays of numbers. "
                f"Received: {_slot_text(slot)}: {short_repr(mask)}"
            )
        # In the machine's byte order and plain C order, as every framework takes it. (NumPy calls
        # an array of one element contiguous whatever its strides are, negative ones too.)
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)

    def check_end(self) -> None:
        """Check that all masks were used.

        Raises:
            PolicyError: some were not.
        """
        if self.position < len(self.calls):
            raise PolicyError(
                f"{self.name}: masks of {len(self.calls)} call(s) were given, but {self.position} "
                "call(s) were made."
            )


def _slot_text(slot: object) -> str:
    if not isinstance(slot, Slot):
        return short_repr(slot)
    way = " backward" if slot.direction else ""
    return f"{slot.site} of layer {slot.layer}{way}"
