"""Recording the masks of calls as arrays, and putting given ones in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import PolicyError
from .plan import Plan, Slot

Arrays = dict[Slot, npt.NDArray[Any]]
"""The masks of one call of one layer object, each of its planned shape; see `PlannedMask`."""

Record = dict[str, list[Arrays]]
"""For each layer by its name, the masks of its calls, in order."""


class Tape(Protocol):
    """What stands between a layer and the drawing of its masks."""

    def masks(
        self,
        wanted: Plan,
        draw: Callable[[], dict[Slot, Any]],
        to_array: Callable[[Any], npt.NDArray[Any]],
        from_array: Callable[[npt.NDArray[Any]], Any],
    ) -> dict[Slot, Any]: ...


class Recorder:
    """Keeps the masks of one layer's calls.

    Args:
        calls: the list to which they are added.
    """

    def __init__(self, calls: list[Arrays]) -> None:
        self.calls = calls

    def masks(
        self,
        wanted: Plan,  # noqa: ARG002 - the plan of what is drawn
        draw: Callable[[], dict[Slot, Any]],
        to_array: Callable[[Any], npt.NDArray[Any]],
        from_array: Callable[[npt.NDArray[Any]], Any],  # noqa: ARG002
    ) -> dict[Slot, Any]:
        """Draw, and keep what was drawn."""
        drawn = draw()
        self.calls.append({slot: np.array(to_array(mask)) for slot, mask in drawn.items()})
        return drawn


class Player:
    """Gives recorded masks back, call by call.

    Args:
        name: the layer's name.
        calls: the masks of its calls.
    """

    def __init__(self, name: str, calls: Sequence[Mapping[Slot, npt.NDArray[Any]]]) -> None:
        self.name, self.calls, self.next = name, calls, 0

    def masks(
        self,
        wanted: Plan,
        draw: Callable[[], dict[Slot, Any]],  # noqa: ARG002 - nothing is drawn
        to_array: Callable[[Any], npt.NDArray[Any]],  # noqa: ARG002
        from_array: Callable[[npt.NDArray[Any]], Any],
    ) -> dict[Slot, Any]:
        """The next call's masks.

        Raises:
            PolicyError: there is no further call, or its masks are not those that are planned.
        """
        if self.next == len(self.calls):
            raise PolicyError(
                f"{self.name}: masks of {len(self.calls)} call(s) were given, and this is one more."
            )
        given = {slot: np.asarray(mask) for slot, mask in self.calls[self.next].items()}
        planned = {slot: tuple(mask.shape) for slot, mask in wanted.items()}
        shapes = {slot: mask.shape for slot, mask in given.items()}
        if shapes != planned:
            received = {_name(slot): shape for slot, shape in shapes.items()}
            needed = {_name(slot): shape for slot, shape in planned.items()}
            raise PolicyError(
                f"{self.name}: call {self.next} needs masks of the shapes {needed}. "
                f"Received: {received}"
            )
        self.next += 1
        return {slot: from_array(mask) for slot, mask in given.items()}


def _name(slot: Slot) -> str:
    way = " backward" if slot.direction else ""
    return f"{slot.site.value} of layer {slot.layer}{way}"
