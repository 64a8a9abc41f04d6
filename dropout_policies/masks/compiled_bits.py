"""The bits of `keyed.keep_bits`, drawn by compiled code into memory that an adapter has."""

from __future__ import annotations

import ctypes
from pathlib import Path

from ..compilation.libraries import compiled_library

SOURCE = Path(__file__).with_name("keyed.c")


def has_compiled_bits() -> bool:
    """Whether `keep_bits` can be had."""
    return compiled_library(SOURCE) is not None


def write_keep_bits(
    key: tuple[int, int],
    least: int,
    shape: tuple[int, int, int],
    row_offset: int,
    address: int,
    first_step: int = 0,
) -> None:
    """The bits of `keyed.keep_bits`, written where they are wanted.

    Args:
        key: two words of 32 bits, with a sign or without.
        least: the smallest word that keeps, as `keyed.threshold` has it.
        shape: T, B and F.
        row_offset: the number of the first row.
        address: of T·B·F bytes in the machine's memory, in the order of `[T, B, F]`.
        first_step: the number of the first step.
    """
    functions = compiled_library(SOURCE)
    assert functions is not None, "asked for where it cannot be had"
    functions.keep_bits(
        *(ctypes.c_uint32(word) for word in (*key, least)),
        *(ctypes.c_int64(size) for size in shape),
        ctypes.c_uint32(row_offset),
        ctypes.c_int64(first_step),
        ctypes.c_void_p(address),
    )
