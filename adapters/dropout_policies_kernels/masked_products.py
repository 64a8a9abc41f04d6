"""Products of masked values with weights, over all steps.

All gates may share one mask, or each gate may have its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import products


def count_masks(mask: Tensor | None, width: int) -> int:
    """Count the masks of a width that lie side by side in a mask. Without a mask, the count is 1.

    Args:
        mask: `[..., F or 1]` or `[..., G*F]`, or None.
        width: F.
    """
    return 1 if mask is None else max(mask.shape[-1] // width, 1)


def split_mask(mask: Tensor | None, width: int) -> Sequence[Tensor | None]:
    """Split a mask into the masks that lie side by side in it. Without a mask, return `[None]`."""
    return [None] if mask is None else mask.chunk(count_masks(mask, width), dim=-1)


def apply_mask(mask: Tensor | None, values: Tensor) -> Tensor:
    """Apply a mask to values. Without a mask, return them as they are."""
    return values if mask is None else values * mask


def input_gates(x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Compute the input's part of the gates, `[T, B, G*H]`.

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
    """Compute the gradient of the input, `[T, B, D]`.

    Args:
        grad_gates: the gradient of the input's part of the gates, `[T, B, G*H]`.
        weight: `[G*H, D]`.
        masks: one mask for all gates, or one for each.
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
    """Compute the gradient of a weight `[G*H, F]`.

    Args:
        grad_gates: the gradient of the gates, `[N, G*H]`, for N = T*B rows.
        values_under: a function that maps a mask to the masked values that the weight multiplied,
            `[T, B, F]`.
        masks: one mask for all gates, or one for each.
        width: F.
    """
    grad = grad_gates.new_empty(grad_gates.shape[1], width)
    parts = zip(grad_gates.chunk(len(masks), dim=1), masks, grad.chunk(len(masks)), strict=True)
    for of_gates, mask, out in parts:
        products.sum_outer_products(of_gates, values_under(mask).flatten(0, 1), out)
    return grad


def mask_each(values: Tensor, mask: Tensor | None, out: Tensor) -> Tensor:
    """Apply the masks of a step to a state, and put the results side by side for a product.

    Args:
        values: the state, `[B, P]`.
        mask: one mask, or one for each gate, `[B, N*P]`. None: return the state as it is.
        out: the tensor for the result, `[B, N*P]`.
    """
    if mask is None:
        return values
    if mask.shape == values.shape:
        return torch.mul(values, mask, out=out)
    by_gate = (len(values), -1, values.shape[1])
    torch.mul(values.unsqueeze(1), mask.view(by_gate), out=out.view(by_gate))
    return out


def sum_under_masks(grad_masked: Tensor, mask: Tensor | None, width: int) -> Tensor:
    """Compute the gradient of a state `[B, P]` from the gradient of the masked state.

    Args:
        grad_masked: `[B, N*P]`.
        mask: the masks, side by side, `[B or 1, N*P or 1]`, or None.
        width: P.
    """
    if mask is None:
        return grad_masked
    grad = grad_masked * mask
    return grad if grad.shape[1] == width else grad.view(len(grad), -1, width).sum(1)
