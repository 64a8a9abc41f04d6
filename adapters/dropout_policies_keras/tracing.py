"""How a backend runs a call: traced, on several replicas, or mapped over samples (`vmap`, `pmap`).

Keras has no public way to ask, so this module asks each backend.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

Tensor = Any
MakeError = Callable[[], Exception]


def is_traced() -> bool:
    """Whether results have no values yet, because a function is being traced."""
    try:
        ops.convert_to_numpy(ops.zeros(()))
    except (TypeError, AttributeError, NotImplementedError, RuntimeError):
        return True
    return False


def has_no_value(tensor: Tensor) -> bool:
    """Whether a tensor has no value yet, because the function that makes it is being traced."""
    backend = keras.backend.backend()
    if backend == "jax":
        return is_traced_in_jax(tensor)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.is_tensor(tensor) and not hasattr(tensor, "numpy")
    return False


def current_graph() -> Any:
    """Return the graph that records operations now.

    It is one object for each traced function and for each body of a loop in it. It is None if
    operations run at once.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if backend == "jax":
        import jax

        # Private, because the public API (jax.extend.core) also tells a gradient from its function.
        value = jax.numpy.zeros(())
        return value._trace if isinstance(value, jax.core.Tracer) else None
    if backend == "torch":
        import torch

        return "torch.compile" if torch.compiler.is_compiling() else None
    return None


def asks_for_shapes_in_torch() -> bool:
    """Whether Keras on torch runs a call only for the shapes of its results.

    It does so to build a layer, on a device without memory. The assignments of the call are lost.
    """
    return keras.backend.backend() == "torch" and bool(ops.zeros(()).is_meta)


def is_in_loop_of_torch() -> bool:
    """Whether a step of Keras's own loop on torch runs. That loop runs its first step twice."""
    if keras.backend.backend() != "torch":
        return False
    from keras.src.backend.torch.rnn import rnn  # private, because there is no public API

    frame: Any = sys._getframe()
    while frame is not None and frame.f_code is not rnn.__code__:
        frame = frame.f_back
    return frame is not None and not frame.f_locals["unroll"]


def is_in_loop_of_jax(state: Any) -> bool:
    """Whether JAX traces the body of a loop, and a variable has its value outside of the body."""
    graph = current_graph() if keras.backend.backend() == "jax" else None
    return graph is not None and getattr(state.value, "_trace", None) is not graph


def may_compile_calls() -> bool:
    """Whether calls made from here may be compiled on their own, as in `fit`.

    Inside a layer's `call` they are not, unless all of it is compiled.
    """
    if keras.backend.backend() == "torch" or current_graph() is not None:
        return False
    try:
        # Private, because Keras has no public API that tells whether it is in a call. Without it,
        # a layer has a variable that it does not need.
        from keras.src.backend.common import global_state
    except ImportError:
        return True
    return global_state.get_global_attribute("current_call_ctx") is None


@contextmanager
def values_only() -> Iterator[None]:
    """Make the user's functions run as written, on values and without gradients.

    Functions that `jax.jit` compiles stay compiled.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)
    elif backend == "torch":
        import torch

        with torch.no_grad():
            yield
    else:
        yield


def replica_number() -> Tensor | None:
    """Return the number of the replica or device that runs this call, an int32 scalar.

    None if the call runs once.

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


