"""What a backend makes of a call: what it compiles in one piece, and which calls it runs many times
at once (replicas of a strategy, `vmap`, `pmap`). The module that knows backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from dropout_policies import compiled

Tensor = Any
Bits = Callable[[tuple[Tensor, Tensor], Tensor, tuple[Any, Any, int], int], Tensor]
"""What computes the bits of a mask; see `masks.keep_bits`."""
Update = Callable[..., list[Tensor]]
"""Tensors to the new states."""
MakeError = Callable[[], Exception]


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
        return _by_xla(bits) if worth_it and compiled.allowed() else None
    return _in_c if backend == "torch" and _in_memory(like) and compiled.keeps_bits() else None


def describe() -> dict[str, Any]:
    """What runs compiled in this process, for `dropout_policies.show_config`."""
    backend = keras.backend.backend()
    match backend:
        case "jax":
            bits = "compiled by JAX"
        case "tensorflow" if compiled.allowed():
            bits = "compiled by XLA, in a graph on a CPU"
        case "torch" if compiled.keeps_bits():
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
    compiled.keep_bits(words, int(least) + 2**31, shape, row_offset, keep.data_ptr())
    return keep


def _in_memory(x: Tensor) -> bool:
    """Whether a tensor of torch has values, and in the CPU's memory."""
    return has_values(x) and bool(x.device.type == "cpu")


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
