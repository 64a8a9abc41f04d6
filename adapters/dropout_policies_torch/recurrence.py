"""Running stacked recurrent layers under given masks, on the fastest path that is right.

Where no mask falls inside the recurrence, each layer and direction is one call of PyTorch's own
fused kernel (`torch.lstm` and its like, cuDNN on a GPU), on masked weights where masks fall on
them. Where one does, an operator over the whole sequence runs if there is one for it, and otherwise
a plain loop over the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.adapter import (
    Placement,
    Site,
)

from .cells import STEPS, States, Weights, into_gates, over_steps
from .kernels import operators
from .kernels.sequence import SITES
from .masks import Mask, Masks, on, values
from .tracing import in_torch_func, is_vmapped


@dataclass(frozen=True)
class Packing:
    """Where each row of a packed batch lies: its step, its sorted place, its sample.

    Args:
        batch_sizes: how many samples reach each step, `[T]`, on the CPU.
        step: the step t of each row, `[N]`.
        place: the place of each row's sample in the sorted batch, `[N]`.
        sample: the place of each row's sample in the batch as the user gave it, `[N]`.
        reverse: for each row, the row of the same sample with its steps in reverse, `[N]`.
        order: the sample of each sorted place, `[B]`.
    """

    batch_sizes: Tensor
    step: Tensor
    place: Tensor
    sample: Tensor
    reverse: Tensor
    order: Tensor

    @classmethod
    def of(cls, packed: PackedSequence) -> Packing:
        sizes, device = packed.batch_sizes, packed.data.device
        batch = int(sizes[0])
        grid = torch.arange(batch, device="cpu")[None, :] < sizes[:, None]  # [T, B]
        step, place = grid.nonzero(as_tuple=True)
        lengths = grid.sum(0)
        offsets = sizes.cumsum(0) - sizes
        reverse = offsets[lengths[place] - 1 - step] + place
        order = packed.sorted_indices
        order = torch.arange(batch, device=device) if order is None else order
        place = place.to(device)
        return cls(sizes, step.to(device), place, order[place], reverse.to(device), order)


def run(
    layer: nn.RNNBase,
    x: Tensor,
    states: States,
    packing: Packing | None,
    placement: Placement,
    masks: Masks,
) -> tuple[Tensor, States]:
    """Run every layer and direction of a recurrent module under its masks.

    Args:
        layer: whose weights run.
        x: the input `[T, B, D]`, or the packed rows `[N, D]`.
        states: h `[L*K, B, P]`, and of an LSTM c `[L*K, B, H]`, for K directions, in sorted order
            if packed.
        packing: where the rows of a packed batch lie.
        placement: which slots belong to this object.
        masks: arrays by slot.

    Returns:
        The output, laid out as `x`, and the last states, laid out as `states`.
    """
    directions = (0, 1) if layer.bidirectional else (0,)
    vertical = placement.vertical(layer.num_layers)[: layer.num_layers]
    weights: list[Weights] = []
    noise: list[dict[Site, Mask]] = []  # as the weights: layer by layer, direction by direction
    for (_, inner), direction in product(vertical, directions):
        place = (placement.layer + inner, direction)
        noise.append({slot.site: mask for slot, mask in masks.items() if slot[1:] == place})
        plain = Weights.of(list(layer.all_weights[len(weights)]))
        weights.append(_masked_weights(plain, noise[-1]))
    ends: list[States] = []
    # PyTorch's kernels are no part of torch.compile's graphs, and vmap cannot take them apart.
    by_loop = torch.compiler.is_compiling() or (
        in_torch_func() and is_vmapped((x, *states, *(each for w in weights for each in w.flat())))
    )
    while len(ends) < len(weights):
        first = len(ends)
        whole = len(directions) * _whole_layers(noise[first:], len(directions))
        if whole > len(directions) and not by_loop:
            flat = [each for w in weights[first : first + whole] for each in w.flat()]
            start = tuple(state[first : first + whole] for state in states)
            x, end = _fused(layer.mode, flat, x, start, packing, whole, layer.bidirectional)
            ends.extend(zip(*end, strict=True))
            continue
        entry, _ = vertical[first // len(directions)]
        outputs = []
        for direction in directions:
            index = len(ends)
            here, start = noise[index], tuple(state[index] for state in states)
            leaving = here.pop(Site.OUTPUT, None)
            y, end = _one_direction(
                layer.mode, weights[index], x, start, packing, direction, entry, here, by_loop
            )
            outputs.append(masked(y, leaving, packing))
            ends.append(end)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


def _whole_layers(noise: list[dict[Site, Mask]], directions: int) -> int:
    """How many layers no mask falls in, from the first on: PyTorch's kernel runs those at once."""
    whole = (index for index, here in enumerate(noise) if here)
    return next(whole, len(noise)) // directions


def _one_direction(
    mode: str,
    weights: Weights,
    x: Tensor,
    start: States,
    packing: Packing | None,
    direction: int,
    entry: Site,
    masks: dict[Site, Mask],
    by_loop: bool,
) -> tuple[Tensor, States]:
    """One layer in one direction; `masks` by site, without those that were applied already."""
    into = masks.get(entry)
    if into is None or into.shape[-1] in (1, x.shape[-1]):
        x = masked(x, masks.pop(entry, None), packing)
    if masks or by_loop:
        inside = {site: values(mask, x.dtype) for site, mask in masks.items()}
        return _loop(mode, weights, x, start, packing, direction, entry, inside)
    x = _turned(x, packing) if direction else x
    states = tuple(state[None] for state in start)
    y, end = _fused(mode, weights.flat(), x, states, packing)
    return _turned(y, packing) if direction else y, tuple(state[0] for state in end)


