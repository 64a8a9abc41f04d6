"""As Triton kernels: one step of an LSTM or GRU beside its matrix product, and keyed masks.

The same as in `fused.c` and `keyed.c`. Every array of a step is that of one step, contiguous: gates
`[B, 4*H]` or `[B, 3*H]`, all else `[B, H]`. What is None is not there: a mask where all is whole,
the product after the last step, `seen` where no step follows. Sums are in single precision,
whatever is stored.
"""

from __future__ import annotations

import inspect

import triton
import triton.language as tl

NUMBERS = ("size", "total", "k0", "k1", "least", "row_offset", "steps", "batch", "width")


def kernel(function):
    """A kernel compiled once for all sizes and addresses, as `compiled.start` wants it."""
    *every, _ = inspect.signature(function).parameters  # the last is how much a program takes
    numbers = [name for name in every if name in NUMBERS]
    return triton.jit(function, do_not_specialize=numbers, do_not_specialize_on_alignment=every)


@triton.jit
def _get(array, at, inside):
    return tl.load(array + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _leave(h, h_before, out, seen, hidden, state, h_update, at, inside):
    """What leaves a step in h: masked, zoned out, and seen by the next step."""
    if state is not None:
        h *= _get(state, at, inside)
    if h_update is not None:
        h += _get(h_update, at, inside) * (_get(h_before, at, inside) - h)
    tl.store(out + at, h, mask=inside)
    if seen is not None:
        if hidden is not None:
            h *= _get(hidden, at, inside)
        tl.store(seen + at, h, mask=inside)


@triton.jit
def _reaches(product, d_hs, d_h, hidden, state, h_update, at, inside):
    """The gradient of h~; `d_h` keeps what zoneout hands on."""
    d_new = _get(d_hs, at, inside) + _get(d_h, at, inside)
    if product is not None:
        back = _get(product, at, inside)
        if hidden is not None:
            back *= _get(hidden, at, inside)
        d_new += back
    kept = tl.zeros_like(d_new)
    if h_update is not None:
        kept = d_new * _get(h_update, at, inside)
        d_new -= kept
    if state is not None:
        d_new *= _get(state, at, inside)
    return d_new, kept


@kernel
def lstm_step(
    product, acts, h_before, h, c, c_before, squashed, seen,
    hidden, candidate, cell, state, h_update, c_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    gate = at // size * (4 * size) + at % size
    i = tl.sigmoid(_get(acts, gate, inside) + _get(product, gate, inside))
    f = tl.sigmoid(_get(acts, gate + size, inside) + _get(product, gate + size, inside))
    g = _tanh(_get(acts, gate + 2 * size, inside) + _get(product, gate + 2 * size, inside))
    o = tl.sigmoid(_get(acts, gate + 3 * size, inside) + _get(product, gate + 3 * size, inside))
    tl.store(acts + gate, i, mask=inside)
    tl.store(acts + gate + size, f, mask=inside)
    tl.store(acts + gate + 2 * size, g, mask=inside)
    tl.store(acts + gate + 3 * size, o, mask=inside)
    old = _get(c_before, at, inside)
    if candidate is not None:
        i *= _get(candidate, at, inside)
    new = f * old + i * g
    if cell is not None:
        new *= _get(cell, at, inside)
    shown = _tanh(new)
    tl.store(squashed + at, shown, mask=inside)
    if c_update is not None:
        new += _get(c_update, at, inside) * (old - new)
    tl.store(c + at, new, mask=inside)
    _leave(o * shown, h_before, h, seen, hidden, state, h_update, at, inside)


@kernel
def lstm_step_back(
    product, acts, d_hs, d_gates, d_h, d_c, c_before, squashed,
    hidden, candidate, cell, state, h_update, c_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    gate = at // size * (4 * size) + at % size
    i, f = _get(acts, gate, inside), _get(acts, gate + size, inside)
    g, o = _get(acts, gate + 2 * size, inside), _get(acts, gate + 3 * size, inside)
    shown = _get(squashed, at, inside)
    d_new, kept_h = _reaches(product, d_hs, d_h, hidden, state, h_update, at, inside)
    tl.store(d_h + at, kept_h, mask=inside)
    d_cell = _get(d_c, at, inside)
    kept_c = tl.zeros_like(d_cell)
    if c_update is not None:
        kept_c = d_cell * _get(c_update, at, inside)
        d_cell -= kept_c
    d_cell += d_new * o * (1 - shown * shown)
    if cell is not None:
        d_cell *= _get(cell, at, inside)
    added = d_cell
    if candidate is not None:
        added = d_cell * _get(candidate, at, inside)
    tl.store(d_gates + gate, added * g * i * (1 - i), mask=inside)
    d_f = d_cell * _get(c_before, at, inside) * f * (1 - f)
    tl.store(d_gates + gate + size, d_f, mask=inside)
    tl.store(d_gates + gate + 2 * size, added * i * (1 - g * g), mask=inside)
    tl.store(d_gates + gate + 3 * size, d_new * shown * o * (1 - o), mask=inside)
    tl.store(d_c + at, d_cell * f + kept_c, mask=inside)


@kernel
def gru_step(
    product, acts, h_before, h, brought, seen,
    hidden, candidate, state, h_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    gate = at // size * (3 * size) + at % size
    r = tl.sigmoid(_get(acts, gate, inside) + _get(product, gate, inside))
    z = tl.sigmoid(_get(acts, gate + size, inside) + _get(product, gate + size, inside))
    to_n = _get(product, gate + 2 * size, inside)
    n = _tanh(_get(acts, gate + 2 * size, inside) + r * to_n)
    tl.store(acts + gate, r, mask=inside)
    tl.store(acts + gate + size, z, mask=inside)
    tl.store(acts + gate + 2 * size, n, mask=inside)
    tl.store(brought + at, to_n, mask=inside)
    if candidate is not None:
        n *= _get(candidate, at, inside)
    new = (1 - z) * n + z * _get(h_before, at, inside)
    _leave(new, h_before, h, seen, hidden, state, h_update, at, inside)


@kernel
def gru_step_back(
    product, acts, d_hs, d_gates, d_h, h_before, brought,
    hidden, candidate, state, h_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of n, r, z, and of the part of n that r falls on, in this order."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    gate = at // size * (3 * size) + at % size
    r, z = _get(acts, gate, inside), _get(acts, gate + size, inside)
    n = _get(acts, gate + 2 * size, inside)
    d_new, kept = _reaches(product, d_hs, d_h, hidden, state, h_update, at, inside)
    shown, d_n = n, d_new * (1 - z) * (1 - n * n)
    if candidate is not None:
        scale = _get(candidate, at, inside)
        shown, d_n = n * scale, d_n * scale
    d_z = d_new * (_get(h_before, at, inside) - shown) * z * (1 - z)
    d_brought = d_n * r
    d_r = d_brought * _get(brought, at, inside) * (1 - r)
    into = at // size * (4 * size) + at % size
    tl.store(d_gates + into, d_n, mask=inside)
    tl.store(d_gates + into + size, d_r, mask=inside)
    tl.store(d_gates + into + 2 * size, d_z, mask=inside)
    tl.store(d_gates + into + 3 * size, d_brought, mask=inside)
    tl.store(d_h + at, kept + d_new * z, mask=inside)


@triton.jit
def _round(x0, x1, bits: tl.constexpr):
    x0 += x1
    return x0, ((x1 << bits) | (x1 >> (32 - bits))) ^ x0


@triton.jit
def _first_four(x0, x1):
    x0, x1 = _round(x0, x1, 13)
    x0, x1 = _round(x0, x1, 15)
    x0, x1 = _round(x0, x1, 26)
    return _round(x0, x1, 6)


@triton.jit
def _other_four(x0, x1):
    x0, x1 = _round(x0, x1, 17)
    x0, x1 = _round(x0, x1, 29)
    x0, x1 = _round(x0, x1, 16)
    return _round(x0, x1, 24)


@kernel
def keep_bits(
    keep, k0, k1, least, row_offset, steps, batch, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Threefry-2x32-20, of which a block keeps or drops two elements; `[T, B, F]`, a byte each.
    Key, least word that keeps and number of the first row are 32 bits each, given as signed."""
    length = steps * width
    blocks = (length + 1) // 2
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, block = number // blocks, number % blocks
    k0, k1 = k0.to(tl.uint32), k1.to(tl.uint32)
    k2 = k0 ^ k1 ^ 0x1BD11BDA
    x0 = row.to(tl.uint32) + row_offset.to(tl.uint32) + k0
    x1 = block.to(tl.uint32) + k1
    x0, x1 = _first_four(x0, x1)
    x0, x1 = _other_four(x0 + k1, x1 + k2 + 1)
    x0, x1 = _first_four(x0 + k2, x1 + k0 + 2)
    x0, x1 = _other_four(x0 + k0, x1 + k1 + 3)
    x0, x1 = _first_four(x0 + k1, x1 + k2 + 4)
    x0, x1 = x0 + k2, x1 + k0 + 5
    inside = row < batch
    first, second = 2 * block, 2 * block + 1
    least = least.to(tl.uint32)
    at = (first // width * batch + row) * width + first % width
    tl.store(keep + at, (x0 >= least).to(tl.uint8), mask=inside)
    at = (second // width * batch + row) * width + second % width
    tl.store(keep + at, (x1 >= least).to(tl.uint8), mask=inside & (second < length))
