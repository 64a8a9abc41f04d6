"""Draws a plan's masks in Keras, on any backend, eagerly or in a traced graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import (
    SEEDS,
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

from .kept_bits import KeptBits
from .kernels import compiled
from .tracing import Tensor, has_single_seed

Masks = dict[Slot, Tensor]


@dataclass(frozen=True)
class BitSource:
    """The values that determine the bits of keyed masks.

    Args:
        state: (seed, call) as two int32 words. None: the masks are not keyed.
        rows: the number of the batch's first row, or the number of each row, `[B]`.
        first_step: the number of the first step: one for all rows, or one for each, `[B]`.
        seeds: the seed of each row, `[B]`, instead of the seed in `state`. None: all rows have
            that one.
    """

    state: Tensor | None
    rows: int | Tensor = 0
    first_step: int | Tensor = 0
    seeds: Tensor | None = None

    def key(self, slot: Slot, by_sample: bool) -> tuple[Tensor, Tensor]:
        """Return the key of a mask as two int32 words: `[1, B, 1]` for samples with own seeds."""
        assert self.state is not None, "only keyed masks have keys"
        if self.seeds is None or not by_sample:
            return mask_key(self.state, slot)
        return mask_key((ops.reshape(self.seeds, (1, -1, 1)), self.state[1]), slot)


def draw(
    plan: Plan,
    generator: keras.random.SeedGenerator,
    source: BitSource,
    dtype: str,
    replica: Tensor | None = None,
    check_not_shared: Callable[[Tensor], Tensor] = lambda mask: mask,
    kept: KeptBits | None = None,
) -> Masks:
    """Draw the masks of one call, each in its planned shape. `PlannedMask` describes their values.

    Args:
        plan: the masks to draw, with their shapes.
        generator: the source of masks that are not keyed. Each mask takes its own seed.
        source: the values that determine keyed masks.
        dtype: the dtype of the masks.
        replica: the number of the replica, if several draw from one state. Each replica then has
            its own masks of samples, and all share the masks of weights.
        check_not_shared: returns a mask of samples, or raises an error if all would share it.
        kept: the bits that the calls of a scope with keyed masks have drawn. None: there is no
            such scope.

    Returns:
        The masks by slot.
    """
    drawn: Masks = {}
    like = ops.cast(generator.state, "int32")
    may_use_backend = replica is None and has_single_seed(like)
    state = source.state
    for slot, mask in plan.items():
        compiled_bits = None
        if source.seeds is None and not ops.is_tensor(source.rows):
            compiled_bits = compiled.find_compiled_bits(keep_bits, mask.shape, like)
        if state is None and compiled_bits is None and may_use_backend:
            # Kept where u >= rate. This is in float32 because narrower floats would round the rate.
            keep = keras.random.uniform(mask.shape, dtype="float32", seed=generator) >= mask.rate
        else:
            # This is faster than the backend's random numbers, because it needs only a comparison.
            bits = partial(_draw_bits, slot, mask, generator, source, replica, compiled_bits)
            first_step = source.first_step if mask.rule.per == "step" else 0
            if kept is not None and source.seeds is None and replica is None:
                keep = kept.find(slot, mask, source.rows, first_step, bits)
            else:
                keep = bits(mask.shape, first_step)
        keep = check_not_shared(keep) if mask.by_sample else keep
        kept_value, dropped_value = (
            _mask_value_at_call(mask, state, is_kept, dtype) for is_kept in (True, False)
        )
        drawn[slot] = ops.cast(keep, dtype) * (kept_value - dropped_value) + dropped_value
    return drawn


def _draw_bits(
    slot: Slot,
    mask: PlannedMask,
    generator: keras.random.SeedGenerator,
    source: BitSource,
    replica: Tensor | None,
    compiled_bits: Callable[..., Tensor] | None,
    shape: tuple[Any, Any, int],
    first_step: int | Tensor,
) -> Tensor:
    """Draw which elements of a mask of this shape are kept, from a first step on."""
    by_sample, state = mask.by_sample, source.state
    key = source.key(slot, by_sample) if state is not None else _next_key(generator)
    if replica is not None and by_sample:
        key = threefry2x32(key, (replica, ops.zeros_like(replica)), _rotate_left)
    least_word = _at_call(mask.rate, state, lambda rate: threshold(rate) - 2**31, "int32")
    rows = source.rows if by_sample else 0
    return (compiled_bits or keep_bits)(key, least_word, shape, rows, first_step)


def means(plan: Plan, state: Tensor, dtype: str) -> Masks:
    """Return what evaluation uses in place of the masks: the mean of each, `[1, 1, 1]`."""
    return {
        slot: ops.reshape(_at_call(mask.rate, state, mask.rule.mean, dtype), (1, 1, 1))
        for slot, mask in plan_in_evaluation(plan).items()
    }


def _mask_value_at_call(
    mask: PlannedMask, state: Tensor | None, is_kept: bool, dtype: str
) -> Tensor:
    """Return the value of a mask where it keeps, or where it drops."""
    return _at_call(mask.rate, state, partial(mask.rule.value, is_kept), dtype)


def _at_call(
    rate: Rate, state: Tensor | None, function: Callable[[float], float], dtype: str
) -> Tensor:
    """Apply a function to the rate of a call, and return a scalar.

    The values of a schedule come from a table, so no graph computes with a rate that it has
    rounded.
    """
    if not isinstance(rate, Schedule):
        return ops.convert_to_tensor(function(rate), dtype=dtype)
    assert state is not None, "a rate that changes goes with a counted call"
    # This is an unsigned comparison: 2**31 is subtracted on both sides.
    first_calls = ops.convert_to_tensor([first - 2**31 for first, _ in rate.points], dtype="int32")
    is_reached = ops.cast((state[1] ^ _to_int32(2**31)) >= first_calls, "int32")
    table = ops.convert_to_tensor([function(each) for _, each in rate.points], dtype=dtype)
    return ops.take(table, ops.sum(is_reached) - 1)


def mask_key(state: Tensor | tuple[Tensor, Tensor], slot: Slot) -> tuple[Tensor, Tensor]:
    """Return the key of one mask of one call, two int32 words, from the state (seed, call)."""
    seed, call = state[0], state[1]
    return threefry2x32((seed, ops.zeros_like(seed)), (call, _to_int32(tag(slot))), _rotate_left)


def derived_seeds(seed: Tensor, numbers: Tensor) -> Tensor:
    """Derive a seed for each number, like `derived_seed` of the core. For 0 it is the seed."""
    seeds = seed + ops.zeros_like(numbers)
    words = threefry2x32(
        (seeds, ops.zeros_like(seeds)), (numbers, _to_int32(SEEDS - 1)), _rotate_left
    )
    return ops.where(ops.equal(numbers, 0), seeds, words[0])


def _next_key(generator: keras.random.SeedGenerator) -> tuple[Tensor, Tensor]:
    """Return a generator's next seed as the key of a mask, two int32 words."""
    seed = ops.cast(generator.next(), "int32")
    return seed[0], seed[1]


