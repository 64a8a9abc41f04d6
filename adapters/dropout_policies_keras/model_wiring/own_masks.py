"""Masks that a model's code draws itself: found by what comes through where the draws are as low,
and where they are as high, as they can be."""

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
"""The number of a call, and what comes into it: its "inputs" or its initial "state"."""

Change = Mapping[int, Any]
"""Other values for what some calls gave, by their numbers."""

Run = Callable[[Change], Mapping[Place, Sequence[Any]]]
"""Runs a model's code again with a change, and says what comes into every place; into none where
the code goes another way then."""

BELOW_1 = {"bfloat16": 1 - 2**-7, "float16": 1 - 2**-10}
"""The highest number that a uniform draw gives here; 1 added to it must not be 2."""


@dataclass(frozen=True)
class Source:
    """What a layer gives, where a mask may fall on it.

    Args:
        other: other values for it.
        zeros: 0 in its place.
        places: the places to look at; None for all.
    """

    other: Change
    zeros: Change
    places: frozenset[Place] | None = None


def extremes(drawn: Any) -> tuple[Any, Any]:
    """What a draw gives where it is as low, and as high, as it can be everywhere.

    Args:
        drawn: what it gave.
    """
    dtype = keras.backend.standardize_dtype(drawn.dtype)
    values = as_array(drawn).astype("float32")
    is_whole = "float" not in dtype or bool((values == np.round(values)).all())
    # Uniform numbers reach neither end: a mask at rate 0 asks whether they do.
    ends = (0, 1) if is_whole else (1e-7, BELOW_1.get(dtype, 1 - 1e-6))
    low, high = min(ends[0], values.min(initial=1)), max(ends[1], values.max(initial=0))
    first, second = (ops.full(values.shape, end, dtype=dtype) for end in (low, high))
    return first, second


def masked_places(
    ends: Sequence[Change], sources: Sequence[Source], run: Run
) -> Iterator[tuple[Place, int | None]]:
    """The places where draws mask what comes from a source, or from none.

    A mask is all or nothing: at one end of the draws what it falls on comes through, and at the
    other nothing does, as if it were 0. What comes there beside it is the same at both ends. So
    noise that is added is no mask, nor is a choice between two values.

    Args:
        ends: the draws of one line of code as low, and as high, as they can be.
        sources: what may be masked.
        run: runs the code.

    Yields:
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
    """The places where draws choose between two sources, as zoneout does between two steps.

    Where one draw alone is at its other end, one source comes through in place of another.

    Args:
        ends: as `masked_places` takes them.
        number: that draw.
        sources: what may be chosen.
        run: runs the code.
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
    """What holds in the first alone; [] where the two are not alike."""
    if [x.shape for x in first] != [x.shape for x in second]:
        return []
    return [x & ~y for x, y in zip(first, second, strict=True)]


def _union(each: Sequence[list[Array]]) -> list[Array]:
    alike = [arrays for arrays in each if arrays]
    return [np.any(together, axis=0) for together in zip(*alike, strict=True)]


def _dropped(
    low: Sequence[Array], high: Sequence[Array], moved_low: list[Array], moved_high: list[Array]
) -> list[Array]:
    """Where a source comes through at one end alone; [] where no mask does that.

    Args:
        low: what comes into a place at the end where the source may be dropped.
        high: likewise at the other end.
        moved_low: where that differs for other values of the source.
        moved_high: likewise.
    """
    if not len(low) == len(moved_low) == len(moved_high):
        return []
    beside = [
        b & ~(c & (x == y)) for x, y, b, c in zip(low, high, moved_low, moved_high, strict=True)
    ]
    return [] if _any(beside) else [c & ~b for b, c in zip(moved_low, moved_high, strict=True)]


def _at(values: Sequence[Any], where: Sequence[Array]) -> Array:
    """The values of tensors at some elements; none where these are not theirs."""
    arrays = [as_array(value) for value in values]
    if not arrays or [a.shape for a in arrays] != [w.shape for w in where]:
        return np.empty(0)
    return np.concatenate([a[w] for a, w in zip(arrays, where, strict=True)])


def _is_all_or_0(plain: Sequence[Mapping[Place, Sequence[Any]]], place: Place) -> bool:
    """Whether what comes into a place is 0 at one end where it is something else at the other, and
    elsewhere the same at both."""
    low, high = ([as_array(value) for value in inputs[place]] for inputs in plain)
    pairs = list(zip(low, high, strict=True))
    return any(
        all(((a == 0) | (a == b)).all() for a, b in ((p[n], p[1 - n]) for p in pairs))
        for n in (0, 1)
    )


def _any(arrays: Sequence[Array]) -> bool:
    return any(array.any() for array in arrays)
