"""Drawing a plan's masks on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from dropout_policies.keyed import mask_key, threefry2x32, threshold
from dropout_policies.plan import Plan, PlannedMask, Slot

Masks = dict[Slot, Tensor]


def draw(
    wanted: Plan,
    seed: int | None,
    call: int,
    row_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Masks:
    """The masks of one call as multipliers: 0 or 1/(1 − rate), each `[T or 1, B, F]`.

    With a seed they are keyed (`dropout_policies.keyed`); without one, PyTorch's own generator
    of the device draws them, and `torch.manual_seed` rules.
    """
    drawn: Masks = {}
    for slot, mask in wanted.items():
        rate = mask.rule.rate
        if seed is None:
            keep = torch.empty(mask.shape, device=device, dtype=dtype).bernoulli_(1.0 - rate)
        else:
            keep = _keyed(seed, call, slot, mask, row_offset, device).to(dtype)
        drawn[slot] = keep.div_(1.0 - rate)
    return drawn


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _keyed(
    seed: int, call: int, slot: Slot, mask: PlannedMask, row_offset: int, device: torch.device
) -> Tensor:
    # Outside compiled graphs, which would hold the number of the call as a constant.
    return keep_bits(mask_key(seed, call, slot), mask.rule.rate, mask.shape, row_offset, device)


def keep_bits(
    key: tuple[int, int],
    rate: float,
    shape: tuple[int, int, int],
    row_offset: int,
    device: torch.device,
) -> Tensor:
    """Which elements of a mask `[T, B, F]` are kept, bit for bit those of the core."""
    steps, batch, width = shape
    blocks = -(-steps * width // 2)
    # PyTorch has no arithmetic on uint32; int32 wraps alike.
    counter = torch.meshgrid(
        torch.arange(row_offset, row_offset + batch, device=device).to(torch.int32),
        torch.arange(blocks, device=device, dtype=torch.int32),
        indexing="ij",
    )
    k0, k1 = (torch.tensor(_signed(word), dtype=torch.int32, device=device) for word in key)
    words = torch.stack(threefry2x32((k0, k1), (counter[0], counter[1]), _rotate_left), dim=-1)
    flat = words.reshape(batch, 2 * blocks)[:, : steps * width]
    # Comparing as unsigned: both sides moved down by 2**31.
    kept = (flat ^ _signed(2**31)) >= threshold(rate) - 2**31
    return kept.reshape(batch, steps, width).transpose(0, 1)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def _rotate_left(words: Tensor, bits: int) -> Tensor:
    # >> keeps the sign; the and clears what it brought in.
    return (words << bits) | ((words >> (32 - bits)) & ((1 << bits) - 1))
