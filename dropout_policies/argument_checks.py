"""Checks of arguments, and the text that errors and reports show for values."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import PolicyError


def number_text(value: float | np.floating[Any]) -> str:
    """Return a number as a user would type it: `0.3` for 0.1 + 0.2, and `1` for 1.0.

    Args:
        value: a number of Python or NumPy.
    """
    return _float_text(value).removesuffix(".0")


def _float_text(value: float | np.floating[Any]) -> str:
    """The repr of a number without rounding errors of sums and of `float32`."""
    number = float(value)
    exact = repr(number)
    if isinstance(value, np.float16 | np.float32):
        return str(value)
    if len(exact) < 15 or not abs(number) < 1000:  # also infinite, and not a number
        return exact
    narrow = np.float32(number)
    if float(narrow) == number and len(str(narrow)) < len(exact) - 4:
        return str(narrow)
    rounded = f"{number:.12g}"
    return exact if float(rounded).is_integer() else rounded  # 0.9999999999999999 is not 1


class _Short(reprlib.Repr):
    """A `repr` of at most a few hundred characters, also for nested, long and broken values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = 200
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 - reprlib's signature
        text, half = repr(x), self.maxother // 2
        return text if len(text) <= 2 * half else f"{text[:half]}...{text[-half:]}"

    def repr_function(self, x: Any, level: int) -> str:  # noqa: ARG002
        return f"<function {x.__name__}>"

    def repr_module(self, x: Any, level: int) -> str:  # noqa: ARG002
        return f"<module {x.__name__!r}>"

    def repr1(self, x: Any, level: int) -> str:
        try:
            if type(x) is float or isinstance(x, np.floating):
                return _float_text(x)
            if isinstance(x, np.integer) and not isinstance(x, np.timedelta64):
                return str(x)
            return super().repr1(x, level)
        except Exception:  # for example, Python refuses to write integers with many digits
            return f"<{type(x).__name__}>"


short_repr: Callable[[object], str] = _Short().repr
"""The text that an error shows for a value that it received."""


def check_integer(value: object, name: str, least: int, most: int | None = None) -> int:
    """Return `value` as an integer in a range.

    Args:
        value: an integer of Python or NumPy.
        name: the name that errors use for it.
        least: the smallest value allowed.
        most: the largest value allowed, or None.

    Raises:
        PolicyError: it is not an integer, or is out of range.
    """
    number = as_integer(value)
    if number is None or number < least or (most is not None and number > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise PolicyError(
            f"{name} must be an integer {allowed}. Received: {name}={short_repr(value)}"
        )
    return number


def as_integer(value: object) -> int | None:
    """Return `value` as a Python integer, or None if it is not an integer (such as True or 2.0)."""
    if isinstance(value, np.ndarray):
        value = value[()]  # unpacks an array without axes
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, int | np.integer):
        return None
    try:
        return int(value)
    except Exception:  # the class is broken
        return None


def as_float(value: Any) -> float:
    """Return the number that a value stands for, such as 0.5 for "0.5". NaN if it is none."""
    if isinstance(value, complex | np.complexfloating):
        return math.nan
    try:
        return float(value)
    except Exception:  # whatever a strange class raises
        return math.nan


def check_text(value: object, name: str) -> str:
    """Return `value`, which must be text that can be written to a file.

    Raises:
        PolicyError: it is not such text.
    """
    if not isinstance(value, str):
        raise PolicyError(f"{name} must be a string. Received: {name}={short_repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PolicyError(
            f"{name} holds half of a surrogate pair, which no file can hold. "
            f"Received: {name}={short_repr(value)}"
        ) from None
    return value


def check_seed(seed: object) -> int:
    """Return `seed` as an integer in [0, 2**32).

    Raises:
        PolicyError: it is not one.
    """
    number = as_integer(seed)
    if number is None or not 0 <= number < 2**32:
        raise PolicyError(
            f"seed must be an integer in [0, 2**32). Received: seed={short_repr(seed)}; write: "
            f"seed={_similar_seed(seed)}, or leave it out for the framework's own generator."
        )
    return number


def _similar_seed(seed: object) -> int:
    """A seed near what was received; 0 if nothing is."""
    number = as_integer(seed)
    if number is not None:
        return abs(number) % 2**32
    value = as_float(seed)
    return int(abs(value)) % 2**32 if math.isfinite(value) else 0
