"""Drawing a plan's masks in Keras, on any backend, eagerly or in a traced graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    Plan,
    PlannedMask,
    Rate,
    Schedule,
    Slot,
    plan_in_evaluation,
    tag,
    threefry2x32,
    threshold,
)

from .kernels import compiled
from .tracing import Tensor, has_seed

Masks = dict[Slot, Tensor]


def draw(
    plan: Plan,
    generator: keras.random.SeedGenerator,
    state: Tensor | None,
    row_offset: int,
    dtype: str,
    replica: Tensor | None = None,
    unshared: Callable[[Tensor], Tensor] = lambda mask: mask,
) -> Masks:
    """The masks of one call, each of its planned shape; see `PlannedMask` for what they hold.

    Args:
        wanted: what is planned.
        generator: where masks come from that are not keyed, each with a seed of its own.
        state: (seed, call) as two int32 words, for keyed masks; None for others.
        row_offset: the number of the batch's first row.
        dtype: of the masks.
        replica: the number of the replica, if several draw from one state: masks of samples are
            each replica's own, a mask of a weight is one for all of them.
        unshared: what masks of samples go through before they are used.
    """
    drawn: Masks = {}
    like = ops.cast(generator.state, "int32")
    by_numbers = replica is None and has_seed(like)
    for slot, mask in plan.items():
        at_once = compiled.at_once(keep_bits, mask.shape, like)
        if state is None and at_once is None and by_numbers:
            # Kept where u >= rate, in float32: narrower floats would round the rate.
            keep = keras.random.uniform(mask.shape, dtype="float32", seed=generator) >= mask.rate
        else:
            # Quicker than numbers that are thrown away once they have been compared.
            key = mask_key(state, slot) if state is not None else _next_key(generator)
            if replica is not None and mask.by_sample:
                key = threefry2x32(key, (replica, ops.zeros_like(replica)), _rotate_left)
            least = _by_call(mask.rate, state, lambda rate: threshold(rate) - 2**31, "int32")
            offset = row_offset if mask.by_sample else 0
            keep = (at_once or keep_bits)(key, least, mask.shape, offset)
        keep = unshared(keep) if mask.by_sample else keep
        kept, dropped = (_value(mask, state, bit, dtype) for bit in (True, False))
        drawn[slot] = ops.cast(keep, dtype) * (kept - dropped) + dropped
    return drawn


def means(plan: Plan, state: Tensor, dtype: str) -> Masks:
    """What stands for masks in evaluation: each one's mean, `[1, 1, 1]`."""
    return {
        slot: ops.reshape(_by_call(mask.rate, state, mask.rule.mean, dtype), (1, 1, 1))
        for slot, mask in plan_in_evaluation(plan).items()
    }


def _value(mask: PlannedMask, state: Tensor | None, kept: bool, dtype: str) -> Tensor:
    """What a mask holds where it keeps, or where it drops."""
    return _by_call(mask.rate, state, partial(mask.rule.value, kept), dtype)


def _by_call(rate: Rate, state: Tensor | None, of: Callable[[float], float], dtype: str) -> Tensor:
    """A function of the rate of a call, as a scalar.

    From a table, so that nothing is ever computed with a rate that a graph has rounded.
    """
    if not isinstance(rate, Schedule):
        return ops.convert_to_tensor(of(rate), dtype=dtype)
    assert state is not None, "a rate that changes goes with a counted call"
    # As unsigned: both sides moved down by 2**31.
    firsts = ops.convert_to_tensor([first - 2**31 for first, _ in rate.points], dtype="int32")
    passed = ops.cast((state[1] ^ _int32(2**31)) >= firsts, "int32")
    table = ops.convert_to_tensor([of(each) for _, each in rate.points], dtype=dtype)
    return ops.take(table, ops.sum(passed) - 1)


def mask_key(state: Tensor, slot: Slot) -> tuple[Tensor, Tensor]:
    """The key of one mask of one call, from the state (seed, call), as two int32 words."""
    seed, call = state[0], state[1]
    return threefry2x32((seed, ops.zeros_like(seed)), (call, _int32(tag(slot))), _rotate_left)


def _next_key(generator: keras.random.SeedGenerator) -> tuple[Tensor, Tensor]:
    """A generator's next seed as the key of a mask, as two int32 words."""
    seed = ops.cast(generator.next(), "int32")
    return seed[0], seed[1]


def keep_bits(
    key: tuple[Tensor, Tensor], least: Tensor, shape: tuple[Any, Any, int], row_offset: int
) -> Tensor:
    """Which elements of a mask `[T, B, F]` are kept, bit for bit those of the core.

    Args:
        key: two int32 words.
        least: the smallest word that keeps, moved down by 2**31.
        shape: T, B and F.
        row_offset: the number of the first row.
    """
    steps, batch, width = shape
    # Keras has no arithmetic on uint32 everywhere; int32 wraps alike.
    rows = ops.reshape(ops.arange(batch, dtype="int32") + _int32(row_offset), (1, -1, 1))
    before = ops.reshape(ops.arange(steps, dtype="int32") * width, (-1, 1, 1))
    places = before + ops.reshape(ops.arange(width, dtype="int32"), (1, 1, -1))
    # A block for every element, though two share it: all of it is then one loop over the mask,
    # which a compiler runs far faster than half the blocks and a rearrangement.
    counter = rows + 0 * places, ops.right_shift(places, 1) + 0 * rows
    first, second = threefry2x32(key, counter, _rotate_left)
    words = ops.where(ops.bitwise_and(places, 1) == 0, first, second)
    # Comparing as unsigned: both sides moved down by 2**31.
    return (words ^ _int32(2**31)) >= least


def _int32(word: int) -> Tensor:
    """An unsigned 32-bit word (modulo 2**32) as the int32 of the same bits."""
    word %= 2**32
    return ops.convert_to_tensor(word - 2**32 if word >= 2**31 else word, dtype="int32")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> keeps the sign; the and clears what it brought in.
    back = ops.bitwise_and(ops.right_shift(words, 32 - bits), (1 << bits) - 1)
    return ops.bitwise_or(ops.left_shift(words, bits), back)
