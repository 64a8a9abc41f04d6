"""Comparing, copying and changing the tensors that a model's code passes around."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Array = np.ndarray[Any, Any]


def tensors_in(value: Any) -> list[Any]:
    """Find the tensors and arrays in a structure of tuples, lists, mappings and objects."""
    found = []
    for each in keras.tree.flatten(value):
        if ops.is_tensor(each) or isinstance(each, np.ndarray):
            found.append(each)
        elif hasattr(each, "__dict__") and not isinstance(each, type | keras.layers.Layer):
            found += [x for x in vars(each).values() if ops.is_tensor(x)]
    return found


def any_differ(first: Any, second: Any) -> bool:
    """Whether two structures hold different values."""
    one, two = tensors_in(first), tensors_in(second)
    return len(one) != len(two) or any(map(_differ, one, two))


def differences(first: Sequence[Any], second: Sequence[Any]) -> list[Array]:
    """Find where each pair of tensors in two lists differs. [] if they cannot be compared."""
    pairs = [(as_array(a), as_array(b)) for a, b in zip(first, second, strict=False)]
    if len(first) != len(second) or any(a.shape != b.shape for a, b in pairs):
        return []
    return [(a != b) & ((a == a) | (b == b)) for a, b in pairs]  # two NaNs count as equal


def as_array(tensor: Any) -> Array:
    """Convert a tensor to a NumPy array."""
    array = np.asarray(ops.convert_to_numpy(tensor))
    return array.astype("float32") if "float" in str(array.dtype) else array


def copied(value: Any) -> Any:
    """Copy the tensors in a structure, so that in-place changes do not reach the copies."""
    if keras.backend.backend() != "torch":
        return value  # the other backends' tensors never change
    return keras.tree.map_structure(lambda x: x.clone() if ops.is_tensor(x) else x, value)


def changed(value: Any, which: Collection[int], zeros: bool = False) -> Any:
    """Give some tensors in a structure other values. None if none of them can have any.

    Args:
        value: the structure.
        which: the positions of these tensors in the structure.
        zeros: whether the other values are zeros.
    """
    leaves = keras.tree.flatten(value)
    new = _zeros if zeros else _other_values
    others = [new(x) if n in which else x for n, x in enumerate(leaves)]
    if all(other is old for other, old in zip(others, leaves, strict=True)):
        return None
    return keras.tree.pack_sequence_as(value, others)


def _differ(first: Any, second: Any) -> bool:
    """Whether two tensors differ anywhere."""
    if first is second:
        return False
    one, two = as_array(first), as_array(second)
    return one.shape != two.shape or not np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _other_values(tensor: Any) -> Any:
    """Make a tensor of the same shape and dtype with other values."""
    if not _is_float(tensor):
        return tensor
    noise = np.random.default_rng(0).standard_normal(tuple(tensor.shape)).astype("float32")
    by = ops.cast(ops.convert_to_tensor(noise + np.sign(noise)), tensor.dtype)
    return tensor + by * (1 + ops.abs(tensor))  # large enough to show in sums and after rounding


def _zeros(tensor: Any) -> Any:
    return ops.zeros_like(tensor) if _is_float(tensor) else tensor


def _is_float(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
