"""Checks of arguments, and the text that errors show for what they received."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import PolicyError


class _Short(reprlib.Repr):
    """A `repr` of at most a few hundred characters, also for nested, long and broken values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = 200
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 - reprlib's signature
        text, half = repr(x), self.maxother // 2
        return text if len(text) <= 2 * half else f"{text[:half]}...{text[-half:]}"

    def repr1(self, x: Any, level: int) -> str:
        try:
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


def check_text(value: object, name: str) -> str:
    """Return `value`, which must be text that can be written to a file.

    Raises:
        PolicyError: it is not such text.
    """
    if not isinstance(value, str):
        raise PolicyError(f"{name} must be a text. Received: {name}={short_repr(value)}")
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
            f"seed must be an integer in [0, 2**32). Received: seed={short_repr(seed)}"
        )
    return number
