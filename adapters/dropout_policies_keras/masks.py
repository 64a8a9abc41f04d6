"""Drawing a plan's masks in Keras, on any backend, eagerly or in a traced graph."""

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
    """What the bits of keyed masks are a function of.

    Args:
        state: (seed, call) as two int32 words; None for masks that are not keyed.
        rows: the number of the batch's first row, or of each row, `[B]`.
        first_step: the number of the first step: one for all rows, or one for each, `[B]`.
        seeds: the seed of each row, `[B]`, in place of that in `state`; None if they have that one.
    """

    state: Tensor | None
    rows: int | Tensor = 0
    first_step: int | Tensor = 0
    seeds: Tensor | None = None

    def key(self, slot: Slot, by_sample: bool) -> tuple[Tensor, Tensor]:
        """The key of a mask as two int32 words; of each row, `[1, B, 1]`, where rows have seeds."""
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
    """The masks of one call, each of its planned shape; see `PlannedMask` for what they hold.

    Args:
        plan: which masks to draw, and their shapes.
        generator: the source of masks that are not keyed, each with a seed of its own.
        source: what keyed masks are a function of.
        dtype: of the masks.
        replica: the number of the replica, if several draw from one state. Each replica then has
            its own masks of samples, and all have the same mask of a weight.
        check_not_shared: returns a mask of samples, or raises an error if all would share it.
        kept: the bits that the calls of a scope, whose masks are keyed, have drawn; None outside of
            one.
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
            # Kept where u >= rate, in float32: narrower floats would round the rate.
            keep = keras.random.uniform(mask.shape, dtype="float32", seed=generator) >= mask.rate
        else:
            # Faster than the backend's random numbers, of which only a comparison is needed.
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
    """Which elements of a mask of some shape are kept, from some step on."""
    by_sample, state = mask.by_sample, source.state
    key = source.key(slot, by_sample) if state is not None else _next_key(generator)
    if replica is not None and by_sample:
        key = threefry2x32(key, (replica, ops.zeros_like(replica)), _rotate_left)
    least_word = _at_call(mask.rate, state, lambda rate: threshold(rate) - 2**31, "int32")
    rows = source.rows if by_sample else 0
    return (compiled_bits or keep_bits)(key, least_word, shape, rows, first_step)


def means(plan: Plan, state: Tensor, dtype: str) -> Masks:
    """What stands for masks in evaluation: each one's mean, `[1, 1, 1]`."""
    return {
        slot: ops.reshape(_at_call(mask.rate, state, mask.rule.mean, dtype), (1, 1, 1))
        for slot, mask in plan_in_evaluation(plan).items()
    }


def _mask_value_at_call(
    mask: PlannedMask, state: Tensor | None, is_kept: bool, dtype: str
) -> Tensor:
    """The value of a mask where it keeps, or where it drops."""
    return _at_call(mask.rate, state, partial(mask.rule.value, is_kept), dtype)


def _at_call(
    rate: Rate, state: Tensor | None, function: Callable[[float], float], dtype: str
) -> Tensor:
    """A function of the rate of a call, as a scalar.

    It comes from a table, so that no graph computes with a rate that it has rounded.
    """
    if not isinstance(rate, Schedule):
        return ops.convert_to_tensor(function(rate), dtype=dtype)
    assert state is not None, "a rate that changes goes with a counted call"
    # Compared as unsigned: both sides are moved down by 2**31.
    first_calls = ops.convert_to_tensor([first - 2**31 for first, _ in rate.points], dtype="int32")
    is_reached = ops.cast((state[1] ^ _to_int32(2**31)) >= first_calls, "int32")
    table = ops.convert_to_tensor([function(each) for _, each in rate.points], dtype=dtype)
    return ops.take(table, ops.sum(is_reached) - 1)


def mask_key(state: Tensor | tuple[Tensor, Tensor], slot: Slot) -> tuple[Tensor, Tensor]:
    """The key of one mask of one call, from the state (seed, call), as two int32 words."""
    seed, call = state[0], state[1]
    return threefry2x32((seed, ops.zeros_like(seed)), (call, _to_int32(tag(slot))), _rotate_left)


def derived_seeds(seed: Tensor, numbers: Tensor) -> Tensor:
    """For each number the seed that the core derives, `derived_seed`; for 0 the seed itself."""
    seeds = seed + ops.zeros_like(numbers)
    words = threefry2x32(
        (seeds, ops.zeros_like(seeds)), (numbers, _to_int32(SEEDS - 1)), _rotate_left
    )
    return ops.where(ops.equal(numbers, 0), seeds, words[0])


def _next_key(generator: keras.random.SeedGenerator) -> tuple[Tensor, Tensor]:
    """A generator's next seed as the key of a mask, as two int32 words."""
    seed = ops.cast(generator.next(), "int32")
    return seed[0], seed[1]


def keep_bits(
    key: tuple[Tensor, Tensor],
    least_word: Tensor,
    shape: tuple[Any, Any, int],
    rows: int | Tensor,
    first_step: int | Tensor = 0,
) -> Tensor:
    """Which elements of a mask `[T, B, F]` are kept, bit for bit those of the core.

    Args:
        key: two int32 words; or `[1, B, 1]`, those of each row.
        least_word: the lowest word that keeps, moved down by 2**31.
        shape: T, B and F.
        rows: the number of the first row, or of each row, `[B]`.
        first_step: the number of the first step: one for all rows, or one for each, `[B]`.
    """
    steps, batch, width = shape
    # Keras has no arithmetic on uint32 on every backend; int32 overflows alike.
    if not ops.is_tensor(rows):
        rows = ops.arange(batch, dtype="int32") + _to_int32(rows)
    rows = ops.reshape(rows, (1, -1, 1))
    numbers = ops.reshape(ops.arange(steps, dtype="int32"), (-1, 1, 1))
    if ops.is_tensor(first_step):
        numbers = numbers + ops.reshape(first_step, (1, -1, 1))
    elif first_step:
        numbers = numbers + _to_int32(first_step)
    positions = numbers * width + ops.reshape(ops.arange(width, dtype="int32"), (1, 1, -1))
    # One block for each element, though two elements share a block: all of it is then one loop
    # over the mask, which a compiler runs far faster than half the blocks and a rearrangement.
    counter = rows + 0 * positions, ops.right_shift(positions, 1) + 0 * rows
    first, second = threefry2x32(key, counter, _rotate_left)
    words = ops.where(ops.bitwise_and(positions, 1) == 0, first, second)
    # Compared as unsigned: both sides are moved down by 2**31.
    return (words ^ _to_int32(2**31)) >= least_word


def _to_int32(word: int) -> Tensor:
    """An unsigned 32-bit word (modulo 2**32) as the int32 of the same bits."""
    word %= 2**32
    return ops.convert_to_tensor(word - 2**32 if word >= 2**31 else word, dtype="int32")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> fills up with copies of the sign, which the bitwise and clears.
    low = ops.bitwise_and(ops.right_shift(words, 32 - bits), (1 << bits) - 1)
    return ops.bitwise_or(ops.left_shift(words, bits), low)
