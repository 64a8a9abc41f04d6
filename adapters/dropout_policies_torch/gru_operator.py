"""A GRU over a whole sequence under noise, as an operator with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .sequence import again, before, folded, four, order, slices


@torch.library.custom_op("dropout_policies::gru", mutates_args=())
def gru(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """A GRU over all steps.

    Args:
        x: the input, `[T, B, D]`.
        h0: the state to start from, `[B, H]`.
        w_ih, w_hh, b_ih, b_hh: `[3*H, D]`, `[3*H, H]`, `[3*H]` and `[3*H]`.
        hidden, candidate, state, hidden_update, backward: as in `lstm`.

    Returns:
        Every h_t `[T, B, H]`; and for the backward pass r, z, n, and what the hidden state brings
        to n before r falls on it, side by side `[T, B, 4*H]`.
    """
    steps, batch, size = len(x), *h0.shape
    w_t = w_hh.t()
    into = linear(x, w_ih, b_ih)
    hs = into.new_empty(steps, batch, size)
    acts = into.new_empty(steps, batch, 4 * size)
    seen, back = into.new_empty(batch, size), into.new_empty(batch, 3 * size)
    in_gates = into[:, :, : 2 * size].unbind(0)
    in_n = into[:, :, 2 * size :].unbind(0)
    r_and_z = acts[:, :, : 2 * size].unbind(0)
    r, z, n, n_back = (part.unbind(0) for part in four(acts).unbind(2))
    h_by_step = hs.unbind(0)
    m_hidden, m_candidate = slices(hidden, steps), slices(candidate, steps)
    m_new, m_keep = (slices(m, steps) for m in folded(state, hidden_update))
    h = h0
    for t in order(steps, backward):
        h_in = h if m_hidden is None else torch.mul(h, m_hidden[t], out=seen)
        if b_hh is None:
            torch.mm(h_in, w_t, out=back)
        else:
            torch.addmm(b_hh, h_in, w_t, out=back)
        torch.add(in_gates[t], back[:, : 2 * size], out=r_and_z[t]).sigmoid_()
        n_back[t].copy_(back[:, 2 * size :])
        torch.addcmul(in_n[t], r[t], n_back[t], out=n[t]).tanh_()
        new = n[t] if m_candidate is None else n[t] * m_candidate[t]
        torch.lerp(new, h, z[t], out=h_by_step[t])
        if m_new is not None:
            h_by_step[t].mul_(m_new[t])
        if m_keep is not None:
            h_by_step[t].addcmul_(h, m_keep[t])
        h = h_by_step[t]
    return hs, acts, h.clone()


@gru.register_fake
def _(x: Tensor, h0: Tensor, *_: Any) -> tuple[Tensor, ...]:
    acts = x.new_empty(*x.shape[:2], 4 * h0.shape[1])
    return x.new_empty(x.shape[0], *h0.shape), acts, torch.empty_like(h0)


@torch.library.custom_op("dropout_policies::gru_backward", mutates_args=())
def gru_backward(
    d_hs: Tensor,
    d_last: Tensor,
    hs: Tensor,
    acts: Tensor,
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
    steps, _, size = hs.shape
    r, z, n, n_back = four(acts).unbind(2)
    h_before = before(h0, hs, backward)
    # What the pre-activation of n, r and z, and the part of n that r falls on, count for in h̃.
    factors = torch.empty_like(acts)
    split = four(factors)
    k_n, k_r, k_z, k_back = split.unbind(2)
    added = 1.0 - z if candidate is None else (1.0 - z) * candidate
    torch.mul(added, 1.0 - n * n, out=k_n)
    torch.mul(k_n, r, out=k_back)
    torch.mul(k_back * n_back, 1.0 - r, out=k_r)
    shown = n if candidate is None else n * candidate
    torch.mul((h_before - shown) * z, 1.0 - z, out=k_z)
    d_gates = torch.empty_like(acts)  # n, r, z, and the part of n that r falls on
    by_step = four(d_gates).unbind(0)
    d_back = d_gates[:, :, size:].unbind(0)
    k_by_step, z_by_step, d_by_step = split.unbind(0), z.unbind(0), d_hs.unbind(0)
    m_hidden = slices(hidden, steps)
    m_new, m_keep = (slices(m, steps) for m in folded(state, hidden_update))
    d_h = d_last
    for t in order(steps, not backward):
        d_h = d_h + d_by_step[t]
        d_new = d_h if m_new is None else d_h * m_new[t]
        torch.mul(k_by_step[t], d_new.unsqueeze(1), out=by_step[t])
        d_before = d_back[t] @ w_hh
        if m_hidden is not None:
            d_before.mul_(m_hidden[t])
        d_before.addcmul_(d_new, z_by_step[t])
        if m_keep is not None:
            d_before.addcmul_(d_h, m_keep[t])
        d_h = d_before
    seen = h_before if hidden is None else h_before * hidden
    brought = d_gates[:, :, size:].flatten(0, 1)
    into = torch.cat([d_gates[:, :, size : 3 * size], d_gates[:, :, :size]], dim=2)
    rows = into.flatten(0, 1)
    d_w_ih, d_w_hh = rows.t() @ x.flatten(0, 1), brought.t() @ seen.flatten(0, 1)
    return into @ w_ih, d_h.clone(), d_w_ih, d_w_hh, rows.sum(0), brought.sum(0)


@gru_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = arguments[4:8]  # x, h0, w_ih, w_hh
    biases = [given[-1].new_empty(given[-1].shape[0]) for _ in range(2)]
    return *(torch.empty_like(each) for each in given), *biases


def _gru_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hs, acts, _ = output
    ctx.save_for_backward(*inputs[:-1], hs, acts)
    ctx.backward = inputs[-1]
    ctx.mark_non_differentiable(acts)
    ctx.set_materialize_grads(True)


def _gru_gradient(ctx: Any, d_hs: Tensor, _: Any, d_last: Tensor) -> Any:
    *saved, hs, acts = ctx.saved_tensors
    given, masks = saved[:6], saved[6:]
    x, h0, w_ih, w_hh, b_ih, _ = given
    if torch.is_grad_enabled():
        found = again("GRU", given, masks, ctx.backward, (d_hs, d_last))
    else:
        found = gru_backward(d_hs, d_last, hs, acts, x, h0, w_ih, w_hh, *masks, ctx.backward)
    found = found if b_ih is not None else (*found[:4], None, None)
    return *found, *[None] * (len(masks) + 1)


gru.register_autograd(_gru_gradient, setup_context=_gru_setup)
