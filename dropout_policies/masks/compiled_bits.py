"""The bits of `keyed.keep_bits`, written by compiled code into an adapter's memory."""

from __future__ import annotations

import ctypes
from pathlib import Path

from ..compilation.libraries import compiled_library

SOURCE = Path(__file__).with_name("keyed.c")


def has_compiled_bits() -> bool:
    """Whether the compiled function is available."""
    return compiled_library(SOURCE) is not None


def write_keep_bits(
    key: tuple[int, int],
    least: int,
    shape: tuple[int, int, int],
    row_offset: int,
    address: int,
    first_step: int = 0,
) -> None:
    """Write the bits of `keyed.keep_bits` to an address.

    Args:
        key: two 32-bit words, signed or unsigned.
        least: the smallest word that keeps, from `keyed.threshold`.
        shape: T, B and F.
        row_offset: the number of the first row.
        address: the address of T·B·F bytes of memory, in the order of `[T, B, F]`.
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
