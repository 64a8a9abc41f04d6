"""Drawing a plan's masks on the device, eagerly or in a compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dropout_policies.adapter import (
    VERTICAL,
    WEIGHTS,
    Plan,
    PlannedMask,
    Rate,
    Schedule,
    Slot,
    has_compiled_bits,
    mask_key,
    plan_in_evaluation,
    tag,
    threefry2x32,
    threshold,
    write_keep_bits,
)

from .kernels.compiled import kernels, start
from .kernels.kernel_memory import has_memory
from .tracing import is_observed


@dataclass(frozen=True)
class Bits:
    """A drop's mask as which elements are kept `[T, B, F]`, of a byte each, and what by.

    It is what the backward pass holds on to; values would take four times as much.
    """

    keep: Tensor
    kept: float | Tensor

    @property
    def shape(self) -> torch.Size:
        return self.keep.shape

    def __getitem__(self, places: Any) -> Bits:
        return Bits(self.keep[places], self.kept)

    def on(self, x: Tensor) -> Tensor:
        """D(x)."""
        return (x * self.keep).mul_(self.kept)

    def values(self, dtype: torch.dtype) -> Tensor:
        return self.keep.to(dtype).mul_(self.kept)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.values(torch.float64).numpy(force=True).astype(dtype or np.float64)


Mask = Tensor | Bits
"""What a mask multiplies by, or stands for, as `PlannedMask` says."""

Masks = dict[Slot, Mask]

Call = int | Tensor
"""The number of a call: an integer, or in a compiled graph a scalar of int64."""


def draw(
    plan: Plan,
    seed: int | None,
    call: Call,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Masks:
    """The masks of one call, each of its planned shape; see `PlannedMask` for what they hold.

    With a seed they are keyed (`dropout_policies.keyed`); without one they come from PyTorch's own
    generator of the device, and `torch.manual_seed` rules.
    """
    drawn: Masks = {}
    for slot, mask in plan.items():
        offset = row_offset if mask.by_sample else 0
        if seed is None:
            keep = _unkeyed_bits(mask, call, device)
        else:
            key, least = _key(seed, call, slot), _by_call(mask.rate, call, _least)
            keep = keep_bits(key, least, mask.shape, offset, device)
        kept, dropped = _values(mask, call)
        if _as_bits(slot, mask):
            drawn[slot] = Bits(keep, kept)
        else:
            values = keep.to(dtype).mul_(kept - dropped)
            drawn[slot] = values.add_(dropped) if mask.rule.kind == "zoneout" else values
    return drawn


def _as_bits(slot: Slot, mask: PlannedMask) -> bool:
    """Whether a mask is large, and falls at once on what it falls on."""
    large = mask.shape[0] > 1 and mask.rule.gates == "tied" and slot.site in VERTICAL
    return large or slot.site in WEIGHTS


def on(mask: Mask, x: Tensor) -> Tensor:
    """x under a mask, in the type of x."""
    # Under autocast x may be narrower than the input that the mask was drawn for.
    return mask.on(x) if isinstance(mask, Bits) else x * mask.to(x.dtype)


def values(mask: Mask, dtype: torch.dtype) -> Tensor:
    """A mask as what it multiplies by."""
    return mask.values(dtype) if isinstance(mask, Bits) else mask.to(dtype)


def _values(mask: PlannedMask, call: Call) -> list[Any]:
    """What a mask holds where it keeps, and where it drops."""
    return [_by_call(mask.rate, call, partial(mask.rule.value, kept)) for kept in (True, False)]


def means(plan: Plan, call: Call, device: torch.device, dtype: torch.dtype) -> Masks:
    """What stands for masks in evaluation: each one's mean, `[1, 1, 1]`."""
    return {
        slot: torch.as_tensor(_by_call(mask.rate, call, mask.rule.mean), dtype=dtype, device="cpu")
        .to(device)
        .reshape(1, 1, 1)
        for slot, mask in plan_in_evaluation(plan).items()
    }


def _by_call(rate: Rate, call: Call, of: Callable[[float], float]) -> float | Tensor:
    """A function of the rate of a call; a scalar tensor where rate and call are only known later.

    From a table, so that nothing is ever computed with a rate that a graph has rounded.
    """
    if not isinstance(rate, Schedule):
        return of(rate)
    if not isinstance(call, Tensor):
        return of(rate.at(call))
    firsts = torch.tensor([first for first, _ in rate.points], device="cpu")
    values = [of(each) for _, each in rate.points]
    dtype = torch.int32 if isinstance(values[0], int) else torch.float64
    table = torch.tensor(values, dtype=dtype, device="cpu")
    index = (call >= firsts).sum() - 1
    return table.index_select(0, index.reshape(1)).squeeze(0)  # table[index] would leave the graph


