"""Drawing a plan's masks on the device, eagerly or in a compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from dropout_policies_kernels.compiled import launch_kernel, load_triton_kernels
from dropout_policies_kernels.kernel_memory import has_memory
from dropout_policies_kernels.tracing import is_observed
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


@dataclass(frozen=True)
class BitMask:
    """The mask of a drop, stored as one byte for each element.

    The backward pass keeps the mask alive. Floating point values would take four times as much
    memory.

    Args:
        keep: which elements are kept, `[T, B, F]`.
        scale: the factor of the elements that are kept.
    """

    keep: Tensor
    scale: float | Tensor

    @property
    def shape(self) -> torch.Size:
        return self.keep.shape

    def __getitem__(self, index: Any) -> BitMask:
        return BitMask(self.keep[index], self.scale)

    def reshape(self, *shape: int) -> BitMask:
        """Return the same mask in another shape."""
        return BitMask(self.keep.reshape(*shape), self.scale)

    def apply(self, x: Tensor) -> Tensor:
        """Return D(x): x under the mask."""
        return (x * self.keep).mul_(self.scale)

    def values(self, dtype: torch.dtype) -> Tensor:
        """Return the factors that the mask multiplies by."""
        return self.keep.to(dtype).mul_(self.scale)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.values(torch.float64).numpy(force=True).astype(dtype or np.float64)


Mask = Tensor | BitMask
"""A mask: either its values, as `PlannedMask` describes them, or its bits."""

Masks = dict[Slot, Mask]

CallNumber = int | Tensor
"""The number of a call: an integer, or an int64 scalar tensor in a compiled graph."""


def draw(
    plan: Plan,
    seed: int | None,
    call: CallNumber,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Masks:
    """Draw the masks of one call.

    With a seed, the masks are keyed (`dropout_policies.keyed`). Without one, they come from the
    device's own PyTorch generator, which `torch.manual_seed` sets.

    Args:
        plan: the planned masks by slot.
        seed: the seed of keyed masks. None: use PyTorch's generator.
        call: the number of the call.
        row_offset: the number of the first row of the batch.
        device: the device of the masks.
        dtype: the dtype of their values.

    Returns:
        The masks by slot, each in its planned shape. `PlannedMask` describes their values.
    """
    drawn: Masks = {}
    for slot, mask in plan.items():
        if seed is None:
            keep = _draw_unkeyed_bits(mask, call, device)
        else:
            offset = row_offset if mask.by_sample else 0
            keep = keyed_bits(slot, mask, seed, call, mask.shape, offset, device)
        drawn[slot] = as_mask(slot, mask, keep, call, dtype)
    return drawn


def as_mask(
    slot: Slot, mask: PlannedMask, keep: Tensor, call: CallNumber, dtype: torch.dtype
) -> Mask:
    """Make a mask from its bits.

    Args:
        slot: the slot of the mask.
        mask: the planned mask.
        keep: which elements are kept, `[T, B, F]`.
        call: the number of the call.
        dtype: the dtype of the values.
    """
    kept_value, dropped_value = _mask_values_at_call(mask, call)
    if _stays_bits(slot, mask):
        return BitMask(keep, kept_value)
    values = keep.to(dtype).mul_(kept_value - dropped_value)
    return values.add_(dropped_value) if mask.rule.kind == "zoneout" else values


def _stays_bits(slot: Slot, mask: PlannedMask) -> bool:
    """Whether a mask stays as bits. A mask does if it is large and applied only once."""
    is_large = mask.shape[0] > 1 and mask.rule.gates == "tied" and slot.site in VERTICAL
    return is_large or slot.site in WEIGHTS


def apply_mask(mask: Mask, x: Tensor) -> Tensor:
    """Apply a mask to x. The result has the dtype of x."""
    # Under autocast, x may be narrower than the input for which the mask was drawn.
    return mask.apply(x) if isinstance(mask, BitMask) else x * mask.to(x.dtype)


def mask_values(mask: Mask, dtype: torch.dtype) -> Tensor:
    """Return the factors that a mask multiplies by."""
    return mask.values(dtype) if isinstance(mask, BitMask) else mask.to(dtype)


def _mask_values_at_call(mask: PlannedMask, call: CallNumber) -> list[Any]:
    """Return the value of a mask where it keeps, and its value where it drops."""
    return [_at_call(mask.rate, call, partial(mask.rule.value, kept)) for kept in (True, False)]


def means(plan: Plan, call: CallNumber, device: torch.device, dtype: torch.dtype) -> Masks:
    """Return what evaluation uses in place of the masks: the mean of each, `[1, 1, 1]`."""
    return {
        slot: torch.as_tensor(_at_call(mask.rate, call, mask.rule.mean), dtype=dtype, device="cpu")
        .to(device)
        .reshape(1, 1, 1)
        for slot, mask in plan_in_evaluation(plan).items()
    }


def _at_call(rate: Rate, call: CallNumber, function: Callable[[float], float]) -> float | Tensor:
    """Apply a function to the rate of a call.

    If the number of the call is a tensor and the rate a schedule, the result is a scalar tensor. It
    comes from a table, so a graph never computes with a rate that it has rounded.
    """
    if not isinstance(rate, Schedule):
        return function(rate)
    if not isinstance(call, Tensor):
        return function(rate.at(call))
    firsts = torch.tensor([first for first, _ in rate.points], device="cpu")
    values = [function(rate_of_point) for _, rate_of_point in rate.points]
    dtype = torch.int32 if isinstance(values[0], int) else torch.float64
    table = torch.tensor(values, dtype=dtype, device="cpu")
    index = (call >= firsts).sum() - 1
    return table.index_select(0, index.reshape(1)).squeeze(0)  # table[index] would leave the graph


def _least_word(rate: float) -> int:
    """Return the smallest word that keeps an element, minus 2**31."""
    return threshold(rate) - 2**31


def _draw_unkeyed_bits(mask: PlannedMask, call: CallNumber, device: torch.device) -> Tensor:
    """Draw which elements are kept from PyTorch's generator.

    PyTorch draws one number after another on the CPU, which is slow. If possible, this draws only a
    key there, and computes the bits from the key.
    """
    if device.type == "cpu" and not is_observed():
        words = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device=device)
        if has_memory(words) and has_compiled_bits():
            k0, k1 = words.unbind()
            return keep_bits(
                (k0, k1), _at_call(mask.rate, call, _least_word), mask.shape, 0, device
            )
    rate = _at_call(mask.rate, call, float)
    # This is a comparison because `bernoulli_` takes several times as long on a CPU.
    least = rate.to(device) if isinstance(rate, Tensor) else rate
    return torch.rand(mask.shape, dtype=torch.float32, device=device) >= least


def _mask_key(seed: int, call: CallNumber, slot: Slot) -> tuple[Tensor, Tensor]:
    """Return the key of one mask of one call, as two int32 words."""
    if not isinstance(call, Tensor):
        k0, k1 = mask_key(seed, call, slot)
        return _to_int32(k0), _to_int32(k1)
    counter = (call.to(torch.int32), _to_int32(tag(slot)))
    return threefry2x32((_to_int32(seed), _to_int32(0)), counter, _rotate_left)


def keyed_bits(
    slot: Slot,
    mask: PlannedMask,
    seed: int,
    call: CallNumber,
    shape: tuple[int, int, int],
    row_offset: int,
    device: torch.device,
    first_step: int = 0,
) -> Tensor:
    """Compute which elements of a keyed mask are kept. See `keep_bits`.

    Args:
        slot: the slot of the mask.
        mask: the planned mask.
        seed: the seed.
        call: the number of the call.
        shape: T, B and F.
        row_offset: the number of the first row.
        device: the device of the result.
        first_step: the number of the first step.
    """
    key, least = _mask_key(seed, call, slot), _at_call(mask.rate, call, _least_word)
    return keep_bits(key, least, shape, row_offset, device, first_step)


def keep_bits(
    key: tuple[Tensor, Tensor],
    least_word: float | Tensor,
    shape: tuple[int, int, int],
    row_offset: int,
    device: torch.device,
    first_step: int = 0,
) -> Tensor:
    """Compute which elements of a mask `[T, B, F]` are kept, bit for bit as the core does.

    Args:
        key: two int32 words.
        least_word: the smallest word that keeps an element, minus 2**31.
        shape: T, B and F.
        row_offset: the number of the first row.
        device: the device of the result.
        first_step: the number of the first step.
    """
    if not is_observed():
        keep = torch.empty(shape, dtype=torch.bool, device=device)
        if has_memory(keep) and has_compiled_bits():
            key_words, unsigned_least = (int(key[0]), int(key[1])), int(least_word) + 2**31
            write_keep_bits(
                key_words, unsigned_least, shape, row_offset, keep.data_ptr(), first_step
            )
            return keep
        if device.type == "cuda" and load_triton_kernels() is not None:
            return _keep_bits_on_gpu(key, least_word, row_offset, keep, first_step)
    steps, batch, width = shape
    # A block of two elements may begin before the first step. Compiled graphs, whose sizes may be
    # symbols, always begin at step 0, so that case has no extra arithmetic.
    skipped, odd = divmod(first_step * width, 2) if first_step else (0, 0)
    blocks = -(-(steps * width + odd) // 2) if odd else -(-steps * width // 2)
    # PyTorch has no arithmetic on uint32. int32 wraps in the same way.
    counter = torch.meshgrid(
        torch.arange(row_offset, row_offset + batch, device=device).to(torch.int32),
        torch.arange(skipped, skipped + blocks, device=device, dtype=torch.int32)
        if skipped
        else torch.arange(blocks, device=device, dtype=torch.int32),
        indexing="ij",
    )
    k0, k1 = (word.to(device) for word in key)
    words = threefry2x32((k0, k1), (counter[0], counter[1]), _rotate_left)
    least = least_word.to(device) if isinstance(least_word, Tensor) else least_word
    # This is an unsigned comparison: 2**31 is subtracted on both sides.
    kept = torch.stack([word.bitwise_xor_(-(2**31)) >= least for word in words], dim=-1)
    kept = kept.reshape(batch, 2 * blocks)[:, odd : odd + steps * width]
    return kept.reshape(batch, steps, width).transpose(0, 1)


BLOCK = 512
"""How many pairs of elements one program on a GPU computes."""


def _keep_bits_on_gpu(
    key: tuple[Tensor, Tensor],
    least_word: float | Tensor,
    row_offset: int,
    keep: Tensor,
    first_step: int = 0,
) -> Tensor:
    """Fill `keep` with a Triton kernel, without waiting for the device."""
    steps, batch, width = keep.shape
    first = first_step * width
    pairs = batch * -(-(first % 2 + steps * width) // 2)
    # The kernel takes signed words, and reads the bits of the least word as unsigned.
    k0, k1, least = (int(word) for word in (*key, least_word))
    least += 2**31 if least < 0 else -(2**31)
    numbers = (k0, k1, least, int(_to_int32(row_offset)), first)
    with torch.cuda.device_of(keep):  # type: ignore[no-untyped-call]
        launch_kernel(
            "keep_bits", keep, pairs, BLOCK, keep.view(torch.uint8), *numbers, *keep.shape
        )
    return keep


def _to_int32(word: int) -> Tensor:
    # Always on the CPU, like the number of the call, whatever the default device is.
    return torch.tensor(word - 2**32 if word >= 2**31 else word, dtype=torch.int32, device="cpu")


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> copies the sign bit into the high bits, and the `and` clears them. Adding a multiple takes
    # one pass over the words. A shift and an `or` would take two.
    low = (words >> (32 - bits)).bitwise_and_((1 << bits) - 1)
    return low.add_(words, alpha=1 << bits)
