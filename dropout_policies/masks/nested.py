"""Arrays in nested dicts, lists and tuples, as models return them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

from ..argument_checks import short_repr
from ..errors import PolicyError

MAX_DEPTH = 100
"""The largest number of nested containers."""


def leaves(value: Any, template: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The values in nested dicts, lists and tuples, each with its place. None is left out.

    Args:
        value: an array, or a container of such values.
        template: a value with the structure that this one must have. It gives the order.
        where: the place of the value, for errors.
        depth: the number of containers around the value.

    Raises:
        PolicyError: the structure is different, or nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise PolicyError(
            f"The output has more than {MAX_DEPTH} levels of containers. Return fewer."
        )
    kind = _kind(template)
    if _kind(value) is not kind or (kind is not None and _keys(value) != _keys(template)):
        raise PolicyError(
            f"{output_name(where)} has another structure in another call, and cannot be averaged. "
            f"Received: {short_repr(template)}, then {short_repr(value)}"
        )
    if kind is type(None):
        return
    if kind is None:
        yield where, value
        return
    for key in template if kind is Mapping else range(len(template)):
        yield from leaves(value[key], template[key], f"{where}[{short_repr(key)}]", depth + 1)


def rebuild(template: Any, new_leaves: Iterator[Any]) -> Any:
    """Build a value with the structure of `template` from new leaves, in the order of `leaves`."""
    kind = _kind(template)
    if kind is type(None):
        return None
    if kind is None:
        return next(new_leaves)
    if kind is Mapping:
        return _mapping(template, {key: rebuild(template[key], new_leaves) for key in template})
    items = [rebuild(item, new_leaves) for item in template]
    if hasattr(template, "_fields"):  # a named tuple, whose class takes its items one by one
        return type(template)._make(items)
    try:
        return type(template)(items)
    except Exception:  # the class has another constructor, or refuses these items
        return kind(items)


def _mapping(template: Mapping[Any, Any], made: dict[Any, Any]) -> Any:
    """Make a mapping of the template's class, with its default, its order and its attributes."""
    if type(template) is dict or not isinstance(template, MutableMapping):
        return made
    new = copy(template)
    for key, value in made.items():
        new[key] = value
    return new


def _kind(value: Any) -> type | None:
    """The kind of container that a value is, or None."""
    return next((k for k in (Mapping, list, tuple, type(None)) if isinstance(value, k)), None)


def _keys(value: Any) -> Any:
    """What must be the same in two containers of a kind."""
    if isinstance(value, Mapping):
        return set(value)
    return len(value) if isinstance(value, list | tuple) else None


def output_name(where: str) -> str:
    """The name that errors use for a place."""
    return f"The output at {where}" if where else "The output"
