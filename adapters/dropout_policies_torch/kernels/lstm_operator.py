"""An LSTM over a whole sequence under noise, with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import engine as engines
from . import fused, products
from .kernel_memory import dense, resolved
from .sequence import (
    SITES,
    Operator,
    SavedGates,
    again,
    before,
    by_loop,
    cut,
    four,
    or_zeros,
    order,
    pieces,
    pulls,
    save,
    saved,
    shifted,
    slices,
    whole,
)


def _forward(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None,
    hidden: Tensor | None,
    candidate: Tensor | None,
    cell: Tensor | None,
    state: Tensor | None,
    hidden_update: Tensor | None,
    cell_update: Tensor | None,
    backward: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """An LSTM over all steps.

    Args:
        x: the input, `[T, B, D]`.
        h0, c0: the state to start from, `[B, H]`.
        w_ih, w_hh, bias: `[4*H, D]`, `[4*H, H]`, and `[4*H]`: the sum of both.
        hidden, candidate, cell, state, hidden_update, cell_update: the masks at these sites,
            `[T or 1, B or 1, H or 1]`; None where all is whole.
        backward: whether steps run from the last to the first.
        keep: whether a backward pass may follow.

    Returns:
        Every h_t `[T, B, H]` and the last c `[B, H]`; and for the backward pass, or else empty,
        every c_t `[T, B, H]`, the gates' activations `[T, B, 4*H]`, and tanh(c̃) `[T, B, H]`.
    """
    x, w_ih, w_hh = resolved(x), resolved(w_ih), resolved(w_hh)
    h0, c0 = dense(h0), dense(c0)
    steps, batch, size = len(x), *h0.shape
    hs = x.new_empty(steps, batch, size)
    masks = (hidden, candidate, cell, state, hidden_update, cell_update)
    recurrent = products.Recurrent(w_hh, batch)
    h, c = h0, c0
    for piece in pieces(steps, batch, backward, keep):
        part = x[piece], h, c, hs[piece], w_ih, bias, recurrent, cut(masks, piece)
        h, c, cs, acts, squashed = _forward_part(*part, backward, keep)
    return hs, c.clone(), cs, acts, squashed


def _forward_part(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    hs: Tensor,
    w_ih: Tensor,
    bias: Tensor | None,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Some steps of `_forward`, from h0 and c0 on: fills `hs`; the last h, c, and what is kept."""
    steps, batch, size = hs.shape
    acts = products.linear(x, w_ih, bias)  # so far what the input brings to them
    cs, squashed = (acts.new_empty(steps if keep else 1, batch, size) for _ in range(2))
    engine = engines.engine(acts, h0)
    if engine is not None:
        arrays = {"acts": acts, "hs": hs, "cs": cs, "squashed": squashed, "c0": c0}
        run = engine("lstm", h0, masks, order(steps, backward), keep, **arrays)
        run.forward(recurrent)
    else:
        _steps(acts, hs, cs, squashed, h0, c0, recurrent, masks, backward)
    at_end = 0 if backward else -1
    h, c = hs[at_end], cs[at_end]
    if not keep:
        cs, acts, squashed = (hs.new_empty(0) for _ in range(3))
    return h, c, cs, acts, squashed


def _steps(
    acts: Tensor,
    hs: Tensor,
    cs: Tensor,
    squashed: Tensor,
    h0: Tensor,
    c0: Tensor,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
) -> None:
    """All steps by PyTorch's own functions; `acts` is the input's part of the gates before, and
    the gates after."""
    steps, batch, size = hs.shape
    scratch, new = acts.new_empty(batch, size), acts.new_empty(batch, size)
    by_step = acts.unbind(0)
    first_two = acts[:, :, : 2 * size].unbind(0)
    i, f, g, o = (gate.unbind(0) for gate in four(acts).unbind(2))
    h_by_step = hs.unbind(0)
    c_by_step, squashed_by_step = (whole(every, steps) for every in (cs, squashed))
    m_hidden, m_candidate, m_cell, m_state, m_h, m_c = (slices(mask, steps, h0) for mask in masks)
    h, c = h0, c0
    for t in order(steps, backward):
        recurrent.added(
            by_step[t], h if m_hidden is None else torch.mul(h, m_hidden[t], out=scratch)
        )
        first_two[t].sigmoid_()
        g[t].tanh_()
        o[t].sigmoid_()
        new_c = c_by_step[t] if m_c is None else new
        torch.mul(f[t], c, out=new_c)
        added = i[t] if m_candidate is None else torch.mul(i[t], m_candidate[t], out=scratch)
        new_c.addcmul_(added, g[t])
        if m_cell is not None:
            new_c.mul_(m_cell[t])
        torch.tanh(new_c, out=squashed_by_step[t])
        if m_c is not None:
            torch.lerp(new_c, c, m_c[t], out=c_by_step[t])
        new_h = torch.mul(o[t], squashed_by_step[t], out=h_by_step[t])
        if m_state is not None:
            new_h.mul_(m_state[t])
        if m_h is not None:
            new_h.lerp_(h, m_h[t])
        h, c = new_h, c_by_step[t]


