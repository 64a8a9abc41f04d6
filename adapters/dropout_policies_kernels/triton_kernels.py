"""Triton kernels: one step of an LSTM or GRU without its matrix product, and keyed masks.

They compute the same as `steps.c` and the core's `keyed.c`. Every array of a step holds only that
step and is contiguous: gates `[B, 4*H]` or `[B, 3*H]`, all others `[B, H]`. An argument that is
None is left out: a mask that does not exist, the product in the backward pass of the last step,
or `masked_hidden` if no step follows. Sums are in single precision for every dtype.
"""

from __future__ import annotations

import inspect

import triton
import triton.language as tl

NUMBERS = (
    *("size", "total", "k0", "k1", "least", "row_offset", "first_element"),
    *("steps", "batch", "width"),
)
"""The names of the integer parameters."""


def kernel(function):
    """Make a kernel that is compiled once for all sizes and addresses.

    `compiled.launch_kernel` relies on this.
    """
    *parameters, _ = inspect.signature(function).parameters  # the last one is BLOCK
    numbers = [name for name in parameters if name in NUMBERS]
    return triton.jit(
        function, do_not_specialize=numbers, do_not_specialize_on_alignment=parameters
    )


@triton.jit
def _load(array, index, in_range):
    return tl.load(array + index, mask=in_range, other=0.0).to(tl.float32)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _finish_hidden(new_h, previous_h, h, masked_hidden, hidden, state, h_update, index, in_range):
    """Mask the new h, apply zoneout, store it in `h`, and mask it again for the next step."""
    if state is not None:
        new_h *= _load(state, index, in_range)
    if h_update is not None:
        d = _load(h_update, index, in_range)
        new_h = d * _load(previous_h, index, in_range) + (1 - d) * new_h
    tl.store(h + index, new_h, mask=in_range)
    if masked_hidden is not None:
        if hidden is not None:
            new_h *= _load(hidden, index, in_range)
        tl.store(masked_hidden + index, new_h, mask=in_range)


@triton.jit
def _grad_new_hidden(product, grad_hs, grad_h, hidden, state, h_update, index, in_range):
    """Compute the gradient of the new h before mask and zoneout.

    It also returns the part of the gradient that zoneout passes on to the previous h.
    """
    grad_new = _load(grad_hs, index, in_range) + _load(grad_h, index, in_range)
    if product is not None:
        grad_masked = _load(product, index, in_range)
        if hidden is not None:
            grad_masked *= _load(hidden, index, in_range)
        grad_new += grad_masked
    zoned_out = tl.zeros_like(grad_new)
    if h_update is not None:
        zoned_out = grad_new * _load(h_update, index, in_range)
        grad_new -= zoned_out
    if state is not None:
        grad_new *= _load(state, index, in_range)
    return grad_new, zoned_out


