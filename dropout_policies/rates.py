"""How likely a mask drops an element: a number, one that changes with the calls, or one a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from .errors import PolicyError


def check_rate(rate: object, where: str = "rate") -> float:
    """`rate` as a float in [0, 1).

    Raises:
        PolicyError: it is no real number, is NaN, or lies outside [0, 1).
    """
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise PolicyError(f"{where} must be a number in [0, 1). Received: {where}={rate!r}")
    value = float(rate)
    if math.isnan(value) or not 0.0 <= value < 1.0:
        raise PolicyError(
            f"{where} is the probability of dropping and must lie in [0, 1). "
            f"Received: {where}={rate!r}"
        )
    return value


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rate that changes with the number of the call, in steps.

    Steps and not a curve, so that every framework compares words with the very same thresholds,
    in compiled graphs too, and keyed masks stay equal bit for bit.

    Args:
        points: pairs (call, rate): from that training call of a layer on, counted from 0, the
            rate is that one. The calls ascend from 0.

    Raises:
        PolicyError: the calls are no ascending integers from 0 on, or a rate is out of range.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        try:
            points = tuple((call, rate) for call, rate in self.points)
        except (TypeError, ValueError):
            points = ()
        calls = [call for call, _ in points]
        integers = all(isinstance(call, int) and not isinstance(call, bool) for call in calls)
        if not integers or calls[:1] != [0] or calls != sorted(set(calls)) or calls[-1] >= 2**31:
            raise PolicyError(
                f"A schedule says from which call on a rate holds; calls are ascending integers "
                f"from 0 on, below 2**31: dp.schedule({{0: 0.1, 1000: 0.5}}). "
                f"Received: {self.points!r}"
            )
        checked = tuple((call, check_rate(rate, f"rate from call {call}")) for call, rate in points)
        object.__setattr__(self, "points", checked)

    def at(self, call: int) -> float:
        """The rate of a call."""
        return [rate for first, rate in self.points if first <= call][-1]

    @property
    def highest(self) -> float:
        return max(rate for _, rate in self.points)

    def __str__(self) -> str:
        return f"{self.points[0][1]:g} to {self.points[-1][1]:g} by call {self.points[-1][0]}"


Rate = float | Schedule
"""The rate of one mask."""

Rates = Rate | tuple[Rate, ...]
"""The rates of a rule: one for every layer, or one for each layer of a stack."""


def schedule(points: Mapping[int, float]) -> Schedule:
    """A rate that changes at given training calls: `schedule({0: 0.0, 1000: 0.25})`."""
    return Schedule(tuple(sorted(points.items())))


def ramp(start: float, end: float, calls: int, *, levels: int = 100) -> Schedule:
    """A rate that goes from `start` to `end` over the first training calls, in equal steps.

    Args:
        start: the rate of the first call.
        end: the rate from call `calls` on.
        calls: how many calls the way takes, at least 1.
        levels: in how many steps, at most one a call.
    """
    start, end = check_rate(start, "start"), check_rate(end, "end")
    for name, value in (("calls", calls), ("levels", levels)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PolicyError(f"{name} must be an integer of at least 1. Received: {name}={value}")
    levels = min(levels, calls)
    points = {i * calls // levels: start + (end - start) * i / levels for i in range(levels)}
    return schedule(points | {calls: end})


def parse_rates(rates: object) -> Rates:
    """Rates as a user writes them: a number, a schedule, or a sequence of those, layer by layer.

    Raises:
        PolicyError: they are none of these, or out of range.
    """
    if isinstance(rates, Schedule):
        return rates
    if isinstance(rates, Sequence) and not isinstance(rates, str):
        if not rates or any(isinstance(rate, list | tuple) for rate in rates):
            raise PolicyError(
                f"rate must be a number, or a list with one number for each layer. "
                f"Received: rate={rates!r}"
            )
        return tuple(
            rate if isinstance(rate, Schedule) else check_rate(rate, f"rate of layer {layer}")
            for layer, rate in enumerate(rates, 1)
        )
    return check_rate(rates)


def rate_at(rate: Rate, call: int) -> float:
    """The rate of one call."""
    return rate.at(call) if isinstance(rate, Schedule) else rate


def highest(rates: Rates) -> float:
    """The highest rate there ever is."""
    each = rates if isinstance(rates, tuple) else (rates,)
    return max(rate.highest if isinstance(rate, Schedule) else rate for rate in each)


def rates_text(rates: Rates) -> str:
    """Rates as reports write them."""
    if isinstance(rates, tuple):
        return f"[{', '.join(map(rates_text, rates))}]"
    return str(rates) if isinstance(rates, Schedule) else f"{rates:g}"


def rates_to_json(rates: Rates) -> Any:
    """Rates as plain JSON values; `rates_from_json` is its inverse."""
    if isinstance(rates, tuple):
        return [rates_to_json(rate) for rate in rates]
    if isinstance(rates, Schedule):
        return {"schedule": [list(point) for point in rates.points]}
    return rates


def rates_from_json(value: Any) -> Rates:
    """The rates that `rates_to_json` wrote.

    Raises:
        PolicyError: it never wrote such a value.
    """
    if isinstance(value, list):
        return parse_rates([rates_from_json(rate) for rate in value])
    if isinstance(value, Mapping):
        return Schedule(tuple((call, rate) for call, rate in value["schedule"]))
    return check_rate(value)