def _fake(x: Tensor, h0: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    keep = arguments[-1]
    hs = x.new_empty(x.shape[0], *h0.shape)
    acts = x.new_empty(*x.shape[:2], 4 * h0.shape[1])
    kept = [torch.empty_like(each) if keep else each.new_empty(0) for each in (hs, acts, hs)]
    return hs, h0.new_empty(h0.shape), *kept


def _backward(
    d_hs: Tensor,
    d_c: Tensor,
    hs: Tensor,
    cs: Tensor,
    acts: Tensor,
    squashed: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    hidden: Tensor | None,
    candidate: Tensor | None,
    cell: Tensor | None,
    state: Tensor | None,
    hidden_update: Tensor | None,
    cell_update: Tensor | None,
    backward: bool,
    spent: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, h0, c0, w_ih, w_hh and the bias from those of every h and the last c.

    `spent` says that nobody wants `acts` any more, which may then be overwritten.
    """
    d_hs, d_c, hs, cs, acts, squashed, h0, c0 = map(
        dense, (d_hs, d_c, hs, cs, acts, squashed, h0, c0)
    )
    x, w_ih, w_hh = resolved(x), resolved(w_ih), resolved(w_hh)
    masks = (hidden, candidate, cell, state, hidden_update, cell_update)
    d_gates, d_h, d_c = _gates_back(
        d_hs, d_c, hs, cs, acts, squashed, h0, c0, w_hh, masks, backward, spent
    )
    rows = d_gates.flatten(0, 1)
    d_x = products.linear(d_gates, w_ih.t())
    d_w_ih = products.outer(rows, x.flatten(0, 1))
    d_w_hh = products.outer(rows, before(h0, hs, backward, hidden).flatten(0, 1))
    return d_x, d_h, d_c, d_w_ih, d_w_hh, rows.sum(0)


def _gates_back(
    d_hs: Tensor,
    d_c: Tensor,
    hs: Tensor,
    cs: Tensor,
    acts: Tensor,
    squashed: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hh: Tensor,
    masks: fused.Masks,
    backward: bool,
    spent: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the gates before they are squashed `[T, B, 4*H]`, of h0 and of c0."""
    recurrent = products.Recurrent(w_hh.t(), len(h0))
    engine = engines.engine(acts, h0)
    d_gates = acts if spent and engine is not None else torch.empty_like(acts)
    if engine is None:
        back = _steps_back(
            d_gates, d_hs, d_c, cs, acts, squashed, h0, c0, recurrent, masks, backward
        )
        return d_gates, *back
    d_h, d_c = torch.zeros_like(h0), d_c.clone()
    arrays = {"acts": acts, "hs": hs, "cs": cs, "squashed": squashed, "c0": c0}
    arrays |= {"d_hs": d_hs, "d_gates": d_gates, "d_h": d_h, "d_c": d_c}
    run = engine("lstm", h0, masks, order(len(hs), backward), True, **arrays)
    brought = run.backward(recurrent)
    return d_gates, d_h.add_(fused.through(brought, masks, backward)), d_c


def _steps_back(
    d_gates: Tensor,
    d_hs: Tensor,
    d_c: Tensor,
    cs: Tensor,
    acts: Tensor,
    squashed: Tensor,
    h0: Tensor,
    c0: Tensor,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
) -> tuple[Tensor, Tensor]:
    """All steps of the backward pass by PyTorch's own functions: the gates' gradients, filled in,
    and those of h0 and c0."""
    steps = len(d_hs)
    hidden, candidate, cell, state, hidden_update, cell_update = masks
    i, f, g, o = four(acts).unbind(2)
    # What each gate's pre-activation counts for in c̃ (i, f, g), and in h̃ (o), all steps at once;
    # step by step it then becomes the gradient.
    parts = four(d_gates)
    k_i, k_f, k_g, k_o = parts.unbind(2)
    added = i if candidate is None else i * candidate
    torch.mul(added, g, out=k_i).mul_(1.0 - i)
    torch.sub(1.0, f, out=k_f).mul_(f)
    for now, earlier in shifted(c0, cs, backward):
        k_f[now].mul_(earlier)
    torch.mul(g, g, out=k_g).neg_().add_(1.0).mul_(added)
    torch.sub(1.0, o, out=k_o).mul_(o).mul_(squashed)
    into_c = torch.mul(squashed, squashed).neg_().add_(1.0).mul_(o)  # h̃ by c̃
    by_step = d_gates.unbind(0)
    first_three, last = parts[:, :, :3].unbind(0), parts[:, :, 3].unbind(0)
    k_c, forget = into_c.unbind(0), f.unbind(0)
    m_hidden, m_cell, m_state, m_h, m_c = (
        slices(mask, steps, h0) for mask in (hidden, cell, state, hidden_update, cell_update)
    )
    d_c = d_c.clone()
    d_cs = d_c.unsqueeze(1)  # the same memory
    kept_c, kept_h = torch.empty_like(d_c), torch.empty_like(d_c)
    d_earlier = pulls(d_hs, backward)
    d_h = d_hs[0 if backward else -1].clone()
    for t in order(steps, not backward):
        if m_h is not None:
            torch.mul(d_h, m_h[t], out=kept_h)
            d_h.sub_(kept_h)
        if m_state is not None:
            d_h.mul_(m_state[t])
        if m_c is not None:
            torch.mul(d_c, m_c[t], out=kept_c)
            d_c.sub_(kept_c)
        d_c.addcmul_(d_h, k_c[t])
        if m_cell is not None:
            d_c.mul_(m_cell[t])
        first_three[t].mul_(d_cs)
        last[t].mul_(d_h)
        if m_c is None:
            d_c.mul_(forget[t])
        else:
            torch.addcmul(kept_c, d_c, forget[t], out=d_c)
        brought = recurrent.by(by_step[t])
        if m_hidden is not None:
            torch.addcmul(d_earlier[t], brought, m_hidden[t], out=d_h)
        else:
            torch.add(d_earlier[t], brought, out=d_h)
        if m_h is not None:
            d_h.add_(kept_h)
    return d_h, d_c


def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    given = arguments[6:11]  # x, h0, c0, w_ih, w_hh
    bias = given[-1].new_empty(given[-1].shape[0])
    return *(each.new_empty(each.shape) for each in given), bias


SAVED = (
    *("x", "h0", "c0", "weight_ih", "weight_hh", "bias"),
    *(f"{site.value} mask" for site in SITES["LSTM"]),
    *("h", "c", "gates", "tanh(c)"),
)
"""What is kept for the backward pass: the inputs, and some of the outputs."""


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hs, _, cs, acts, squashed = output
    save(ctx, *inputs[:-2], hs, cs, acts, squashed)
    ctx.backward, ctx.gates = inputs[-2], SavedGates(acts)
    ctx.mark_non_differentiable(cs, acts, squashed)
    ctx.set_materialize_grads(False)


def _gradient(
    ctx: Any, run: Any, d_hs: Tensor | None, d_c: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    *inputs, hs, cs, acts, squashed = saved(ctx, SAVED)
    given, masks = inputs[:6], inputs[6:]
    x, h0, c0, w_ih, w_hh, bias = given
    d_hs, d_c = or_zeros(d_hs, hs), or_zeros(d_c, c0)
    if ctx.gates.written or by_loop(d_hs, d_c, eager=run is _backward):
        found = again("LSTM", given, masks, ctx.backward, (d_hs, d_c))
    else:
        arrays = (hs, cs, acts, squashed, x, h0, c0, w_ih, w_hh, *masks)
        # In graphs, an operator changes nothing that it is given.
        ctx.gates.written = run is _backward and ctx.gates.may_be_written(acts)
        found = run(d_hs, d_c, *arrays, ctx.backward, ctx.gates.written)
    return *found[:5], None if bias is None else found[5], *[None] * (len(masks) + 2)


lstm = Operator("lstm", _forward, _fake, _backward, _backward_fake, _remember, _gradient)
