"""A GRU over a whole sequence under noise, with a backward pass of its own."""

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
    slices,
    whole,
)


def _forward(
    x: Tensor,
    h0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    hidden: Tensor | None,
    candidate: Tensor | None,
    state: Tensor | None,
    hidden_update: Tensor | None,
    backward: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A GRU over all steps.

    Args:
        x: the input, `[T, B, D]`.
        h0: the state to start from, `[B, H]`.
        w_ih, w_hh, b_ih, b_hh: `[3*H, D]`, `[3*H, H]`, `[3*H]` and `[3*H]`.
        hidden, candidate, state, hidden_update, backward, keep: as of an LSTM.

    Returns:
        Every h_t `[T, B, H]` and the last `[B, H]`; and for the backward pass, or else empty,
        r, z and n `[T, B, 3*H]`, and what the hidden state brings to n before r falls on it
        `[T, B, H]`.
    """
    x, w_ih, w_hh = resolved(x), resolved(w_ih), resolved(w_hh)
    h0 = dense(h0)
    steps, batch, size = len(x), *h0.shape
    hs = x.new_empty(steps, batch, size)
    recurrent = products.Recurrent(w_hh, batch, b_hh)
    masks = (hidden, candidate, None, state, hidden_update, None)
    h = h0
    for piece in pieces(steps, batch, backward, keep):
        part = x[piece], h, hs[piece], w_ih, b_ih, recurrent, cut(masks, piece)
        h, acts, brought = _forward_part(*part, backward, keep)
    return hs, h.clone(), acts, brought


def _forward_part(
    x: Tensor,
    h0: Tensor,
    hs: Tensor,
    w_ih: Tensor,
    b_ih: Tensor | None,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Some steps of `_forward`, from h0 on: fills `hs`; the last h, and what is kept."""
    steps, batch, size = hs.shape
    acts = products.linear(x, w_ih, b_ih)  # so far what the input brings to them
    brought = acts.new_empty(steps if keep else 1, batch, size)
    engine = engines.engine(acts, h0)
    if engine is not None:
        arrays = {"acts": acts, "hs": hs, "cs": brought}
        run = engine("gru", h0, masks, order(steps, backward), keep, **arrays)
        run.forward(recurrent)
    else:
        _steps(acts, hs, brought, h0, recurrent, masks, backward)
    if not keep:
        acts, brought = (hs.new_empty(0) for _ in range(2))
    return hs[0 if backward else -1], acts, brought


def _steps(
    acts: Tensor,
    hs: Tensor,
    brought: Tensor,
    h0: Tensor,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
) -> None:
    """All steps by PyTorch's own functions; `acts` is the input's part of the gates before, and
    the gates after."""
    steps, batch, size = hs.shape
    hidden, candidate, _, state, hidden_update, _ = masks
    scratch = acts.new_empty(batch, size)
    r_and_z = acts[:, :, : 2 * size].unbind(0)
    r, z, n = (acts[:, :, k * size : (k + 1) * size].unbind(0) for k in range(3))
    h_by_step, brought_by_step = hs.unbind(0), whole(brought, steps)
    m_hidden, m_candidate, m_state, m_h = (
        slices(mask, steps, h0) for mask in (hidden, candidate, state, hidden_update)
    )
    h = h0
    for t in order(steps, backward):
        back = recurrent.by(h if m_hidden is None else torch.mul(h, m_hidden[t], out=scratch))
        r_and_z[t].add_(back[:, : 2 * size]).sigmoid_()
        to_n = brought_by_step[t].copy_(back[:, 2 * size :])
        n[t].addcmul_(r[t], to_n).tanh_()
        shown = n[t] if m_candidate is None else torch.mul(n[t], m_candidate[t], out=scratch)
        new_h = torch.lerp(shown, h, z[t], out=h_by_step[t])
        if m_state is not None:
            new_h.mul_(m_state[t])
        if m_h is not None:
            new_h.lerp_(h, m_h[t])
        h = new_h


def _fake(x: Tensor, h0: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    keep = arguments[-1]
    hs = x.new_empty(x.shape[0], *h0.shape)
    acts = x.new_empty(*x.shape[:2], 3 * h0.shape[1])
    kept = [torch.empty_like(each) if keep else each.new_empty(0) for each in (acts, hs)]
    return hs, h0.new_empty(h0.shape), *kept


def _backward(
    d_hs: Tensor,
    d_last: Tensor,
    hs: Tensor,
    acts: Tensor,
    brought: Tensor,
    x: Tensor,
    h0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    hidden: Tensor | None,
    candidate: Tensor | None,
    state: Tensor | None,
    hidden_update: Tensor | None,
    backward: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, h0, w_ih, w_hh, b_ih and b_hh from those of every h and of the last."""
    size = hs.shape[2]
    d_hs, d_last, hs, acts, brought, h0 = map(dense, (d_hs, d_last, hs, acts, brought, h0))
    x, w_ih, w_hh = resolved(x), resolved(w_ih), resolved(w_hh)
    masks = (hidden, candidate, None, state, hidden_update, None)
    d_gates, d_h = _gates_back(d_hs, d_last, hs, acts, brought, h0, w_hh, masks, backward)
    flat = d_gates.flatten(0, 1)
    rows, rows_back = flat[:, : 3 * size], flat[:, size:]  # n, r, z; and r, z, n
    d_x = products.linear(rows, w_ih.roll(size, 0).t()).view_as(x)
    d_w_ih = products.outer(rows, x.flatten(0, 1)).roll(-size, 0)
    d_w_hh = products.outer(rows_back, before(h0, hs, backward, hidden).flatten(0, 1))
    return d_x, d_h, d_w_ih, d_w_hh, rows.sum(0).roll(-size, 0), rows_back.sum(0)


def _gates_back(
    d_hs: Tensor,
    d_last: Tensor,
    hs: Tensor,
    acts: Tensor,
    brought: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    masks: fused.Masks,
    backward: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of n, r and z before they are squashed, and of the part of n that r falls on,
    `[T, B, 4*H]`: three that lie side by side go to the input, and three to the hidden state. And
    the gradient of h0."""
    steps, batch, size = hs.shape
    d_gates = hs.new_empty(steps, batch, 4 * size)
    recurrent = products.Recurrent(w_hh.t(), batch)
    engine = engines.engine(acts, h0)
    if engine is None:
        d_h = _steps_back(d_gates, d_hs, d_last, hs, acts, brought, h0, recurrent, masks, backward)
        return d_gates, d_h
    d_h = d_last.clone()
    arrays = {"acts": acts, "hs": hs, "cs": brought}
    arrays |= {"d_hs": d_hs, "d_gates": d_gates, "d_h": d_h}
    run = engine("gru", h0, masks, order(steps, backward), True, **arrays)
    back = run.backward(recurrent)
    return d_gates, d_h.add_(fused.through(back, masks, backward))


def _steps_back(
    d_gates: Tensor,
    d_hs: Tensor,
    d_last: Tensor,
    hs: Tensor,
    acts: Tensor,
    brought: Tensor,
    h0: Tensor,
    recurrent: products.Recurrent,
    masks: fused.Masks,
    backward: bool,
) -> Tensor:
    """All steps of the backward pass by PyTorch's own functions: the gates' gradients, filled in,
    and that of h0."""
    steps, batch, size = hs.shape
    hidden, candidate, _, state, hidden_update, _ = masks
    r, z, n = acts.view(steps, batch, 3, size).unbind(2)
    # What the pre-activations of n, r and z, and the part of n that r falls on, count for in h̃,
    # all steps at once; step by step it then becomes the gradient. In this order three that lie
    # side by side go to the input, and three to the hidden state.
    parts = four(d_gates)
    k_n, k_r, k_z, k_back = parts.unbind(2)
    rest = 1.0 - z
    h_before = before(h0, hs, backward)
    torch.sub(h_before, n if candidate is None else n * candidate, out=k_z).mul_(z).mul_(rest)
    torch.mul(n, n, out=k_n).neg_().add_(1.0).mul_(rest)
    if candidate is not None:
        k_n.mul_(candidate)
    torch.mul(k_n, r, out=k_back)
    torch.sub(1.0, r, out=k_r).mul_(k_back).mul_(brought)
    by_step, to_hidden = parts.unbind(0), d_gates[:, :, size:].unbind(0)
    z_by_step = z.unbind(0)
    m_hidden, m_state, m_h = (slices(mask, steps, h0) for mask in (hidden, state, hidden_update))
    d_earlier = pulls(d_hs, backward)
    d_h = d_hs[0 if backward else -1] + d_last
    d_all = d_h.unsqueeze(1)  # the same memory
    kept = torch.empty_like(d_h)
    for t in order(steps, not backward):
        if m_h is not None:
            torch.mul(d_h, m_h[t], out=kept)
            d_h.sub_(kept)
        if m_state is not None:
            d_h.mul_(m_state[t])
        by_step[t].mul_(d_all)
        back = recurrent.by(to_hidden[t])
        torch.addcmul(d_earlier[t], d_h, z_by_step[t], out=d_h)
        if m_hidden is None:
            d_h.add_(back)
        else:
            d_h.addcmul_(back, m_hidden[t])
        if m_h is not None:
            d_h.add_(kept)
    return d_h


def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    given = arguments[5:9]  # x, h0, w_ih, w_hh
    biases = [given[-1].new_empty(given[-1].shape[0]) for _ in range(2)]
    return *(each.new_empty(each.shape) for each in given), *biases


SAVED = (
    *("x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    *(f"{site.value} mask" for site in SITES["GRU"]),
    *("h", "gates", "hidden part of n"),
)
"""What is kept for the backward pass: the inputs, and some of the outputs."""


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hs, _, acts, brought = output
    save(ctx, *inputs[:-2], hs, acts, brought)
    ctx.backward = inputs[-2]
    ctx.mark_non_differentiable(acts, brought)
    ctx.set_materialize_grads(False)


def _gradient(
    ctx: Any, run: Any, d_hs: Tensor | None, d_last: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    *inputs, hs, acts, brought = saved(ctx, SAVED)
    given, masks = inputs[:6], inputs[6:]
    x, h0, w_ih, w_hh, b_ih, _ = given
    d_hs, d_last = or_zeros(d_hs, hs), or_zeros(d_last, h0)
    if by_loop(d_hs, d_last, eager=run is _backward):
        found = again("GRU", given, masks, ctx.backward, (d_hs, d_last))
    else:
        arrays = (hs, acts, brought, x, h0, w_ih, w_hh, *masks)
        found = run(d_hs, d_last, *arrays, ctx.backward)
    found = found if b_ih is not None else (*found[:4], None, None)
    return *found, *[None] * (len(masks) + 2)


gru = Operator("gru", _forward, _fake, _backward, _backward_fake, _remember, _gradient)