def _turned(x: Tensor, packing: Packing | None) -> Tensor:
    """Each sample's steps in reverse."""
    return x.flip(0) if packing is None else x[packing.reverse]


def _masked_weights(weights: Weights, masks: dict[Site, Mask]) -> Weights:
    """The weights under their masks `[1, G*H, D or P]`, which are taken out of `masks`."""
    for site, name in ((Site.INPUT_WEIGHT, "w_ih"), (Site.RECURRENT_WEIGHT, "w_hh")):
        mask = masks.pop(site, None)
        if mask is not None:
            weight = getattr(weights, name)
            weights = replace(weights, **{name: on(mask[0], weight)})
    return weights


def masked(x: Tensor, mask: Mask | None, packing: Packing | None) -> Tensor:
    if mask is None:
        return x
    if packing is not None:
        steps = packing.step if mask.shape[0] > 1 else torch.zeros_like(packing.step)
        samples = packing.sample if mask.shape[1] > 1 else torch.zeros_like(packing.sample)
        mask = mask[steps, samples]
    return on(mask, x)


def _fused(
    mode: str,
    weights: list[Tensor],
    x: Tensor,
    states: States,
    packing: Packing | None,
    count: int = 1,
    bidirectional: bool = False,
) -> tuple[Tensor, States]:
    """PyTorch's own kernel: `count` layers times directions, with states `[count, B, H]`."""
    states = tuple(state.contiguous() for state in states)
    hx = list(states) if mode == "LSTM" else states[0]
    layers = count // (1 + bidirectional)
    how = (len(weights) >= 4 * count, layers, 0.0, True, bidirectional)
    kernel: Any = getattr(torch, mode.lower())  # lstm, gru, rnn_tanh or rnn_relu
    if packing is not None:
        y, *end = kernel(x, packing.batch_sizes, hx, weights, *how)
    else:
        y, *end = kernel(x, hx, weights, *how, False)
    return y, tuple(end)


def _loop(
    mode: str,
    weights: Weights,
    x: Tensor,
    start: States,
    packing: Packing | None,
    direction: int,
    entry: Site,
    masks: Mapping[Site, Tensor],
) -> tuple[Tensor, States]:
    x, valid, masks = opened(x, packing, masks)
    inside = {site: mask for site, mask in masks.items() if site is not entry}
    if entry not in masks and operators.has(mode, weights, inside, (x, *start)):
        y, states = _at_once(mode, weights, x, start, inside, valid, direction == 1)
    else:
        y, states = _by_steps(mode, weights, x, start, masks, entry, valid, direction == 1)
    return (y if packing is None else y[packing.step, packing.place]), states


def _by_steps(
    mode: str,
    weights: Weights,
    x: Tensor,
    start: States,
    masks: Mapping[Site, Tensor],
    entry: Site,
    valid: Tensor | None,
    backward: bool,
) -> tuple[Tensor, States]:
    """The plain loop, which is differentiable in every way."""
    # Cut at once, not step by step: a trace of it refuses another number of steps.
    into = into_gates(mode, x, weights, masks.get(entry)).unbind(0)  # each [B, G*H]
    step, dtype = STEPS[mode], into[0].dtype
    return over_steps(
        lambda t, states, noise: step(into[t], states, weights, noise),
        len(x),
        tuple(state.to(dtype) for state in start),
        {site: mask.to(dtype) for site, mask in masks.items() if site is not entry},
        valid,
        backward,
    )


def _at_once(
    mode: str,
    weights: Weights,
    x: Tensor,
    start: States,
    masks: Mapping[Site, Tensor],
    valid: Tensor | None,
    backward: bool,
) -> tuple[Tensor, States]:
    """The operator of the whole sequence, which wants all in one type."""
    device = x.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    masks = {site: mask.to(dtype) for site, mask in masks.items()}
    if valid is not None:
        # A step of padding is one at which everything stays as it was.
        for site in {Site.HIDDEN_UPDATE, Site.CELL_UPDATE} & set(SITES[mode]):
            stays = masks.get(site, torch.zeros_like(valid, dtype=dtype))
            masks[site] = torch.where(valid, stays, 1.0)
    typed = weights.to(dtype)
    states = tuple(state.to(dtype) for state in start)
    return operators.run(mode, typed, x.to(dtype), states, masks, backward)


def opened(
    x: Tensor, packing: Packing | None, masks: Mapping[Site, Tensor]
) -> tuple[Tensor, Tensor | None, Mapping[Site, Tensor]]:
    """Packed rows as `[T, B, D]`, which of them are there `[T, B, 1]`, and the masks in the sorted
    order of the batch."""
    if packing is None:
        return x, None, masks
    masks = {s: m[:, packing.order] if m.shape[1] > 1 else m for s, m in masks.items()}
    dense = x.new_zeros(len(packing.batch_sizes), len(packing.order), x.shape[-1])
    dense = dense.index_put((packing.step, packing.place), x)
    valid = torch.zeros(*dense.shape[:2], 1, dtype=torch.bool, device=x.device)
    valid[packing.step, packing.place] = True
    return dense, valid, masks
