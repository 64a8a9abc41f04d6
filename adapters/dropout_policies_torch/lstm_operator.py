"""An LSTM over a whole sequence under noise, as an operator with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .sequence import again, before, folded, four, order, slices


@torch.library.custom_op("dropout_policies::lstm", mutates_args=())
def lstm(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """An LSTM over all steps.

    Args:
        x: the input, `[T, B, D]`.
        h0, c0: the state to start from, `[B, H]`.
        w_ih, w_hh, bias: `[4*H, D]`, `[4*H, H]`, and `[4*H]`: the sum of both.
        hidden, candidate, cell, state, hidden_update, cell_update: the masks at these sites,
            `[T or 1, B or 1, H or 1]`; None where all is whole.
        backward: whether steps run from the last to the first.

    Returns:
        Every h_t and every c_t `[T, B, H]`; and for the backward pass the gates' activations
        `[T, B, 4*H]`, tanh(c̃) `[T, B, H]`, and the last c `[B, H]`.
    """
    steps, batch, size = len(x), *h0.shape
    w_t = w_hh.t()
    acts = linear(x, w_ih, bias)
    hs, cs, squashed = (acts.new_empty(steps, batch, size) for _ in range(3))
    seen, new = acts.new_empty(batch, size), acts.new_empty(batch, size)
    gates = four(acts)
    i, f, g, o = (gates[:, :, k].unbind(0) for k in range(4))
    first_two = acts[:, :, : 2 * size].unbind(0)
    by_step = acts.unbind(0)
    h_by_step, c_by_step, squashed_by_step = hs.unbind(0), cs.unbind(0), squashed.unbind(0)
    m_hidden, m_candidate, m_cell = (slices(m, steps) for m in (hidden, candidate, cell))
    m_new, m_keep = (slices(m, steps) for m in folded(state, hidden_update))
    m_c = slices(cell_update, steps)
    h, c = h0, c0
    for t in order(steps, backward):
        h_in = h if m_hidden is None else torch.mul(h, m_hidden[t], out=seen)
        by_step[t].addmm_(h_in, w_t)
        first_two[t].sigmoid_()
        g[t].tanh_()
        o[t].sigmoid_()
        new_c = c_by_step[t] if m_c is None else new
        torch.mul(f[t], c, out=new_c)
        if m_candidate is None:
            new_c.addcmul_(i[t], g[t])
        else:
            new_c.addcmul_(i[t] * m_candidate[t], g[t])
        if m_cell is not None:
            new_c.mul_(m_cell[t])
        torch.tanh(new_c, out=squashed_by_step[t])
        if m_c is not None:
            torch.lerp(new_c, c, m_c[t].expand_as(c), out=c_by_step[t])
        torch.mul(o[t], squashed_by_step[t], out=h_by_step[t])
        if m_new is not None:
            h_by_step[t].mul_(m_new[t])
        if m_keep is not None:
            h_by_step[t].addcmul_(h, m_keep[t])
        h, c = h_by_step[t], c_by_step[t]
    return hs, cs, acts, squashed, c.clone()


@lstm.register_fake
def _(x: Tensor, h0: Tensor, *_: Any) -> tuple[Tensor, ...]:
    every = [x.new_empty(x.shape[0], *h0.shape) for _ in range(3)]
    acts = x.new_empty(*x.shape[:2], 4 * h0.shape[1])
    return every[0], every[1], acts, every[2], torch.empty_like(h0)


@torch.library.custom_op("dropout_policies::lstm_backward", mutates_args=())
def lstm_backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, h0, c0, w_ih, w_hh and the bias from those of every h and the last c."""
    steps = len(hs)
    i, f, g, o = four(acts).unbind(2)
    c_before = before(c0, cs, backward)
    # What each gate's pre-activation counts for in c̃ (i, f, g), and in h̃ (o); all steps at once.
    factors = torch.empty_like(acts)
    k_i, k_f, k_g, k_o = four(factors).unbind(2)
    added = i if candidate is None else i * candidate
    torch.mul(added * g, 1.0 - i, out=k_i)
    torch.mul(f * c_before, 1.0 - f, out=k_f)
    torch.mul(added, 1.0 - g * g, out=k_g)
    torch.mul(o * squashed, 1.0 - o, out=k_o)
    into_c = o * (1.0 - squashed * squashed)  # h̃ by c̃
    d_gates = torch.empty_like(acts)
    by_step = d_gates.unbind(0)
    parts = four(d_gates)
    first_three, last = parts[:, :, :3].unbind(0), parts[:, :, 3].unbind(0)
    split = four(factors)
    k_three, k_last = split[:, :, :3].unbind(0), split[:, :, 3].unbind(0)
    k_c, forget, d_by_step = into_c.unbind(0), f.unbind(0), d_hs.unbind(0)
    m_hidden, m_cell = slices(hidden, steps), slices(cell, steps)
    m_new, m_keep = (slices(m, steps) for m in folded(state, hidden_update))
    m_c = slices(cell_update, steps)
    d_h, d_c = torch.zeros_like(h0), d_c.clone()
    for t in order(steps, not backward):
        d_h = d_h + d_by_step[t]
        d_new = d_h if m_new is None else d_h * m_new[t]
        kept = None if m_c is None else d_c * m_c[t]
        if kept is not None:
            d_c = d_c - kept
        d_c = d_c.addcmul_(d_new, k_c[t])
        if m_cell is not None:
            d_c.mul_(m_cell[t])
        torch.mul(k_three[t], d_c.unsqueeze(1), out=first_three[t])
        torch.mul(k_last[t], d_new, out=last[t])
        d_c.mul_(forget[t])
        if kept is not None:
            d_c.add_(kept)
        d_before = by_step[t] @ w_hh
        if m_hidden is not None:
            d_before.mul_(m_hidden[t])
        if m_keep is not None:
            d_before.addcmul_(d_h, m_keep[t])
        d_h = d_before
    seen = before(h0, hs, backward)
    seen = seen if hidden is None else seen * hidden
    rows = d_gates.flatten(0, 1)
    d_w_ih, d_w_hh = rows.t() @ x.flatten(0, 1), rows.t() @ seen.flatten(0, 1)
    return d_gates @ w_ih, d_h, d_c, d_w_ih, d_w_hh, rows.sum(0)


@lstm_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = arguments[6:11]  # x, h0, c0, w_ih, w_hh
    return *(torch.empty_like(each) for each in given), given[-1].new_empty(given[-1].shape[0])


def _lstm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hs, cs, acts, squashed, _ = output
    ctx.save_for_backward(*inputs[:-1], hs, cs, acts, squashed)
    ctx.backward = inputs[-1]
    ctx.mark_non_differentiable(cs, acts, squashed)
    ctx.set_materialize_grads(True)


def _lstm_gradient(ctx: Any, d_hs: Tensor, _c: Any, _a: Any, _s: Any, d_c: Tensor) -> Any:
    *saved, hs, cs, acts, squashed = ctx.saved_tensors
    given, masks = saved[:6], saved[6:]
    x, h0, c0, w_ih, w_hh, bias = given
    if torch.is_grad_enabled():  # of gradients too
        found = again("LSTM", given, masks, ctx.backward, (d_hs, d_c))
    else:
        found = lstm_backward(
            d_hs, d_c, hs, cs, acts, squashed, x, h0, c0, w_ih, w_hh, *masks, ctx.backward
        )
    return *found[:5], None if bias is None else found[5], *[None] * (len(masks) + 1)


lstm.register_autograd(_lstm_gradient, setup_context=_lstm_setup)
