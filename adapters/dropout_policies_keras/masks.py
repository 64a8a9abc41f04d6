"""Drawing a plan's masks in Keras, on any backend, eagerly or in a traced graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dropout_policies.keyed import tag, threefry2x32, threshold
from dropout_policies.plan import Plan, Slot

Tensor = Any
Masks = dict[Slot, Tensor]


def draw(
    wanted: Plan,
    generator: keras.random.SeedGenerator,
    keyed: bool,
    row_offset: int,
    dtype: str,
) -> Masks:
    """The masks of one call as multipliers: 0 or 1/(1 − rate), each `[T or 1, B, F]`.

    Keyed, the generator's state is the pair (seed, call), and one call moves it on by one.
    Otherwise the masks come from `keras.random`, each with a seed of its own from the generator.
    """
    state = ops.cast(generator.next(), "int32") if keyed and wanted else None
    drawn: Masks = {}
    for slot, mask in wanted.items():
        rate = mask.rule.rate
        if state is None:
            # Kept where u >= rate, in float32: narrower floats would round the rate.
            keep = keras.random.uniform(mask.shape, dtype="float32", seed=generator) >= rate
        else:
            keep = keep_bits(mask_key(state, slot), rate, mask.shape, row_offset)
        drawn[slot] = ops.cast(keep, dtype) * (1.0 / (1.0 - rate))
    return drawn


def mask_key(state: Tensor, slot: Slot) -> tuple[Tensor, Tensor]:
    """The key of one mask of one call, from the state (seed, call), as two int32 words."""
    seed, call = state[0], state[1]
    return threefry2x32((seed, ops.zeros_like(seed)), (call, _int32(tag(slot))), _rotate_left)


def keep_bits(
    key: tuple[Tensor, Tensor], rate: float, shape: tuple[Any, Any, int], row_offset: int
) -> Tensor:
    """Which elements of a mask `[T, B, F]` are kept, bit for bit those of the core."""
    steps, batch, width = shape
    blocks = (steps * width + 1) // 2
    # Keras has no arithmetic on uint32 everywhere; int32 wraps alike.
    rows = ops.reshape(ops.arange(batch, dtype="int32") + _int32(row_offset), (-1, 1))
    columns = ops.reshape(ops.arange(blocks, dtype="int32"), (1, -1))
    counter = rows + 0 * columns, 0 * rows + columns
    words = ops.stack(threefry2x32(key, counter, _rotate_left), axis=-1)
    flat = ops.reshape(words, (batch, 2 * blocks))[:, : steps * width]
    # Comparing as unsigned: both sides moved down by 2**31.
    kept = (flat ^ _int32(2**31)) >= _int32(threshold(rate) + 2**31)
    return ops.transpose(ops.reshape(kept, (batch, steps, width)), (1, 0, 2))


def _int32(word: int) -> Tensor:
    """An unsigned 32-bit word (modulo 2**32) as the int32 of the same bits."""
    word %= 2**32
    return ops.convert_to_tensor(word - 2**32 if word >= 2**31 else word, dtype="int32")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> keeps the sign; the and clears what it brought in.
    back = ops.bitwise_and(ops.right_shift(words, 32 - bits), (1 << bits) - 1)
    return ops.bitwise_or(ops.left_shift(words, bits), back)
