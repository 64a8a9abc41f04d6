"""Rates: the probability that a mask drops an element, fixed, by call or by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ..argument_checks import as_integer, check_integer, number_text, short_repr
from ..errors import PolicyError
from .rate_errors import describe_wrong_rate, similar_rate
from .sites import Site

MAX_LAYERS = 2**16
"""The largest number of layers: masks have no numbers for more."""

MAX_LEVELS = 100_000
"""The largest number of steps in a ramp."""


def check_rate(rate: object, where: str = "rate") -> float:
    """Return `rate` as a float in [0, 1).

    Args:
        rate: a real number (Python or NumPy), a `Fraction`, a `Decimal`, or an array without axes
            that holds one of these.
        where: the name that errors use for it.

    Raises:
        PolicyError: it is not a real number, is NaN, or is outside [0, 1).
    """
    number = rate[()] if isinstance(rate, np.ndarray) else rate  # unpacks an array without axes
    if isinstance(number, bool) or not isinstance(number, Real | Decimal):
        raise PolicyError(describe_wrong_rate(rate, where))
    narrow = isinstance(number, np.float16 | np.float32)
    try:
        value = float(str(number)) if narrow else float(number)  # 0.3, not 0.30000001192092896
    except Exception:  # too large for a float, or an instance of a broken number class
        value = math.nan
    if not 0.0 <= value < 1.0:
        raise PolicyError(describe_wrong_rate(rate, where))
    return value + 0.0  # not -0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rate that changes with the number of the call, in discrete steps.

    Because the rate changes in steps and not along a curve, every framework compares its random
    words with exactly the same thresholds, also in compiled graphs. So keyed masks stay equal bit
    for bit.

    Args:
        points: pairs `(call, rate)`. From training call number `call` of a layer on, counted from
            0, the rate is `rate`, in [0, 1). The calls are in ascending order and begin with 0.

    Raises:
        PolicyError: the calls are not ascending integers from 0 to 2**31 - 1, the first is not 0,
            or a rate is out of range.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        given: Any = self.points
        listed = isinstance(given, list | tuple)
        pairs = listed and all(isinstance(p, list | tuple) and len(p) == 2 for p in given)
        calls = [as_integer(call) for call, _ in given] if pairs else []
        known = [call for call in calls if call is not None]
        ascending = known[:1] == [0] and calls == sorted(set(known))
        if not ascending or known[-1] >= 2**31:
            raise PolicyError(
                "A schedule says from which call on a rate is used. Calls are ascending integers "
                f"from 0, below 2**31: dp.schedule({{0: 0.1, 1000: 0.5}}). Received: "
                f"{short_repr(given)}"
            )
        rates = [check_rate(p[1], f"rate from call {n}") for n, p in zip(known, given, strict=True)]
        object.__setattr__(self, "points", tuple(zip(known, rates, strict=True)))

    def at(self, call: int) -> float:
        """The rate at a call.

        Args:
            call: the number of the call, from 0.

        Raises:
            PolicyError: `call` is not an integer from 0 on.
        """
        try:
            return [rate for first, rate in self.points if first <= call][-1]
        except Exception:
            raise PolicyError(
                "The number of a call must be an integer of at least 0. Received: "
                f"call={short_repr(call)}"
            ) from None

    @property
    def highest(self) -> float:
        """The highest rate of all calls."""
        return max(rate for _, rate in self.points)

    def __repr__(self) -> str:
        """The expression that creates it. A long one shows only its first and last points."""
        pairs = [f"{call}: {short_repr(rate)}" for call, rate in self.points]
        if len(pairs) > 6:
            pairs = [*pairs[:3], "...", *pairs[-2:]]
        return f"dp.schedule({{{', '.join(pairs)}}})"

    def __str__(self) -> str:
        (_, first), *_, (call, last) = (self.points[0], *self.points)
        return f"{number_text(first)} to {number_text(last)} by call {call}"


Rate = float | Schedule
"""The rate of one mask."""

RuleRates = Rate | tuple[Rate, ...]
"""The rates of a rule: one for all layers, or one for each layer of a stack."""

LayerRates = Rate | Sequence[Rate] | npt.NDArray[Any]
"""Rates as users write them: one for all layers, or a list with one for each layer of a stack."""

Rates = LayerRates | Mapping[str, LayerRates] | Mapping[Site, LayerRates]
"""What `rate=` takes: rates for all sites, or a mapping from names of sites to rates."""


def schedule(points: Mapping[int, float]) -> Schedule:
    """A rate that changes at given training calls: `schedule({0: 0.0, 1000: 0.25})`.

    Args:
        points: a mapping from the number of a call, counted from 0, to the rate from that call on,
            in [0, 1). It must have a rate for call 0.

    Raises:
        PolicyError: `points` is not a mapping, the calls are not integers from 0 to 2**31 - 1,
            call 0 is missing, or a rate is out of range.
    """
    if not isinstance(points, Mapping):
        raise PolicyError(
            f"schedule takes a mapping from calls to rates: dp.schedule({{0: 0.1, 1000: 0.5}}). "
            f"Received: {short_repr(points)}"
        )
    pairs = list(points.items())
    if all(as_integer(call) is not None for call, _ in pairs):
        pairs.sort(key=lambda point: point[0])
    return Schedule(tuple(pairs))


def ramp(start: float, end: float, calls: int, *, levels: int = 100) -> Schedule:
    """A rate that goes from `start` to `end` over the first training calls, in equal steps.

    Args:
        start: the rate of the first call, in [0, 1).
        end: the rate from call number `calls` on, in [0, 1).
        calls: the number of calls until `end` is reached, from 1 to 2**31 - 1.
        levels: the number of steps, from 1 to 100,000. There is never more than one step per call.

    Raises:
        PolicyError: a rate, `calls` or `levels` is out of range.
    """
    start, end = check_rate(start, "start"), check_rate(end, "end")
    calls = check_integer(calls, "calls", 1, 2**31 - 1)
    levels = min(check_integer(levels, "levels", 1, MAX_LEVELS), calls)
    points = {i * calls // levels: start + (end - start) * i / levels for i in range(levels)}
    rounded = {call: round(rate, 15) for call, rate in points.items()}  # 0.3, not 0.3 + 4e-17
    points |= {call: rate for call, rate in rounded.items() if rate < 1.0}
    return schedule(points | {0: start, calls: end})


def parse_rates(rates: object, where: str = "rate") -> RuleRates:
    """Check rates as users write them: a number, a `Schedule`, or a sequence with one per layer.

    Args:
        rates: the rates.
        where: the name that errors use for them.

    Raises:
        PolicyError: they are none of these, or out of range.
    """
    if isinstance(rates, Schedule):
        return rates
    texts = str | bytes | bytearray | memoryview
    listed = isinstance(rates, Sequence) and not isinstance(rates, texts)
    if listed or (isinstance(rates, np.ndarray) and rates.ndim == 1):
        each = _first_items(rates)
        if not 1 <= len(each) <= MAX_LAYERS or any(isinstance(r, list | tuple) for r in each):
            raise PolicyError(
                f"{where} must be a number, or a list with one number for each layer, such as "
                f"[0.2, 0.5]. Received: {where}={short_repr(rates)}"
            )
        return tuple(
            rate if isinstance(rate, Schedule) else check_rate(rate, f"{where} of layer {layer}")
            for layer, rate in enumerate(each, 1)
        )
    return check_rate(rates, where)


def _first_items(rates: Any) -> list[object]:
    """The items of a sequence, at most `MAX_LAYERS + 1` of them; none if it is broken."""
    try:
        return list(islice(rates, MAX_LAYERS + 1))
    except Exception:
        return []


def rate_to_write(rate: object) -> str:
    """The text of a rate for the advice of an error: the rate itself, or one that is like it."""
    try:
        if not isinstance(rate, Mapping):
            parse_rates(rate)
        return short_repr(rate)
    except PolicyError:
        return similar_rate(rate) or "0.5"


def rate_at(rate: Rate, call: int) -> float:
    """The rate at one call."""
    return rate.at(call) if isinstance(rate, Schedule) else rate


def highest_rate(rates: RuleRates) -> float:
    """The highest rate over all layers and calls."""
    each = rates if isinstance(rates, tuple) else (rates,)
    return max(rate.highest if isinstance(rate, Schedule) else rate for rate in each)


def rates_text(rates: RuleRates) -> str:
    """Rates as text for reports."""
    if isinstance(rates, tuple):
        return f"[{', '.join(map(rates_text, rates))}]"
    return str(rates) if isinstance(rates, Schedule) else number_text(rates)


def rates_to_json(rates: RuleRates) -> Any:
    """Rates as plain JSON values. `rates_from_json` reads them back."""
    if isinstance(rates, tuple):
        return [rates_to_json(rate) for rate in rates]
    if isinstance(rates, Schedule):
        return {"schedule": [list(point) for point in rates.points]}
    return rates


def rates_from_json(value: Any) -> RuleRates:
    """Read rates from what `rates_to_json` returned.

    Raises:
        PolicyError: `rates_to_json` does not return such a value.
    """
    if isinstance(value, list):
        return parse_rates([_rate_from_json(rate) for rate in value])
    return parse_rates(_rate_from_json(value))


def _rate_from_json(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    points: Any = value.get("schedule")
    return Schedule(points)
