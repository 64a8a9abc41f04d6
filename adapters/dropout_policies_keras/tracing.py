"""How a backend runs a call: traced, on several replicas, or mapped over samples (`vmap`, `pmap`).

Keras has no public way to ask, so this module asks each backend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

Tensor = Any
MakeError = Callable[[], Exception]


def replica_number() -> Tensor | None:
    """The number of the replica or device that runs this call, an int32 scalar; None where the
    call runs once.

    Each replica of a TensorFlow strategy, and each device of `jax.pmap` or `jax.shard_map`, starts
    from the same random state.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return None
        return tf.cast(context.replica_id_in_sync_group, "int32")
    if backend == "jax":
        import jax

        mesh = jax.sharding.get_abstract_mesh()
        axes = tuple(name for name in mesh.manual_axes if mesh.shape[name] > 1)
        return jax.lax.axis_index(axes) if axes else None
    return None


def unshared(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    """A mask as it is; an error where a call is mapped over samples that would all share it.

    `jax.vmap`, `torch.func.vmap` and `tf.vectorized_map` run a call once for many samples, and
    compute once what does not depend on the sample. So what matters is whether the mask is mapped
    where the layer's inputs are. That is known only when the transformation reaches the mask, which
    may be long after this call (`vmap` of a compiled function); the mask takes a rule there.
    (Inside a `jax.lax.cond` whose condition is mapped, JAX maps everything: nothing can be seen.)

    Args:
        mask: of the samples.
        per_sample: the layer's inputs and states.
        error: makes the error.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _unshared_in_jax(mask, per_sample, error)
    if backend == "tensorflow":
        return _unshared_in_tensorflow(mask, per_sample, error)
    return _unshared_in_torch(mask, per_sample, error) if backend == "torch" else mask


def _unshared_in_jax(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    import jax

    if not any(isinstance(x, jax.core.Tracer) for x in per_sample):
        return mask

    @jax.custom_batching.custom_vmap  # type: ignore[untyped-decorator]
    def same(mask: Tensor, *_: Tensor) -> Tensor:
        return mask

    @same.def_vmap  # type: ignore[untyped-decorator]
    def rule(_: int, mapped: list[bool], mask: Tensor, *per_sample: Tensor) -> Any:
        if any(mapped[1:]) and not mapped[0]:
            raise error()
        return same(mask, *per_sample), mapped[0]  # again, for a vmap around this one

    return same(mask, *map(jax.lax.stop_gradient, per_sample))


def _unshared_in_tensorflow(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    import tensorflow as tf

    if tf.executing_eagerly():
        return mask
    together = tf.identity_n([mask, *map(tf.stop_gradient, per_sample)])

    def rule(given: Any) -> list[Any]:
        parts = [given.input(number) for number in range(len(together))]
        if any(part.is_stacked for part in parts[1:]) and not parts[0].is_stacked:
            raise error()
        again = _unshared_in_tensorflow(parts[0].t, [part.t for part in parts[1:]], error)
        return [parts[0]._replace(t=again), *parts[1:]]

    # Not documented, but all that tf.vectorized_map asks: nothing public tells of it, and a
    # compiled function may be mapped long after it was traced.
    together[0].op.pfor_converter = rule
    return together[0]


def _unshared_in_torch(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    import torch

    # Around what torch.compile traces, no rule is asked; and nothing public tells what is mapped.
    is_mapped = torch._C._functorch.is_batchedtensor
    if any(is_mapped(x) for x in per_sample) and not is_mapped(mask):
        raise error()
    if any(_is_transformed(x) for x in per_sample):
        return _torch_unshared().apply(error, mask, *per_sample)
    return mask


@functools.cache
def _torch_unshared() -> Any:
    import torch

    class Unshared(torch.autograd.Function):
        @staticmethod
        def forward(_: MakeError, mask: Tensor, *__: Tensor) -> Tensor:
            return mask.view_as(mask)

        @staticmethod
        def setup_context(ctx: Any, _: Any, mask: Tensor) -> None:
            ctx.mark_non_differentiable(mask)

        @staticmethod
        def jvp(*_: Any) -> None:
            """Masks do not move."""

        @staticmethod
        def vmap(_: Any, mapped: Any, error: MakeError, mask: Tensor, *per_sample: Tensor) -> Any:
            if mapped[1] is None and any(axis is not None for axis in mapped[2:]):
                raise error()
            again = Unshared.apply(error, mask, *per_sample)  # type: ignore[no-untyped-call]
            return again, mapped[1]

    return Unshared


def value_outside(state: Any) -> Tensor | None:
    """What a variable holds on JAX outside of the `stateless_call` that runs now, if one does.

    None while `fit` runs, when Keras holds values elsewhere; and on other backends, where a
    compiled function keeps the state of what it calls.
    """
    if keras.backend.backend() != "jax":
        return None
    with keras.StatelessScope(initialize_variables=False):
        try:
            return state.value
        except TypeError:
            return None


def is_traced_in_jax(value: Tensor | None) -> bool:
    """Whether a value is one of a function that JAX traces, and is gone when that ends."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(value, jax.core.Tracer)


def has_seed(state: Tensor) -> bool:
    """Whether a random state is one seed, which the backend's own random numbers can start from;
    under `torch.func.vmap` it may be one for each sample."""
    return keras.backend.backend() != "torch" or not _is_transformed(state)


def _is_transformed(x: Tensor) -> bool:
    """Whether a tensor of torch is one that `torch.func` works with."""
    import torch

    return not torch.compiler.is_compiling() and not has_values(x)


def has_values(given: Tensor) -> bool:
    """Whether a tensor of torch has values at this time, and nothing but values: it stands for none
    in a trace, in a transformation of `torch.func` or in forward mode."""
    import torch

    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or torch.compiler.is_compiling():
        return False
    x = given.detach()  # of a variable, which is no plain tensor, as a tracer's are not
    if type(x) is not torch.Tensor:
        return False
    dual = torch.autograd.forward_ad.unpack_dual(given)  # type: ignore[no-untyped-call]
    if dual.tangent is not None:
        return False
    try:
        return bool(x.data_ptr() != 0)
    except RuntimeError:  # what torch.func works with has no memory of its own
        return False