def check_not_shared(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    """Return a mask as it is, or raise an error if a call mapped over samples would share it.

    `jax.vmap`, `torch.func.vmap` and `tf.vectorized_map` run a call once for many samples. They
    compute only once what does not depend on the sample. So a mask must be mapped if the inputs of
    the layer are. This is known only when the transformation reaches the mask, which may be long
    after this call (`vmap` of a compiled function). So the mask goes through a function with its
    own rule for that transformation. Inside a `jax.lax.cond` with a mapped condition, JAX maps
    everything, and this check finds nothing.

    Args:
        mask: a mask of samples.
        per_sample: the layer's inputs and states.
        error: a function that makes the error.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _check_not_shared_in_jax(mask, per_sample, error)
    if backend == "tensorflow":
        return _check_not_shared_in_tensorflow(mask, per_sample, error)
    return _check_not_shared_in_torch(mask, per_sample, error) if backend == "torch" else mask


def _check_not_shared_in_jax(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    import jax

    if not any(isinstance(x, jax.core.Tracer) for x in per_sample):
        return mask

    @jax.custom_batching.custom_vmap  # type: ignore[untyped-decorator]
    def identity(mask: Tensor, *_: Tensor) -> Tensor:
        return mask

    @identity.def_vmap  # type: ignore[untyped-decorator]
    def rule(_: int, is_mapped: list[bool], mask: Tensor, *per_sample: Tensor) -> Any:
        if any(is_mapped[1:]) and not is_mapped[0]:
            raise error()
        return identity(mask, *per_sample), is_mapped[0]  # checked again for an outer vmap

    return identity(mask, *map(jax.lax.stop_gradient, per_sample))


def _check_not_shared_in_tensorflow(
    mask: Tensor, per_sample: list[Tensor], error: MakeError
) -> Tensor:
    import tensorflow as tf

    if tf.executing_eagerly():
        return mask
    outputs = tf.identity_n([mask, *map(tf.stop_gradient, per_sample)])

    def rule(converted: Any) -> list[Any]:
        inputs = [converted.input(number) for number in range(len(outputs))]
        if any(each.is_stacked for each in inputs[1:]) and not inputs[0].is_stacked:
            raise error()
        mask, *per_sample = (each.t for each in inputs)
        checked = _check_not_shared_in_tensorflow(mask, per_sample, error)
        return [inputs[0]._replace(t=checked), *inputs[1:]]

    # This is undocumented, but tf.vectorized_map looks at nothing else. There is no public way to
    # ask, and a compiled function may be mapped long after it was traced.
    outputs[0].op.pfor_converter = rule
    return outputs[0]


def _check_not_shared_in_torch(mask: Tensor, per_sample: list[Tensor], error: MakeError) -> Tensor:
    import torch

    # A rule has no effect around code that torch.compile traces, and there is no public way to ask
    # which tensors are mapped.
    is_mapped = torch._C._functorch.is_batchedtensor
    if any(is_mapped(x) for x in per_sample) and not is_mapped(mask):
        raise error()
    if any(_is_transformed(x) for x in per_sample):
        return _identity_with_vmap_rule().apply(error, mask, *per_sample)
    return mask


@functools.cache
def _identity_with_vmap_rule() -> Any:
    import torch

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(_: MakeError, mask: Tensor, *__: Tensor) -> Tensor:
            return mask.view_as(mask)

        @staticmethod
        def setup_context(ctx: Any, _: Any, mask: Tensor) -> None:
            ctx.mark_non_differentiable(mask)

        @staticmethod
        def jvp(*_: Any) -> None:
            """Masks have no tangent."""

        @staticmethod
        def vmap(_: Any, axes: Any, error: MakeError, mask: Tensor, *per_sample: Tensor) -> Any:
            if axes[1] is None and any(axis is not None for axis in axes[2:]):
                raise error()
            checked = Identity.apply(error, mask, *per_sample)  # type: ignore[no-untyped-call]
            return checked, axes[1]

    return Identity


def value_now(state: Any) -> Tensor:
    """Return the value of a variable, unaffected by later assignments."""
    # JAX's arrays do not change, and a product with a constant would belong to the traced function.
    return state.value if keras.backend.backend() == "jax" else state.value * 1


def value_outside_scope(state: Any) -> Tensor | None:
    """Return the value of a variable on JAX outside of a running `stateless_call`.

    It is None while `fit` runs, because Keras then holds values elsewhere. It is also None on other
    backends, where a compiled function keeps the state of the layers that it calls.
    """
    if keras.backend.backend() != "jax":
        return None
    with keras.StatelessScope(initialize_variables=False):
        try:
            return state.value
        except TypeError:
            return None


def is_constant_in_jax(value: Tensor) -> bool:
    """Whether a function that JAX traces would hold this value as a constant."""
    return keras.backend.backend() == "jax" and not is_traced_in_jax(value)


def is_traced_in_jax(value: Tensor | None) -> bool:
    """Whether a value belongs to a function that JAX traces, and is lost when the trace ends."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(value, jax.core.Tracer)


def has_single_seed(state: Tensor) -> bool:
    """Whether a random state is a single seed, from which the backend's random numbers can start.

    Under `torch.func.vmap`, there may be one seed for each sample.
    """
    return keras.backend.backend() != "torch" or not _is_transformed(state)


def _is_transformed(x: Tensor) -> bool:
    """Whether a transformation of `torch.func` handles a torch tensor."""
    import torch

    return not torch.compiler.is_compiling() and not has_values(x)


def has_values(tensor: Tensor) -> bool:
    """Whether a torch tensor has values now, and holds nothing besides values.

    In a trace it has no values. In a transformation of `torch.func` and in forward mode, it holds
    something else too.
    """
    import torch

    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if is_traced or torch.compiler.is_compiling():
        return False
    x = tensor.detach()  # makes a variable a plain tensor, and leaves a tracer's tensor a tracer's
    if type(x) is not torch.Tensor:
        return False
    dual = torch.autograd.forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    if dual.tangent is not None:
        return False
    try:
        return bool(x.data_ptr() != 0)
    except RuntimeError:  # a tensor of torch.func has no memory of its own
        return False
