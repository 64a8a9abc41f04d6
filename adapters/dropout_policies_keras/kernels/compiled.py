"""Code that a backend runs as one compiled function: mask bits, and the backend's fast layers."""

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

KeepBits = Callable[..., Tensor]
"""A function that computes the bits of a mask. See `masks.keep_bits`."""

StateUpdate = Callable[..., list[Tensor]]
"""A function that maps tensors to the new states."""


def find_compiled_bits(
    keep_bits: KeepBits, shape: tuple[Any, Any, int], like: Tensor
) -> KeepBits | None:
    """Find one compiled function with the same results. None if there is none, or it is no faster.

    JAX compiles everything that it runs. On TensorFlow, in a graph on the CPU, XLA compiles
    `keep_bits`. On torch, the core's function in C draws masks in the CPU's memory.

    Args:
        keep_bits: the function that computes the bits with the backend's operations.
        shape: T, B and F.
        like: a tensor on the device of the mask.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return keep_bits
    if backend == "tensorflow":
        # XLA compiles anew for each T and B. B has few values, but T may differ in every batch.
        is_faster = isinstance(shape[0], int) and _is_graph_on_cpu()
        return _compile_with_xla(keep_bits) if is_faster and compilation_allowed() else None
    is_available = backend == "torch" and _is_in_cpu_memory(like) and has_compiled_bits()
    return _keep_bits_in_c if is_available else None


def describe() -> dict[str, Any]:
    """Describe what runs compiled in this process, for `dropout_policies.show_config`."""
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


def may_use_fused_kernel(layer: Any, x: Tensor) -> bool:
    """Whether Keras may run all steps of its own layer on this input in one fast kernel.

    On torch, it may only on a GPU. On a CPU, the gradient of each step fills an array of all steps,
    so the time of T steps grows as T². The time of our loop does not. For a GRU on JAX there is
    only a scan. It keeps more for the gradient than ours, and is no faster.
    """
    match keras.backend.backend():
        case "torch":
            return bool(x.device.type == "cuda")
        case "jax":
            return not isinstance(layer, keras.layers.GRU)
        case _:
            return True


def fuses_elementwise() -> bool:
    """Whether the backend compiles the element-wise operations of a step into a few."""
    return bool(keras.backend.backend() == "jax")


def checkpoint_update(update: StateUpdate) -> StateUpdate:
    """Make JAX keep only the inputs, sigmoids and tanhs of the element-wise part of a step.

    Otherwise JAX keeps each intermediate value of all steps: for an LSTM fourteen arrays
    `[T, B, H]` instead of seven. Here the backward pass computes the others again, which takes no
    longer than to keep them. On other backends, this costs more than it saves: on torch a Python
    function for each step, on TensorFlow a graph inside the graph of the loop. (`keras.remat`
    would also compute the activations again.)
    """
    if not fuses_elementwise():
        return update
    import jax

    return jax.checkpoint(update, policy=_is_activation)  # type: ignore[no-any-return]


def _is_activation(operation: Any, *_: Any, **__: Any) -> bool:
    return operation.name in ("logistic", "tanh")


@functools.cache
def _compile_with_xla(keep_bits: KeepBits) -> KeepBits:
    import tensorflow as tf

    compiled = tf.function(keep_bits, jit_compile=True, autograph=False)

    def call(
        key: Any, least_word: Any, shape: Any, row_offset: int, first_step: int | Tensor = 0
    ) -> Tensor:
        if isinstance(first_step, int) and first_step > 0:
            # For a Python number, TensorFlow would compile each step anew.
            first_step = tf.constant(first_step, tf.int32)
        return compiled(key, least_word, shape, row_offset, first_step)

    return call


def _is_graph_on_cpu() -> bool:
    """Whether operations are recorded in a graph on a machine without a GPU.

    Outside a graph, each new shape would be compiled for one call. Other devices may have no XLA.
    """
    import tensorflow as tf

    return not tf.executing_eagerly() and not tf.config.list_physical_devices("GPU")


def _keep_bits_in_c(
    key: tuple[Tensor, Tensor],
    least_word: Tensor,
    shape: tuple[int, int, int],
    row_offset: int,
    first_step: int | Tensor = 0,
) -> Tensor:
    import torch

    keep = torch.empty(shape, dtype=torch.bool, device=key[0].device)
    key_words, least = (int(key[0]), int(key[1])), int(least_word) + 2**31
    write_keep_bits(key_words, least, shape, row_offset, keep.data_ptr(), int(first_step))
    return keep


def _is_in_cpu_memory(x: Tensor) -> bool:
    """Whether a torch tensor has values that are in the CPU's memory."""
    return has_values(x) and bool(x.device.type == "cpu")