def _least(rate: float) -> int:
    """The smallest word that keeps, moved down by 2**31."""
    return threshold(rate) - 2**31


def _unkeyed_bits(mask: PlannedMask, call: Call, device: torch.device) -> Tensor:
    """Which elements are kept, as PyTorch's generator has it; on the CPU by a key from there where
    that can be, for PyTorch draws a number after the other."""
    if device.type == "cpu" and not is_observed():
        words = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device=device)
        if has_memory(words) and has_compiled_bits():
            k0, k1 = words.unbind()
            return keep_bits((k0, k1), _by_call(mask.rate, call, _least), mask.shape, 0, device)
    rate = _by_call(mask.rate, call, float)
    # A comparison, for `bernoulli_` takes several times as long on a CPU.
    least = rate.to(device) if isinstance(rate, Tensor) else rate
    return torch.rand(mask.shape, dtype=torch.float32, device=device) >= least


def _key(seed: int, call: Call, slot: Slot) -> tuple[Tensor, Tensor]:
    """The key of one mask of one call, as two int32 words."""
    if not isinstance(call, Tensor):
        k0, k1 = mask_key(seed, call, slot)
        return _int32(k0), _int32(k1)
    counter = (call.to(torch.int32), _int32(tag(slot)))
    return threefry2x32((_int32(seed), _int32(0)), counter, _rotate_left)


def keep_bits(
    key: tuple[Tensor, Tensor],
    words_from: float | Tensor,
    shape: tuple[int, int, int],
    row_offset: int,
    device: torch.device,
) -> Tensor:
    """Which elements of a mask `[T, B, F]` are kept, bit for bit those of the core.

    Args:
        key: two int32 words.
        words_from: the smallest word that keeps, moved down by 2**31.
        shape: T, B and F.
        row_offset: the number of the first row.
        device: where the mask is wanted.
    """
    if not is_observed():
        keep = torch.empty(shape, dtype=torch.bool, device=device)
        if has_memory(keep) and has_compiled_bits():
            words_of_key, first = (int(key[0]), int(key[1])), int(words_from) + 2**31
            write_keep_bits(words_of_key, first, shape, row_offset, keep.data_ptr())
            return keep
        if device.type == "cuda" and kernels() is not None:
            return _by_kernel(key, words_from, row_offset, keep)
    steps, batch, width = shape
    blocks = -(-steps * width // 2)
    # PyTorch has no arithmetic on uint32; int32 wraps alike.
    counter = torch.meshgrid(
        torch.arange(row_offset, row_offset + batch, device=device).to(torch.int32),
        torch.arange(blocks, device=device, dtype=torch.int32),
        indexing="ij",
    )
    k0, k1 = (word.to(device) for word in key)
    words = threefry2x32((k0, k1), (counter[0], counter[1]), _rotate_left)
    least = words_from.to(device) if isinstance(words_from, Tensor) else words_from
    # Comparing as unsigned: both sides moved down by 2**31.
    kept = torch.stack([word.bitwise_xor_(-(2**31)) >= least for word in words], dim=-1)
    kept = kept.reshape(batch, 2 * blocks)[:, : steps * width]
    return kept.reshape(batch, steps, width).transpose(0, 1)


BLOCK = 512
"""Pairs of elements that one program on a GPU takes."""


def _by_kernel(
    key: tuple[Tensor, Tensor], words_from: float | Tensor, row_offset: int, keep: Tensor
) -> Tensor:
    """The same by a kernel on a GPU, which nothing waits for."""
    steps, batch, width = keep.shape
    pairs = batch * -(-steps * width // 2)
    # As signed words; the least is to be unsigned there.
    k0, k1, least = (int(word) for word in (*key, words_from))
    least += 2**31 if least < 0 else -(2**31)
    numbers = (k0, k1, least, int(_int32(row_offset)))
    with torch.cuda.device_of(keep):  # type: ignore[no-untyped-call]
        start("keep_bits", keep, pairs, BLOCK, keep.view(torch.uint8), *numbers, *keep.shape)
    return keep


def _int32(word: int) -> Tensor:
    # On the CPU, whatever the default device is; so is the number of the call.
    return torch.tensor(word - 2**32 if word >= 2**31 else word, dtype=torch.int32, device="cpu")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> keeps the sign; the and clears what it brought in. To add a multiple is one pass over the
    # words, where to shift and to join are two.
    low = (words >> (32 - bits)).bitwise_and_((1 << bits) - 1)
    return low.add_(words, alpha=1 << bits)
