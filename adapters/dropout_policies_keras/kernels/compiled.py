"""What a backend runs compiled in one piece: the bits of masks, and its own fast layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from dropout_policies.adapter import (
    compilation_allowed,
    has_compiled_bits,
    write_keep_bits,
)

from ..tracing import Tensor, has_values

Bits = Callable[[tuple[Tensor, Tensor], Tensor, tuple[Any, Any, int], int], Tensor]
"""What computes the bits of a mask; see `masks.keep_bits`."""
Update = Callable[..., list[Tensor]]
"""Tensors to the new states."""


def at_once(bits: Bits, shape: tuple[Any, Any, int], like: Tensor) -> Bits | None:
    """The same bits by one compiled function; None where none can be had, or is worth it.

    JAX compiles what it runs anyway. On TensorFlow, in a graph on the CPU, XLA makes one function
    of it. On torch it is the core's in C, for what lies in the CPU's memory.

    Args:
        bits: by the backend's operations.
        shape: T, B and F.
        like: a tensor that lies where the bits are wanted.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return bits
    if backend == "tensorflow":
        # XLA compiles each T and B anew; B has few values, T may have another in every batch.
        worth_it = isinstance(shape[0], int) and _graph_on_cpu()
        return _by_xla(bits) if worth_it and compilation_allowed() else None
    return _in_c if backend == "torch" and _in_memory(like) and has_compiled_bits() else None


def describe() -> dict[str, Any]:
    """What runs compiled in this process, for `dropout_policies.show_config`."""
    backend = keras.backend.backend()
    match backend:
        case "jax":
            bits = "compiled by JAX"
        case "tensorflow" if compilation_allowed():
            bits = "compiled by XLA, in a graph on a CPU"
        case "torch" if has_compiled_bits():
            bits = "a function in C, on a CPU"
        case _:
            bits = "the backend's own functions"
    return {"backend": backend, "bits of masks": bits}


def may_have_kernel(layer: Any, x: Tensor) -> bool:
    """Whether Keras may run all steps of a layer of its own on this input in one kernel.

    On torch it has one on a GPU alone. Elsewhere each step's gradient there fills an array of all
    steps, so that the time of T steps grows as T²; a loop of ours does not. For a GRU on JAX it has
    none but a scan, which keeps more for the gradient than ours and takes no less time.
    """
    match keras.backend.backend():
        case "torch":
            return bool(x.device.type == "cuda")
        case "jax":
            return not isinstance(layer, keras.layers.GRU)
        case _:
            return True


def fuses_a_step() -> bool:
    """Whether the element-wise operations of a step are compiled into few that run as one."""
    return bool(keras.backend.backend() == "jax")


def made_again(update: Update) -> Update:
    """The element-wise part of a step, of which JAX keeps sigmoids and tanhs and what goes in.

    Left to itself it keeps each value inside for all steps: of an LSTM fourteen `[T, B, H]` in
    place of seven. The rest is made again for the gradient, in no more time than it takes to keep.
    Elsewhere that costs more than it saves: on torch a function of Python's for each step, on
    TensorFlow a graph within that of the loop. (`keras.remat` would make activations again too.)
    """
    if not fuses_a_step():
        return update
    import jax

    return jax.checkpoint(update, policy=_is_activation)  # type: ignore[no-any-return]


def _is_activation(operation: Any, *_: Any, **__: Any) -> bool:
    return operation.name in ("logistic", "tanh")


@functools.cache
def _by_xla(bits: Bits) -> Bits:
    import tensorflow as tf

    return tf.function(bits, jit_compile=True, autograph=False)  # type: ignore[no-any-return]


def _graph_on_cpu() -> bool:
    """Whether operations go into a graph, on a machine where they run on the CPU. Alone, each new
    shape would be compiled for one call; and other devices may have no XLA."""
    import tensorflow as tf

    return not tf.executing_eagerly() and not tf.config.list_physical_devices("GPU")


def _in_c(
    key: tuple[Tensor, Tensor], least: Tensor, shape: tuple[int, int, int], row_offset: int
) -> Tensor:
    import torch

    keep = torch.empty(shape, dtype=torch.bool, device=key[0].device)
    words = int(key[0]), int(key[1])
    write_keep_bits(words, int(least) + 2**31, shape, row_offset, keep.data_ptr())
    return keep


def _in_memory(x: Tensor) -> bool:
    """Whether a tensor of torch has values, and in the CPU's memory."""
    return has_values(x) and bool(x.device.type == "cpu")