@kernel
def lstm_step(
    product, gates, previous_h, h, c, previous_c, tanh_cell, masked_hidden,
    hidden, candidate, cell, state, h_update, c_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_range = index < total
    gate = index // size * (4 * size) + index % size
    i = tl.sigmoid(_load(gates, gate, in_range) + _load(product, gate, in_range))
    f = tl.sigmoid(_load(gates, gate + size, in_range) + _load(product, gate + size, in_range))
    g = _tanh(_load(gates, gate + 2 * size, in_range) + _load(product, gate + 2 * size, in_range))
    o = tl.sigmoid(
        _load(gates, gate + 3 * size, in_range) + _load(product, gate + 3 * size, in_range)
    )
    tl.store(gates + gate, i, mask=in_range)
    tl.store(gates + gate + size, f, mask=in_range)
    tl.store(gates + gate + 2 * size, g, mask=in_range)
    tl.store(gates + gate + 3 * size, o, mask=in_range)
    old_c = _load(previous_c, index, in_range)
    if candidate is not None:
        i *= _load(candidate, index, in_range)
    new_c = f * old_c + i * g
    if cell is not None:
        new_c *= _load(cell, index, in_range)
    tanh_c = _tanh(new_c)
    tl.store(tanh_cell + index, tanh_c, mask=in_range)
    if c_update is not None:
        d = _load(c_update, index, in_range)
        new_c = d * old_c + (1 - d) * new_c
    tl.store(c + index, new_c, mask=in_range)
    _finish_hidden(
        o * tanh_c, previous_h, h, masked_hidden, hidden, state, h_update, index, in_range
    )


@kernel
def lstm_step_backward(
    product, gates, grad_hs, grad_gates, grad_h, grad_c, previous_c, tanh_cell,
    hidden, candidate, cell, state, h_update, c_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_range = index < total
    gate = index // size * (4 * size) + index % size
    i, f = _load(gates, gate, in_range), _load(gates, gate + size, in_range)
    g, o = _load(gates, gate + 2 * size, in_range), _load(gates, gate + 3 * size, in_range)
    tanh_c = _load(tanh_cell, index, in_range)
    grad_new_h, zoned_out_h = _grad_new_hidden(
        product, grad_hs, grad_h, hidden, state, h_update, index, in_range
    )
    tl.store(grad_h + index, zoned_out_h, mask=in_range)
    grad_new_c = _load(grad_c, index, in_range)
    zoned_out_c = tl.zeros_like(grad_new_c)
    if c_update is not None:
        zoned_out_c = grad_new_c * _load(c_update, index, in_range)
        grad_new_c -= zoned_out_c
    grad_new_c += grad_new_h * o * (1 - tanh_c * tanh_c)
    if cell is not None:
        grad_new_c *= _load(cell, index, in_range)
    grad_added = grad_new_c
    if candidate is not None:
        grad_added = grad_new_c * _load(candidate, index, in_range)
    tl.store(grad_gates + gate, grad_added * g * i * (1 - i), mask=in_range)
    grad_f = grad_new_c * _load(previous_c, index, in_range) * f * (1 - f)
    tl.store(grad_gates + gate + size, grad_f, mask=in_range)
    tl.store(grad_gates + gate + 2 * size, grad_added * i * (1 - g * g), mask=in_range)
    tl.store(grad_gates + gate + 3 * size, grad_new_h * tanh_c * o * (1 - o), mask=in_range)
    tl.store(grad_c + index, grad_new_c * f + zoned_out_c, mask=in_range)


@kernel
def gru_step(
    product, gates, previous_h, h, hidden_n, masked_hidden,
    hidden, candidate, state, h_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_range = index < total
    gate = index // size * (3 * size) + index % size
    r = tl.sigmoid(_load(gates, gate, in_range) + _load(product, gate, in_range))
    z = tl.sigmoid(_load(gates, gate + size, in_range) + _load(product, gate + size, in_range))
    new_hidden_n = _load(product, gate + 2 * size, in_range)
    n = _tanh(_load(gates, gate + 2 * size, in_range) + r * new_hidden_n)
    tl.store(gates + gate, r, mask=in_range)
    tl.store(gates + gate + size, z, mask=in_range)
    tl.store(gates + gate + 2 * size, n, mask=in_range)
    tl.store(hidden_n + index, new_hidden_n, mask=in_range)
    if candidate is not None:
        n *= _load(candidate, index, in_range)
    new_h = (1 - z) * n + z * _load(previous_h, index, in_range)
    _finish_hidden(new_h, previous_h, h, masked_hidden, hidden, state, h_update, index, in_range)


@kernel
def gru_step_backward(
    product, gates, grad_hs, grad_gates, grad_h, previous_h, hidden_n,
    hidden, candidate, state, h_update,
    size, total, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of the gates are those of n, r, z and hidden_n, in this order."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_range = index < total
    gate = index // size * (3 * size) + index % size
    r, z = _load(gates, gate, in_range), _load(gates, gate + size, in_range)
    n = _load(gates, gate + 2 * size, in_range)
    grad_new, zoned_out = _grad_new_hidden(
        product, grad_hs, grad_h, hidden, state, h_update, index, in_range
    )
    masked_n, grad_n = n, grad_new * (1 - z) * (1 - n * n)
    if candidate is not None:
        scale = _load(candidate, index, in_range)
        masked_n, grad_n = n * scale, grad_n * scale
    grad_z = grad_new * (_load(previous_h, index, in_range) - masked_n) * z * (1 - z)
    grad_hidden_n = grad_n * r
    grad_r = grad_hidden_n * _load(hidden_n, index, in_range) * (1 - r)
    grad_gate = index // size * (4 * size) + index % size
    tl.store(grad_gates + grad_gate, grad_n, mask=in_range)
    tl.store(grad_gates + grad_gate + size, grad_r, mask=in_range)
    tl.store(grad_gates + grad_gate + 2 * size, grad_z, mask=in_range)
    tl.store(grad_gates + grad_gate + 3 * size, grad_hidden_n, mask=in_range)
    tl.store(grad_h + index, zoned_out + grad_new * z, mask=in_range)


@triton.jit
def _threefry_round(x0, x1, bits: tl.constexpr):
    x0 += x1
    return x0, ((x1 << bits) | (x1 >> (32 - bits))) ^ x0


@triton.jit
def _rounds_of_even_group(x0, x1):
    x0, x1 = _threefry_round(x0, x1, 13)
    x0, x1 = _threefry_round(x0, x1, 15)
    x0, x1 = _threefry_round(x0, x1, 26)
    return _threefry_round(x0, x1, 6)


@triton.jit
def _rounds_of_odd_group(x0, x1):
    x0, x1 = _threefry_round(x0, x1, 17)
    x0, x1 = _threefry_round(x0, x1, 29)
    x0, x1 = _threefry_round(x0, x1, 16)
    return _threefry_round(x0, x1, 24)


@kernel
def keep_bits(
    keep, k0, k1, least, row_offset, first_element, steps, batch, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the keep bits `[T, B, F]`, a byte each, with Threefry-2x32-20.

    One block decides two elements. `k0` and `k1` are the key, `least` is the smallest word that
    keeps an element, and `row_offset` is the number of the first row. Each has 32 bits and is
    passed as signed. `first_element` is the number of a row's first element: its first step times
    F. A block may begin before it.
    """
    length = steps * width
    odd = first_element % 2
    blocks = (odd + length + 1) // 2
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, block = number // blocks, number % blocks
    k0, k1 = k0.to(tl.uint32), k1.to(tl.uint32)
    k2 = k0 ^ k1 ^ 0x1BD11BDA
    x0 = row.to(tl.uint32) + row_offset.to(tl.uint32) + k0
    x1 = (block + first_element // 2).to(tl.uint32) + k1
    x0, x1 = _rounds_of_even_group(x0, x1)
    x0, x1 = _rounds_of_odd_group(x0 + k1, x1 + k2 + 1)
    x0, x1 = _rounds_of_even_group(x0 + k2, x1 + k0 + 2)
    x0, x1 = _rounds_of_odd_group(x0 + k0, x1 + k1 + 3)
    x0, x1 = _rounds_of_even_group(x0 + k1, x1 + k2 + 4)
    x0, x1 = x0 + k2, x1 + k0 + 5
    in_range = row < batch
    first, second = 2 * block - odd, 2 * block - odd + 1
    least = least.to(tl.uint32)
    index = (first // width * batch + row) * width + first % width
    tl.store(keep + index, (x0 >= least).to(tl.uint8), mask=in_range & (first >= 0))
    index = (second // width * batch + row) * width + second % width
    tl.store(keep + index, (x1 >= least).to(tl.uint8), mask=in_range & (second < length))
