"""The most memory that a step holds at once in Keras, where its backend counts allocations.

TensorFlow does not, on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from .jobs import Job
from .keras_times import contestants


def peaks(job: Job) -> dict[str, dict[str, int]]:
    """Bytes of each policy and of what Keras has.

    Gradients are among them, weights and input are not.
    """
    peak = {"jax": _compiled, "torch": _run}[job.backend]
    size = (job.shape.batch, job.shape.steps, job.shape.units)
    return {
        name: {"training": peak(model, size, True), "evaluation": peak(model, size, False)}
        for name, model in contestants(job)
    }


def _compiled(model: keras.Model, size: tuple[int, ...], training: bool) -> int:
    """What XLA sets aside for a compiled step, its results included."""
    import jax

    def outputs(weights: Any, others: Any, x: Any) -> Any:
        return model.stateless_call(weights, others, x, training=training)

    def loss(weights: Any, others: Any, x: Any) -> Any:
        y, others = outputs(weights, others, x)
        return ops.mean(ops.square(y)), others

    step = jax.value_and_grad(loss, has_aux=True) if training else outputs
    variables = (model.trainable_variables, model.non_trainable_variables)
    values = ([variable.value for variable in each] for each in variables)
    used = jax.jit(step).lower(*values, ops.zeros(size)).compile().memory_analysis()
    return int(used.temp_size_in_bytes + used.output_size_in_bytes)


def _run(model: keras.Model, size: tuple[int, ...], training: bool) -> int:
    """What PyTorch allocates in a step."""
    import torch

    from .memory import peak

    x, weights = ops.zeros(size), [weight.value for weight in model.trainable_variables]

    def train() -> None:
        torch.autograd.grad(ops.mean(ops.square(model(x, training=True))), weights)

    def evaluate() -> None:
        with torch.no_grad():
            model(x, training=False)

    step: Callable[[], None] = train if training else evaluate
    return peak(step, "cpu")
