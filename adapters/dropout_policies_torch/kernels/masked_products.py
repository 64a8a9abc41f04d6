"""Products of masked values with weights, over all steps, where one mask is for all gates or each
gate has its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import products


def count_masks(mask: Tensor | None, width: int) -> int:
    """How many masks of a width lie side by side in a mask `[..., F or 1]` or `[..., G*F]`; 1 where
    there is none."""
    return 1 if mask is None else max(mask.shape[-1] // width, 1)


def split_mask(mask: Tensor | None, width: int) -> Sequence[Tensor | None]:
    """The masks that lie side by side; one None where there is none."""
    return [None] if mask is None else mask.chunk(count_masks(mask, width), dim=-1)


def apply_mask(mask: Tensor | None, values: Tensor) -> Tensor:
    """The values under a mask, or as they are."""
    return values if mask is None else values * mask


def input_gates(x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """The input's part of the gates, `[T, B, G*H]`.

    Args:
        x: the input, `[T, B, D]`.
        weight: `[G*H, D]`.
        bias: `[G*H]`, or None.
        mask: `[T or 1, B or 1, G*D]`, or None.
    """
    masks = split_mask(mask, x.shape[-1])
    weights = weight.chunk(len(masks))
    biases = [None] * len(masks) if bias is None else bias.chunk(len(masks))
    parts = [
        products.linear(apply_mask(each, x), w, b)
        for each, w, b in zip(masks, weights, biases, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def grad_input(grad_gates: Tensor, weight: Tensor, masks: Sequence[Tensor | None]) -> Tensor:
    """The gradient of the input, `[T, B, D]`.

    Args:
        grad_gates: the gradient of its part of the gates, `[T, B, G*H]`.
        weight: `[G*H, D]`.
        masks: one for all gates, or one for each.
    """
    pairs = zip(grad_gates.chunk(len(masks), dim=-1), weight.chunk(len(masks)), strict=True)
    grad, *others = (
        apply_mask(mask, products.linear(part, w.t()))
        for (part, w), mask in zip(pairs, masks, strict=True)
    )
    for other in others:
        grad.add_(other)
    return grad


def grad_weight(
    grad_gates: Tensor,
    values_under: Callable[[Tensor | None], Tensor],
    masks: Sequence[Tensor | None],
    width: int,
) -> Tensor:
    """The gradient of a weight `[G*H, F]`.

    Args:
        grad_gates: the gradient of the gates, `[N, G*H]`, for N = T*B rows.
        values_under: from a mask to what the weight was multiplied by under it, `[T, B, F]`.
        masks: one for all gates, or one for each.
        width: F.
    """
    grad = grad_gates.new_empty(grad_gates.shape[1], width)
    parts = zip(grad_gates.chunk(len(masks), dim=1), masks, grad.chunk(len(masks)), strict=True)
    for of_gates, mask, out in parts:
        products.sum_outer_products(of_gates, values_under(mask).flatten(0, 1), out)
    return grad


def mask_each(values: Tensor, mask: Tensor | None, out: Tensor) -> Tensor:
    """A state under its masks of a step, side by side as a product takes them.

    Args:
        values: the state, `[B, P]`.
        mask: `[B, N*P]`, for one mask or one of each gate; or None.
        out: where the result is written, `[B, N*P]`.
    """
    if mask is None:
        return values
    if mask.shape == values.shape:
        return torch.mul(values, mask, out=out)
    by_gate = (len(values), -1, values.shape[1])
    torch.mul(values.unsqueeze(1), mask.view(by_gate), out=out.view(by_gate))
    return out


def sum_under_masks(grad_masked: Tensor, mask: Tensor | None, width: int) -> Tensor:
    """The gradient of a state `[B, P]` from that of the state under its masks.

    Args:
        grad_masked: `[B, N*P]`.
        mask: the masks, side by side, `[B or 1, N*P or 1]`; or None.
        width: P.
    """
    if mask is None:
        return grad_masked
    grad = grad_masked * mask
    return grad if grad.shape[1] == width else grad.view(len(grad), -1, width).sum(1)
