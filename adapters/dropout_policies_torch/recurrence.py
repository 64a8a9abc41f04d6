"""Running a stacked LSTM under given masks, on the fastest path that is right.

Where no mask falls inside the recurrence, each layer and direction is one call of PyTorch's own
fused kernel (`torch.lstm`, cuDNN on a GPU); where the hidden state is masked on its way into the
gates, a plain differentiable loop over the steps runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.plan import Placement, Slot
from dropout_policies.sites import Site

from .masks import Masks

State = tuple[Tensor, Tensor]


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
        grid = torch.arange(batch)[None, :] < sizes[:, None]  # [T, B]
        step, place = grid.nonzero(as_tuple=True)
        lengths = grid.sum(0)
        offsets = sizes.cumsum(0) - sizes
        reverse = offsets[lengths[place] - 1 - step] + place
        order = packed.sorted_indices
        order = torch.arange(batch, device=device) if order is None else order
        place = place.to(device)
        return cls(sizes, step.to(device), place, order[place], reverse.to(device), order)


def run(
    layer: nn.LSTM,
    x: Tensor,
    state: State,
    packing: Packing | None,
    placement: Placement,
    masks: Masks,
) -> tuple[Tensor, State]:
    """Run every layer and direction of an LSTM under its masks.

    Args:
        layer: whose weights run.
        x: the input `[T, B, D]`, or the packed rows `[N, D]`.
        state: h `[L*K, B, P]` and c `[L*K, B, H]` for K directions, in sorted order if packed.
        packing: where the rows of a packed batch lie.
        placement: which slots belong to this object.
        masks: multipliers by slot.

    Returns:
        The output, laid out as `x`, and the last state, laid out as `state`.
    """
    directions = (0, 1) if layer.bidirectional else (0,)
    vertical = placement.vertical(layer.num_layers)
    entries = vertical[: layer.num_layers]
    last: list[State] = []
    for site, inner in entries:
        number = placement.layer + inner
        outputs = []
        for direction in directions:
            index = len(last)
            into = _masked(x, masks.get(Slot(site, number, direction)), packing)
            hidden = masks.get(Slot(Site.HIDDEN, number, direction))
            start = state[0][index], state[1][index]
            weights = list[Tensor](layer.all_weights[index])
            if hidden is None:
                y, end = _fused(weights, into, start, packing, direction)
            else:
                y, end = _loop(weights, into, start, packing, direction, hidden)
            if inner == layer.num_layers - 1:
                y = _masked(y, masks.get(Slot(Site.OUTPUT, number, direction)), packing)
            outputs.append(y)
            last.append(end)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return x, (torch.stack([h for h, _ in last]), torch.stack([c for _, c in last]))


def _masked(x: Tensor, mask: Tensor | None, packing: Packing | None) -> Tensor:
    if mask is None:
        return x
    if packing is not None:
        steps = packing.step if mask.shape[0] > 1 else torch.zeros_like(packing.step)
        mask = mask[steps, packing.sample]
    # Under autocast x may be narrower than the input that the masks were drawn for.
    return x * mask.to(x.dtype)


# Outside compiled graphs, as torch.compile has nn.LSTM too: inside, the CPU's kernel fails.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _fused(
    weights: list[Tensor],
    x: Tensor,
    start: State,
    packing: Packing | None,
    direction: int,
) -> tuple[Tensor, State]:
    hx = [start[0][None], start[1][None]]
    biased = len(weights) >= 4
    if packing is not None:
        x = x[packing.reverse] if direction else x
        y, h, c = torch.lstm(x, packing.batch_sizes, hx, weights, biased, 1, 0.0, True, False)
        return y[packing.reverse] if direction else y, (h[0], c[0])
    x = x.flip(0) if direction else x
    y, h, c = torch.lstm(x, hx, weights, biased, 1, 0.0, True, False, False)
    return y.flip(0) if direction else y, (h[0], c[0])


def _loop(
    weights: list[Tensor],
    x: Tensor,
    start: State,
    packing: Packing | None,
    direction: int,
    hidden: Tensor,
) -> tuple[Tensor, State]:
    valid = None
    if packing is not None:
        hidden = hidden[:, packing.order]
        dense = x.new_zeros(len(packing.batch_sizes), len(packing.order), x.shape[-1])
        x = dense.index_put((packing.step, packing.place), x)
        valid = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
        valid[packing.step, packing.place] = True
    hidden = hidden.expand(len(x), -1, -1)
    w_ih, w_hh, *rest = weights
    bias = rest[0] + rest[1] if len(rest) >= 2 else None
    w_hr = rest[-1] if len(rest) % 2 else None
    gates_in = linear(x, w_ih, bias)  # [T, B, 4*H]
    h, c = start[0].to(gates_in.dtype), start[1].to(gates_in.dtype)
    hidden = hidden.to(gates_in.dtype)
    outputs: list[Tensor] = [h] * len(x)
    for t in reversed(range(len(x))) if direction else range(len(x)):
        i, f, g, o = (gates_in[t] + linear(h * hidden[t], w_hh)).chunk(4, dim=-1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * new_c.tanh()
        if w_hr is not None:
            new_h = linear(new_h, w_hr)
        h = new_h if valid is None else torch.where(valid[t], new_h, h)
        c = new_c if valid is None else torch.where(valid[t], new_c, c)
        outputs[t] = h
    y = torch.stack(outputs)
    return (y if packing is None else y[packing.step, packing.place]), (h, c)
