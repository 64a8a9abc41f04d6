"""Finds masks that a model's code draws itself.

It compares what reaches each place with all draws at their lowest, and with all at their highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from .changed_values import Array, as_array, differences

Place = tuple[int, str]
"""The number of a call, and one of its inputs: "inputs", or "state" for its initial state."""

Change = Mapping[int, Any]
"""Other results for some calls, by their numbers."""

Run = Callable[[Change], Mapping[Place, Sequence[Any]]]
"""A function that runs a model's code with a change, and returns what reaches every place. It
returns no places if the code then takes another path."""

BELOW_1 = {"bfloat16": 1 - 2**-7, "float16": 1 - 2**-10}
"""The highest number of a uniform draw in these dtypes. 1 plus this number must not round to 2."""


@dataclass(frozen=True)
class Source:
    """The result of a layer, which a mask may fall on.

    Args:
        other: other values for the result.
        zeros: zeros in place of the result.
        places: the places to look at. None: all places.
    """

    other: Change
    zeros: Change
    places: frozenset[Place] | None = None


def extremes(drawn: Any) -> tuple[Any, Any]:
    """Return the lowest and the highest values that a draw can have, everywhere at once.

    Args:
        drawn: the result of the draw.
    """
    dtype = keras.backend.standardize_dtype(drawn.dtype)
    values = as_array(drawn).astype("float32")
    is_whole = "float" not in dtype or bool((values == np.round(values)).all())
    # Uniform numbers reach neither end, and the code of a mask at rate 0 depends on that.
    ends = (0, 1) if is_whole else (1e-7, BELOW_1.get(dtype, 1 - 1e-6))
    low, high = min(ends[0], values.min(initial=1)), max(ends[1], values.max(initial=0))
    first, second = (ops.full(values.shape, end, dtype=dtype) for end in (low, high))
    return first, second


def masked_places(
    ends: Sequence[Change], sources: Sequence[Source], run: Run
) -> Iterator[tuple[Place, int | None]]:
    """Find the places where draws mask something that comes from a source, or from no source.

    A mask is all or nothing. At one end of the draws, the masked value passes, and at the other end
    nothing passes, as if the value were 0. Everything else that reaches the place is the same at
    both ends. So added noise is not a mask, and neither is a choice between two values.

    Args:
        ends: the draws of one line of code at their lowest and at their highest.
        sources: the sources that may be masked.
        run: the function that runs the code.

    Yields:
        A place, and the source's index in `sources`, or None if no source reaches the place.
        A place, and the source's position in `sources`; None where no source comes in.
    """
    plain = [run(end) for end in ends]
    places = [p for p in plain[0] if _any(differences(plain[0][p], plain[1].get(p, ())))]
    known = set()
    for number, source in enumerate(sources):
        looked_at = [p for p in places if source.places is None or p in source.places]
        if not looked_at:
            continue
        changed = [run({**end, **source.other}) for end in ends]
        zeroed = cache(lambda end, zeros=source.zeros: run({**ends[end], **zeros}))
        for place in looked_at:
            given = [[as_array(x) for x in inputs[place]] for inputs in plain]
            moved = [differences(given[end], changed[end].get(place, ())) for end in (0, 1)]
            known |= {place} if any(map(_any, moved)) else set()
            for low, high in ((0, 1), (1, 0)):
                dropped = _dropped(given[low], given[high], moved[low], moved[high])
                values = _at(given[low], dropped)
                if values.size and (
                    (values == values[0]).all()
                    or np.array_equal(values, _at(zeroed(high).get(place, ()), dropped))
                ):
                    yield place, number
                    break
    for place in places:
        if place not in known and place[1] == "inputs" and _is_all_or_0(plain, place):
            yield place, None


def chosen_places(
    ends: Sequence[Change], number: int, sources: Sequence[Source], run: Run
) -> set[Place]:
    """Find the places where draws choose between two sources, as zoneout does between two steps.

    If only one draw moves to its other end, one source passes instead of another.

    Args:
        ends: the draws, as `masked_places` takes them.
        number: the number of that one draw.
        sources: the sources that may be chosen.
        run: the function that runs the code.
    """
    found = set()
    for end, other in (ends, reversed(ends)):
        both = (end, {**end, number: other[number]})
        plain = [run(change) for change in both]
        moved = [[run({**change, **source.other}) for change in both] for source in sources]
        for place in plain[0].keys() & plain[1].keys():
            pairs = [
                [differences(plain[n][place], pair[n].get(place, ())) for n in (0, 1)]
                for pair in moved
            ]
            lost = _union([_without(before, after) for before, after in pairs])
            gained = _union([_without(after, before) for before, after in pairs])
            if _any([x & y for x, y in zip(lost, gained, strict=False) if x.shape == y.shape]):
                found.add(place)
    return found


def _without(first: Sequence[Array], second: Sequence[Array]) -> list[Array]:
    """Return where only the first holds. [] if the shapes of the two differ."""
    if [x.shape for x in first] != [x.shape for x in second]:
        return []
    return [x & ~y for x, y in zip(first, second, strict=True)]


def _union(each: Sequence[list[Array]]) -> list[Array]:
    alike = [arrays for arrays in each if arrays]
    return [np.any(together, axis=0) for together in zip(*alike, strict=True)]


def _dropped(
    low: Sequence[Array], high: Sequence[Array], moved_low: list[Array], moved_high: list[Array]
) -> list[Array]:
    """Find where a source passes at only one end. [] if no mask explains the values.

    Args:
        low: what reaches a place at the end where the source may be dropped.
        high: what reaches it at the other end.
        moved_low: where other values of the source change `low`.
        moved_high: where other values of the source change `high`.
    """
    if not len(low) == len(moved_low) == len(moved_high):
        return []
    beside = [
        b & ~(c & (x == y)) for x, y, b, c in zip(low, high, moved_low, moved_high, strict=True)
    ]
    return [] if _any(beside) else [c & ~b for b, c in zip(moved_low, moved_high, strict=True)]


def _at(values: Sequence[Any], where: Sequence[Array]) -> Array:
    """Return the values of tensors at some elements. Empty if the shapes do not match."""
    arrays = [as_array(value) for value in values]
    if not arrays or [a.shape for a in arrays] != [w.shape for w in where]:
        return np.empty(0)
    return np.concatenate([a[w] for a, w in zip(arrays, where, strict=True)])


def _is_all_or_0(plain: Sequence[Mapping[Place, Sequence[Any]]], place: Place) -> bool:
    """Whether a place gets 0 at one end wherever the two ends differ."""
    low, high = ([as_array(value) for value in inputs[place]] for inputs in plain)
    pairs = list(zip(low, high, strict=True))
    return any(
        all(((a == 0) | (a == b)).all() for a, b in ((p[n], p[1 - n]) for p in pairs))
        for n in (0, 1)
    )


def _any(arrays: Sequence[Array]) -> bool:
    return any(array.any() for array in arrays)
