"""Times of contestants that take turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

WARM_UPS = 3
LEAST = 0.05
"""Seconds that one measurement takes at least; shorter work is repeated."""
ROUNDS = (9, 61)
"""At least and at most."""

Seconds = dict[str, list[float]]


def interleaved(contestants: Mapping[str, Callable[[], object]], seconds: float) -> Seconds:
    """The seconds of each contestant in each round; in a round each has its turn, in any order.

    Args:
        contestants: what to call, by name; each returns when its work is done.
        seconds: about how long to measure, between as many rounds as `ROUNDS` allows.
    """
    repeats = {name: _repeats(run) for name, run in contestants.items()}
    gc.collect()
    gc.freeze()  # what is there now is not looked through again before each measurement
    started = time.perf_counter()
    found: Seconds = {name: [] for name in contestants}
    names, order = list(contestants), random.Random(0)
    for number in range(ROUNDS[1]):
        if number >= ROUNDS[0] and time.perf_counter() - started > seconds:
            break
        order.shuffle(names)
        for name in names:
            found[name].append(_seconds(contestants[name], repeats[name]))
    gc.unfreeze()
    return found


def _repeats(run: Callable[[], object]) -> int:
    """How often to repeat a run for a measurement, after its warm-ups."""
    for _ in range(WARM_UPS):
        run()
    return max(1, round(LEAST / _seconds(run, 1)))


def _seconds(run: Callable[[], object], repeats: int) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - start) / repeats
    finally:
        gc.enable()


def ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """a by b, pair by pair: the median, and the quartiles around it."""
    low, middle, high = np.quantile(np.array(a) / np.array(b), (0.25, 0.5, 0.75))
    return float(middle), float(low), float(high)


def median(a: Sequence[float]) -> float:
    return float(np.median(a))
