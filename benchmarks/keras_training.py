"""What every task does with a model in Keras: weights by common names, clipped SGD, costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from dropout_policies_keras import LSTM
from keras import ops

from .config import RunConfig
from .task import Arrays


def lstm_stack(x: Any, config: RunConfig, **more: Any) -> Any:
    """What comes out of a stack of LSTMs under a run's policy: `lstm_0`, `lstm_1`, ..."""
    recipe = config.recipe
    for layer in range(recipe.layers):
        x = LSTM(
            recipe.units,
            return_sequences=True,
            policy=config.placement,
            seed=config.start_seed,
            stack=(layer, recipe.layers),
            name=f"lstm_{layer}",
            **more,
        )(x)
    return x


class NamedVariable(NamedTuple):
    """A variable, and whether Keras keeps it transposed."""

    variable: keras.Variable
    transposed: bool = False


def lstm_weights(
    name: str, layer: int, lstm: keras.layers.LSTM
) -> Iterator[tuple[str, NamedVariable]]:
    """An LSTM's variables by the names that all frameworks share: `{name}.{layer}.w_ih`, ..."""
    yield f"{name}.{layer}.w_ih", NamedVariable(lstm.cell.kernel, True)
    yield f"{name}.{layer}.w_hh", NamedVariable(lstm.cell.recurrent_kernel, True)
    yield f"{name}.{layer}.bias", NamedVariable(lstm.cell.bias)


def dense_weights(name: str, dense: keras.layers.Dense) -> Iterator[tuple[str, NamedVariable]]:
    """A dense layer's variables: `{name}.weight` `[out, in]` and `{name}.bias`."""
    yield f"{name}.weight", NamedVariable(dense.kernel, True)
    yield f"{name}.bias", NamedVariable(dense.bias)


def weights(named: dict[str, NamedVariable]) -> Arrays:
    """The arrays of named variables."""
    return {
        name: np.ascontiguousarray(
            ops.convert_to_numpy(kept.variable).T
            if kept.transposed
            else ops.convert_to_numpy(kept.variable)
        )
        for name, kept in named.items()
    }


def load(named: dict[str, NamedVariable], arrays: Arrays) -> None:
    """Give named variables their arrays."""
    for name, kept in named.items():
        kept.variable.assign(arrays[name].T if kept.transposed else arrays[name])


class ClippedSGD(keras.optimizers.SGD):
    """Keras's SGD, with the gradients scaled down to a global norm.

    Not Keras's `global_clipnorm`: TensorFlow gives an embedding's gradient as rows, one for each
    word of the window, and Keras takes the norm of the rows, though those of one word are still
    to be added up.
    """

    def __init__(self, learning_rate: float, clip: float) -> None:
        super().__init__(learning_rate)
        self.clip = clip

    def apply(
        self, grads: list[Any], trainable_variables: list[keras.Variable] | None = None
    ) -> None:
        # As in Keras's own, which gives none on JAX.
        variables = trainable_variables or self._trainable_variables
        # Adding zeros adds the rows up; elsewhere it does nothing.
        zeros = [ops.zeros(v.shape, keras.config.floatx()) for v in variables]
        dense = [ops.add(g, zero) for g, zero in zip(grads, zeros, strict=True)]
        norm = ops.sqrt(ops.sum(ops.stack([ops.sum(ops.square(g)) for g in dense])))
        clip = ops.full_like(norm, self.clip)
        scale = clip / ops.maximum(norm, clip)
        super().apply([g * scale for g in dense], trainable_variables)


def set_rate(model: keras.Model, learning_rate: float) -> None:
    """Set a compiled model's learning rate, if it is another."""
    if float(ops.convert_to_numpy(model.optimizer.learning_rate)) != np.float32(learning_rate):
        model.optimizer.learning_rate = learning_rate


class Costs(keras.layers.Layer):
    """Classes `[B, T]` and logits `[B, T, V]` to what each costs in nats, `[B, T]`."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        classes, logits = inputs
        chosen = ops.take_along_axis(logits, classes[..., None], axis=-1)[..., 0]
        return ops.logsumexp(logits, axis=-1) - chosen