def keep_bits(
    key: tuple[Tensor, Tensor],
    least_word: Tensor,
    shape: tuple[Any, Any, int],
    rows: int | Tensor,
    first_step: int | Tensor = 0,
) -> Tensor:
    """Compute which elements of a mask `[T, B, F]` are kept, bit for bit as the core does.

    Args:
        key: two int32 words, or those of each row, `[1, B, 1]`.
        least_word: the smallest word that keeps an element, minus 2**31.
        shape: T, B and F.
        rows: the number of the first row, or the number of each row, `[B]`.
        first_step: the number of the first step: one for all rows, or one for each, `[B]`.
    """
    steps, batch, width = shape
    # Keras does not have uint32 arithmetic on every backend. int32 overflows in the same way.
    if not ops.is_tensor(rows):
        rows = ops.arange(batch, dtype="int32") + _to_int32(rows)
    rows = ops.reshape(rows, (1, -1, 1))
    numbers = ops.reshape(ops.arange(steps, dtype="int32"), (-1, 1, 1))
    if ops.is_tensor(first_step):
        numbers = numbers + ops.reshape(first_step, (1, -1, 1))
    elif first_step:
        numbers = numbers + _to_int32(first_step)
    positions = numbers * width + ops.reshape(ops.arange(width, dtype="int32"), (1, 1, -1))
    # This computes one block for each element, although two elements share a block. So it is one
    # loop over the mask. A compiler runs that far faster than half the blocks and a rearrangement.
    counter = rows + 0 * positions, ops.right_shift(positions, 1) + 0 * rows
    first, second = threefry2x32(key, counter, _rotate_left)
    words = ops.where(ops.bitwise_and(positions, 1) == 0, first, second)
    # This is an unsigned comparison: 2**31 is subtracted on both sides.
    return (words ^ _to_int32(2**31)) >= least_word


def _to_int32(word: int) -> Tensor:
    """Convert an unsigned 32-bit word (modulo 2**32) to the int32 with the same bits."""
    word %= 2**32
    return ops.convert_to_tensor(word - 2**32 if word >= 2**31 else word, dtype="int32")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> fills with copies of the sign, which the bitwise and clears.
    low = ops.bitwise_and(ops.right_shift(words, 32 - bits), (1 << bits) - 1)
    return ops.bitwise_or(ops.left_shift(words, bits), low)
