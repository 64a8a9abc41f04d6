"""Products with a recurrent kernel, one in each step, whose gradient is one single product."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import keras
from keras import ops

from ..tracing import Tensor, has_values

Product = Callable[[Tensor], Tensor]
"""A function that maps a value `[..., F]` to its product with a kernel `[F, G]`."""

MakeProduct = Callable[..., Product]
"""A function that makes the product with a kernel. A second argument, `added_columns` (default 0),
is how many of the product's first columns are only added to the first columns of a step's input."""

Perturbations = list[Tensor | None]
"""For each kernel, zeros for one step or for all steps. They are added to the other columns of its
products, so that the products can be differentiated there. None if there are no other columns."""

ProductInputs = list[Tensor]
"""For each kernel, the values that it was multiplied by, in one step or in all steps."""

Kernels = tuple[Tensor, ...]

Loop = Callable[[Tensor, Perturbations], tuple[Any, ProductInputs]]
"""A function that maps the inputs and the perturbations of all steps to the result of the loop and
the inputs of the products."""


def plain_product(kernel: Tensor, _added_columns: int = 0) -> Product:
    """Make the product with a kernel, with the gradient of the backend."""
    return lambda x: ops.matmul(x, kernel)


def select_product(
    rows: Any, steps: Any, loop_tensors: Sequence[Tensor | None] = ()
) -> MakeProduct:
    """Select the fastest way to multiply by a kernel once in each step of a loop.

    By default, each step adds its own product to the gradient of a kernel. Products of few rows are
    slow, and each one reads and writes the whole gradient. Here the gradient is one product over
    the rows of all steps, on JAX (see `ScanProducts`) and on torch. If torch does more with a step
    than record its gradient, products stay plain: in compiled code, in forward mode, under
    `torch.func` and under autocast.

    Args:
        rows: the number of rows of each value that is multiplied.
        steps: the number of steps of the loop.
        loop_tensors: every tensor that the loop reads.
    """
    match keras.backend.backend():
        case "torch":
            # One mapped tensor is enough: under torch.func.vmap, its results are mapped too.
            all_plain = all(x is None or has_values(x) for x in loop_tensors)
            return _deferred_gradient_product(rows, steps) if all_plain else plain_product
        case "jax":
            return ScanProducts()
        case _:
            return plain_product


def _deferred_gradient_product(rows: int, steps: int) -> MakeProduct:
    import torch

    def make_product(kernel: Tensor, _added_columns: int = 0) -> Product:
        plain = plain_product(kernel)
        if not has_values(kernel) or torch.is_autocast_enabled(kernel.device.type):
            return plain
        step_product, kernel_gradient = _autograd_functions()
        placeholders = kernel_gradient.apply(kernel, rows, steps)
        of_each_step = zip(*(each.unbind() for each in placeholders), strict=True)

        def product(x: Tensor) -> Tensor:
            if len(x) != rows or not has_values(x):
                return plain(x)
            return step_product.apply(x, kernel, *next(of_each_step))

        return product

    return make_product


@functools.cache
def _autograd_functions() -> tuple[Any, Any]:
    """Make the product of one step, and the kernel's gradient from the products of all steps.

    The second function returns a placeholder for each step. The product of each step returns its
    value and the gradient of its result as the gradient of the placeholder. So the two always
    belong to one backward pass, wherever it ends and whichever gradients it computes.
    """
    import torch

    class StepProduct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, kernel: Tensor, *_: Tensor) -> Tensor:
            ctx.save_for_backward(x, kernel)
            return ops.matmul(x, kernel)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            x, kernel = ctx.saved_tensors
            grad_x = ops.matmul(grad, kernel.T) if ctx.needs_input_grad[0] else None
            return grad_x, None, x, grad

    class KernelGradient(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, kernel: Tensor, rows: int, steps: int) -> tuple[Tensor, ...]:
            zero = kernel.new_zeros(())
            return tuple(zero.expand(steps, rows, width) for width in kernel.shape)

        @staticmethod
        def backward(_: Any, x: Tensor, grad: Tensor) -> tuple[Tensor, None, None]:
            return ops.matmul(x.flatten(0, 1).T, grad.flatten(0, 1)), None, None

    return StepProduct, KernelGradient


class ScanProducts:
    """The products inside a loop on JAX, and the derivative of that loop.

    In JAX's scan, the gradient of a kernel is carried from step to step, and each step adds a
    product to it. So the loop gets a rule for forward mode, which JAX transposes and differentiates
    again. If a kernel has the tangent `d`, its product with x has the tangent x @ d, as if x @ d
    were added to the product. For all steps, this is one product. It is added to the inputs of the
    steps in the columns where the product is only added to them, and otherwise to a perturbation.
    """

    def __init__(self) -> None:
        self._kernels: list[Tensor] = []
        self._added_columns: list[int] = []
        # These are set only inside the loop or a step. Tracers that are kept longer would leak.
        self._loop_kernels: Kernels | None = None
        self._step: tuple[Perturbations, dict[int, Tensor]] | None = None

    def __call__(self, kernel: Tensor, added_columns: int = 0) -> Product:
        """Make the product with a kernel. See `MakeProduct`."""
        number = len(self._kernels)
        self._kernels.append(kernel)
        self._added_columns.append(added_columns)

        def product(x: Tensor) -> Tensor:
            if self._loop_kernels is None or self._step is None:
                return ops.matmul(x, kernel)
            perturbations, product_inputs = self._step
            product_inputs[number] = x
            result = ops.matmul(x, self._loop_kernels[number])
            perturbation = perturbations[number]
            if perturbation is None:
                return result
            others = result[..., added_columns:] + perturbation
            return ops.concatenate([result[..., :added_columns], others], axis=-1)

        return product

    def run_step(
        self, step: Callable[[], Any], perturbations: Perturbations
    ) -> tuple[Any, ProductInputs]:
        """Run a step with its perturbations. Return its result and the inputs of its products."""
        product_inputs: dict[int, Tensor] = {}
        self._step = perturbations, product_inputs
        try:
            return step(), [product_inputs[number] for number in range(len(perturbations))]
        finally:
            self._step = None

    def run_loop(self, loop: Loop, inputs: Tensor) -> Any:
        """Run a loop over `inputs` `[T, B, G*H]`, with the derivative described above."""
        import jax

        kernels = tuple(self._kernels)

        def run(
            kernels: Kernels, inputs: Tensor, perturbations: Perturbations
        ) -> tuple[Any, ProductInputs]:
            self._loop_kernels = kernels
            try:
                return loop(inputs, perturbations)
            finally:
                self._loop_kernels = None

        converted, constants = _convert_closure(run, kernels, inputs, self._zeros(inputs))

        def loop_result(kernels: Kernels, inputs: Tensor, constants: list[Tensor]) -> Any:
            return converted(constants, kernels, inputs, self._zeros(inputs))[0]

        def jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
            kernels, inputs, constants = primals
            d_kernels, d_inputs, d_constants = tangents
            has_tangent = [not _is_zero_tangent(each) for each in d_constants]

            def run_differentiable(
                inputs: Tensor, perturbations: Perturbations, differentiable: list[Tensor]
            ) -> Any:
                remaining = iter(differentiable)
                every = [
                    next(remaining) if each else constant
                    for each, constant in zip(has_tangent, constants, strict=True)
                ]
                return converted(every, kernels, inputs, perturbations)

            at = inputs, self._zeros(inputs), list(compress(constants, has_tangent))
            result, linear, product_inputs = jax.linearize(run_differentiable, *at, has_aux=True)
            d_inputs = ops.zeros_like(inputs) if _is_zero_tangent(d_inputs) else d_inputs
            d_inputs, d_perturbations = self._add_tangents(product_inputs, d_kernels, d_inputs)
            d_constants = list(compress(d_constants, has_tangent))
            return result, linear(d_inputs, d_perturbations, d_constants)

        with_derivative = jax.custom_jvp(loop_result)
        with_derivative.defjvp(jvp, symbolic_zeros=True)
        return with_derivative(kernels, inputs, constants)

    def _zeros(self, inputs: Tensor) -> Perturbations:
        """Make the perturbations of all steps. None for a kernel with only added columns."""
        widths = [
            kernel.shape[1] - added
            for kernel, added in zip(self._kernels, self._added_columns, strict=True)
        ]
        return [ops.zeros_like(inputs[..., :width]) if width else None for width in widths]

    def _add_tangents(
        self, product_inputs: ProductInputs, d_kernels: Kernels, d_inputs: Tensor
    ) -> tuple[Tensor, Perturbations]:
        """Add the tangents of the products to those of the steps' inputs and perturbations."""
        d_perturbations = self._zeros(d_inputs)
        for number, (x, d_kernel) in enumerate(zip(product_inputs, d_kernels, strict=True)):
            if _is_zero_tangent(d_kernel):
                continue
            d_product, added = ops.matmul(x, d_kernel), self._added_columns[number]
            if added:
                missing = d_inputs.shape[2] - added
                padding = [[0, 0], [0, 0], [0, missing]]
                d_inputs = d_inputs + ops.pad(d_product[..., :added], padding)
            if d_perturbations[number] is not None:
                d_perturbations[number] = d_product[..., added:]
        return d_inputs, d_perturbations


def _convert_closure(
    function: Callable[..., Any], *arguments: Any
) -> tuple[Callable[..., Any], list[Any]]:
    """Make a function that takes the values that `function` closes over as its first argument.

    It returns these values too. `jax.closure_convert` would keep them in a cache long after the
    call.
    """
    import jax

    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)

    def converted(constants: list[Any], *arguments: Any) -> Any:
        flat = jax.core.eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), flat)

    return converted, list(closed.consts)


def _is_zero_tangent(tangent: Any) -> bool:
    """Whether JAX marks a tangent as zero."""
    import jax

    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
