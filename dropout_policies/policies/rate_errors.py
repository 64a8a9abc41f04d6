"""What an error says about a rate that is none: what was received, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from ..argument_checks import as_float, number_text, short_repr


def describe_wrong_rate(rate: object, where: str) -> str:
    """Return the text of the error for a value that is not a rate.

    Args:
        rate: the value.
        where: its name: an argument, or words such as `rate of layer 2`.
    """
    number = rate[()] if isinstance(rate, np.ndarray) else rate  # unpacks an array without axes
    if isinstance(number, Real | Decimal) and not isinstance(number, bool):
        must = "is the probability of dropping and must lie in [0, 1)"
    else:
        must = "must be a number in [0, 1)"
    received = f"{where}=" * where.isidentifier() + short_repr(rate)
    return f"{where} {must}. Received: {received}; {_advice(number, where)}"


def similar_rate(value: Any) -> str:
    """The text of the rate that a value seems to stand for, such as 0.5 for "50%"; "" for none."""
    is_text = isinstance(value, str)
    text = str.__str__(value).strip() if is_text else ""
    number = as_float(text.removesuffix("%") if is_text else value)
    if 2.0 <= number < 100.0 or text.endswith("%"):
        return number_text(round(number / 100, 9)) if 0.0 <= number < 100.0 else ""
    is_rate = 0.0 <= number < 1.0 and not isinstance(value, bool)
    return number_text(number) if is_rate else ""


def _advice(rate: Any, where: str) -> str:
    """What to write instead."""
    value = similar_rate(rate)
    write = f"write: {_assignment(where, value or '0.5')}"
    if isinstance(rate, bool):
        return f"{write} for a rate, or leave it out."
    if rate is None:
        return f"{write}, or leave it out for the default."
    if isinstance(rate, str):
        return f"{write}, a number without quotes."
    if isinstance(rate, Mapping):
        return (
            f"{write}. Rates for single sites go with a policy's name: "
            f"policy='zaremba', rate={{'input': 0.5}}."
        )
    if isinstance(rate, Set):
        return f"{write}, or a list with one rate for each layer: [0.2, 0.5]."
    number = as_float(rate)
    if value and number >= 1.0:
        return f"for {number_text(number)} percent, {write}."
    if value:
        return f"{write}."
    if number == 1.0:
        return f"a rate of 1 would drop everything; {write}, for example."
    if hasattr(rate, "rate"):  # a rule
        return f"{write}, a number and not a rule."
    if callable(rate):
        return f"{write}, or dp.schedule({{0: 0.1, 1000: 0.5}}) for a rate that changes."
    return f"{write}, for example."


def _assignment(where: str, value: str) -> str:
    """What a user writes to give a value to something."""
    site = re.fullmatch(r"rate\[('\w+')\]", where)
    if site:
        return f"rate={{{site[1]}: {value}}}"
    return f"{where}={value}" if where.isidentifier() else value
