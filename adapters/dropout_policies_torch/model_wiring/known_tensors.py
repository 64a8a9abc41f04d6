"""Finds tensors in structures of any kind, and keeps knowledge of each tensor while it lives."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Known = TypeVar("Known")


def find_values(value: Any) -> Iterator[Tensor]:
    """Find the tensors in a structure of tuples, lists, mappings and objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(find_values, value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from chain.from_iterable(map(find_values, value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from chain.from_iterable(find_values(getattr(value, f.name)) for f in fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        for part in vars(value).values():
            if isinstance(part, Tensor | list | tuple | dict):
                yield from find_values(part)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return a tensor's shape. For a packed sequence, only the last axis. For anything else, ()."""
    if isinstance(value, PackedSequence):
        return tuple(value.data.shape[-1:])
    return tuple(value.shape) if isinstance(value, Tensor) else ()


class KnownTensors(Generic[Known]):
    """Knowledge of tensors, kept for each one only as long as it lives.

    So a run under observation needs no more memory than any other run.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[Any], Known]] = {}

    def get(self, tensor: Tensor) -> Known | None:
        """Return what is known of a tensor, or of one with the same memory. None if nothing is.

        `torch.autograd.Variable` and NumPy return a tensor as a new one with the same memory.
        """
        found = self._entry(tensor)
        return found if found is not None else self._entry(_storage(tensor))

    def set(self, tensor: Tensor, known: Known) -> None:
        """Store what is known of a tensor."""
        for key in (tensor, _storage(tensor)):
            if key is not None:
                self._by_id[id(key)] = (weakref.ref(key), known)

    def _entry(self, key: Any) -> Known | None:
        entry = self._by_id.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None


def _storage(tensor: Tensor) -> Any:
    """Return a tensor's storage. None for a tensor without one, such as a sparse one."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
