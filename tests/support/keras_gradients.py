"""Gradients of a Keras computation, on the backend of this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache

import keras
import numpy as np
from keras import ops

Run = Callable[[list], tuple[object, list]]
"""From inputs (tensors) to a loss and whatever else is wanted."""


def measured(
    run: Run,
    inputs: Sequence[np.ndarray],
    variables: Sequence[keras.Variable],
    changed: Sequence[keras.Variable] = (),
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """What a run gives beside its loss, and the loss's gradients: of the inputs, then of the
    variables; None where nothing depends on one. `changed` are variables that the run assigns to,
    which JAX must be told of, as `fit` does it."""
    tensors = [ops.convert_to_tensor(array, dtype="float32") for array in inputs]
    backend = BACKENDS[keras.backend.backend()]
    parts, gradients = backend(run, tensors, list(variables), list(changed))
    arrays = [None if g is None else ops.convert_to_numpy(g) for g in gradients]
    return [ops.convert_to_numpy(part) for part in parts], arrays


def _tensorflow(run, tensors, variables, _changed):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss, parts = run(tensors)
    return parts, tape.gradient(loss, [*tensors, *(v.value for v in variables)])


def _torch(run, tensors, variables, _changed):
    import torch

    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    loss, parts = run(tensors)
    sources = [*tensors, *(v.value for v in variables)]
    return [p.detach() for p in parts], torch.autograd.grad(loss, sources, allow_unused=True)


@cache
def _remember_programs() -> None:
    """Have JAX compile a program once, though each case brings functions of its own."""
    import jax

    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _jax(run, tensors, variables, changed):
    import jax

    _remember_programs()

    def pure(tensors, values, before):
        pairs = zip([*variables, *changed], [*values, *before], strict=True)
        with keras.StatelessScope(state_mapping=list(pairs)):
            return run(tensors)

    arguments = tensors, [v.value for v in variables], [v.value for v in changed]
    # As one program, compiled in haste: that is what takes the time of every new case.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    both = jax.value_and_grad(pure, argnums=(0, 1), has_aux=True)
    (_, parts), found = jax.jit(both).lower(*arguments).compile(quick)(*arguments)
    return parts, [*found[0], *found[1]]


BACKENDS = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
