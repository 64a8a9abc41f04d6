"""Reproducible mask bits: a pure function of a key and of an element's position.

The generator is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw 2011, Parallel random
numbers: as easy as 1, 2, 3). It needs only 32-bit add, xor and rotate, so that NumPy, PyTorch and
every Keras backend compute the same bits on any device.

The key of a mask is made in one step: it is the block at counter (call, tag) under the key
(seed, 0), where tag packs site, layer and direction. The bit of element (t, b, f) of a mask
`[T, B, F]` is then word `p & 1` of the block at counter (row, p >> 1), with p = t·F + f and
row = row_offset + b. So the bits of a sample do not depend on the other samples of its batch, or on
how long they are. A process that holds the rows from `row_offset` on draws only its part of the
mask of the whole batch. If rows are not samples (a weight's `[1, R, C]`), row is the row of the
weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import PolicyError
from ..placement.plans import Plan, Slot
from ..policies.rates import rate_at

Words = TypeVar("Words")

PARITY = 0x1BD11BDA
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
SEEDS = 2**32


def threefry2x32(
    key: tuple[Words, Words],
    counter: tuple[Words, Words],
    rotate_left: Callable[[Words, int], Words],
) -> tuple[Words, Words]:
    """One block of Threefry-2x32-20: two 32-bit words for each counter.

    The rounds are written once for all frameworks. `Words` is any type that has `^` and a `+` that
    wraps at 32 bits. Only the rotation differs.

    Args:
        key: two words.
        counter: two words.
        rotate_left: `rotate_left(words, bits)` returns new words.
    """
    k0: Any
    k1: Any
    x0: Any
    x1: Any
    (k0, k1), (x0, x1) = key, counter
    schedule = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + k0, x1 + k1  # new objects, which are changed in place from here on
    for group in range(5):
        for i in range(4):
            x0 += x1
            x1 = rotate_left(x1, ROTATIONS[4 * (group % 2) + i])
            x1 ^= x0
        x0 += schedule[(group + 1) % 3]
        x1 += schedule[(group + 2) % 3] + (group + 1)
    return x0, x1


def rotate_left(words: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
    """Rotate unsigned 32-bit words to the left."""
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


def _rotate_integer_left(word: int, bits: int) -> int:
    word %= 2**32
    return word << bits | word >> 32 - bits


def tag(slot: Slot) -> int:
    """Pack the site, the layer and the direction of a mask into one 32-bit word.

    Raises:
        PolicyError: the layer is outside 0 to 65,535, or the direction is not 0 or 1.
    """
    if not 0 <= slot.layer < 2**16:
        raise PolicyError(f"keyed masks number at most 65,536 layers. Received: {slot.layer}")
    if slot.direction not in (0, 1):
        raise PolicyError(f"A direction is 0 or 1. Received: direction={slot.direction}")
    return slot.direction << 24 | slot.site.number << 16 | slot.layer


def threshold(rate: float) -> int:
    """The smallest 32-bit word that keeps an element: round(rate · 2³²), at most 2³² − 1."""
    return min(round(rate * 2**32), 2**32 - 1)


def mask_key(seed: int, call: int, slot: Slot) -> tuple[int, int]:
    """The key (two 32-bit words) of one mask of one call."""
    # Python's integers do not wrap, but the low 32 bits of sums and xors are right all the same.
    k0, k1 = threefry2x32((seed, 0), (call, tag(slot)), _rotate_integer_left)
    return k0 % 2**32, k1 % 2**32


def derived_seed(seed: int, number: int) -> int:
    """One of many seeds that are derived from one seed. They are as different as any seeds."""
    # No mask's tag has all bits set.
    return threefry2x32((seed, 0), (number, SEEDS - 1), _rotate_integer_left)[0] % SEEDS


def keep_bits(
    key: tuple[int, int],
    rate: float,
    shape: tuple[int, int, int],
    row_offset: int = 0,
    first_step: int = 0,
) -> npt.NDArray[np.bool_]:
    """Which elements of a mask `[T, B, F]` are kept: True with probability 1 − rate.

    Args:
        key: two 32-bit words.
        rate: the rate, in [0, 1).
        shape: T, B and F.
        row_offset: the number of the first row.
        first_step: the number of the first step. A mask from step 3 on has the bits that a longer
            mask has there.
    """
    steps, batch, width = shape
    # A block of two elements may begin before the first step.
    first, end = first_step * width, (first_step + steps) * width
    blocks = range(first // 2, -(-end // 2))
    rows = np.arange(row_offset, row_offset + batch, dtype=np.uint32)[:, None]  # [B, 1]
    columns = np.arange(blocks.start, blocks.stop, dtype=np.uint32)[None, :]
    k0, k1 = (np.array([[word]], np.uint32) for word in key)
    counter = np.broadcast_arrays(rows, columns)
    words = np.stack(threefry2x32((k0, k1), (counter[0], counter[1]), rotate_left), axis=-1)
    flat = words.reshape(batch, 2 * len(blocks))[:, first % 2 : first % 2 + steps * width]
    return (flat >= np.uint32(threshold(rate))).reshape(batch, steps, width).swapaxes(0, 1)


def masks(
    plan: Plan, seed: int, call: int, row_offset: int = 0
) -> dict[Slot, npt.NDArray[np.float64]]:
    """The masks of one call as NumPy arrays with their planned shapes.

    A drop mask is a factor: 0 or 1/(1 − rate) (1 if unscaled). A zoneout mask is 1 where the
    previous value stays, and 0 elsewhere.

    Args:
        plan: the plan of the masks.
        seed: the seed, in [0, 2**32).
        call: the number of the call.
        row_offset: the number of the first row of the batch.
    """
    drawn = {}
    for slot, mask in plan.items():
        rate = rate_at(mask.rate, call)
        # A weight has the same mask in every process, whatever rows of the batch it holds.
        offset = row_offset if mask.by_sample else 0
        keep = keep_bits(mask_key(seed, call, slot), rate, mask.shape, offset)
        drawn[slot] = np.where(keep, *mask.rule.values(rate))
    return drawn
