"""A toy framework: recurrent networks in NumPy, forwards only. It knows nothing of policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
State = tuple[Array, Array]
"""h and c, each `[B, H]`."""

generator = np.random.default_rng()
"""What weights and dropout are drawn from."""


def seed(number: int) -> None:
    """Start the generator anew."""
    generator.bit_generator.state = np.random.default_rng(number).bit_generator.state


def dropout(x: Array, rate: float, training: bool) -> Array:
    """x, in training with elements dropped at a rate and the others scaled."""
    if not training or rate == 0.0:
        return x
    kept: Array = np.where(generator.random(x.shape) >= rate, x / (1.0 - rate), 0.0)
    return kept


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _weights(*shape: int) -> Array:
    bound = shape[-1] ** -0.5
    return generator.uniform(-bound, bound, shape)


class Layer(ABC):
    """Something with arrays, the width D of what comes in, and a mode."""

    def __init__(self, inputs: int) -> None:
        self.inputs, self.training = inputs, True

    @abstractmethod
    def __call__(self, x: Array) -> Any:
        """What comes in `[T, B, D]`, to what leaves."""

    def parameters(self) -> dict[str, Array]:
        """Its arrays by name, in the order in which they were made."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def train(self, training: bool = True) -> None:
        """Set the mode: training, or evaluation."""
        self.training = training


class Linear(Layer):
    """x `[T, B, D]` to `[T, B, F]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs)
        self.outputs = outputs
        self.w, self.b = _weights(outputs, inputs), np.zeros(outputs)

    def __call__(self, x: Array) -> Array:
        return x @ self.w.T + self.b

    def __repr__(self) -> str:
        return f"Linear({self.inputs}, {self.outputs})"


class LSTM(Layer):
    """x `[T, B, D]` to y `[T, B, H]` and the last state.

    `w_ih` is `[4*H, D]`, `w_hh` `[4*H, H]` and `b` `[4*H]`, gate after gate: i, f, g, o.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs)
        self.units = units
        self.w_ih, self.w_hh = _weights(4 * units, inputs), _weights(4 * units, units)
        self.b = np.zeros(4 * units)

    def __call__(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        h, c = self.start(x, state)
        y = np.empty((*x.shape[:2], self.units))
        for t in range(len(x)):
            h, c = self.step(x[t], h, c)
            y[t] = h
        return y, (h, c)

    def start(self, x: Array, state: State | None) -> State:
        """The state to start from, zeros if none is given; x of a wrong width is refused."""
        if x.ndim != 3 or x.shape[-1] != self.inputs:
            raise ValueError(f"{self!r} takes [T, B, {self.inputs}]. Received: {list(x.shape)}")
        zeros = np.zeros((x.shape[1], self.units))
        return (zeros, zeros) if state is None else state

    def step(self, x: Array, h: Array, c: Array) -> State:
        """One step: x `[B, D]`, and the state, to the new state."""
        i, f, g, o = np.split(x @ self.w_ih.T + h @ self.w_hh.T + self.b, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inputs}, {self.units})"


class Model:
    """A chain of layers by name: `Model(low=LSTM(8, 16), head=Linear(16, 5))`."""

    def __init__(self, **layers: Layer) -> None:
        self.layers = layers

    def __call__(self, x: Array) -> Array:
        for layer in self.layers.values():
            found = layer(x)
            x = found[0] if isinstance(found, tuple) else found  # an LSTM's y
        return x

    def parameters(self) -> dict[str, Array]:
        """The layers' arrays, as in `low.w_ih`."""
        return {
            f"{name}.{own}": array
            for name, layer in self.layers.items()
            for own, array in layer.parameters().items()
        }

    def train(self, training: bool = True) -> None:
        """Set the mode of every layer."""
        for layer in self.layers.values():
            layer.train(training)

    def __repr__(self) -> str:
        return f"Model({', '.join(f'{name}={layer!r}' for name, layer in self.layers.items())})"
