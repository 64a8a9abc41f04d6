"""What the training loop asks of a task."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .config import RunConfig
from .errors import BenchmarkError
from .recipe import Recipe

Arrays = dict[str, npt.NDArray[Any]]


class DataError(BenchmarkError):
    """Data that cannot be read, is not what it should be, or is too little for what is asked."""


class Task(Protocol):
    """A model in one framework, and the data that it is trained and tested on."""

    config: RunConfig
    data: Any
    """What it is trained and tested on, as it was read."""
    steps: int
    """Batches of an epoch."""
    unit: str
    """What it is fed with: words, frames."""
    figures: tuple[str, ...]
    """The names of an epoch's figures, as `after_epoch` gives them."""

    def begin(self) -> None:
        """Before an epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch from number `start` on, the same at every call."""

    def train(self, batch: Any, learning_rate: float) -> float:
        """One step of SGD; the mean loss in nats."""

    def headline(self, loss: float) -> str:
        """A mean loss as a person follows it."""

    def after_epoch(self, loss: float) -> dict[str, float]:
        """The epoch's figures, of training (from its mean loss) and validation."""

    def at_end(self) -> dict[str, Any]:
        """The figures that are measured once, when a run has finished."""

    def size(self) -> int:
        """How many of them an epoch has."""

    def record(self) -> dict[str, Any]:
        """What the data was, for the results."""

    def arrays(self) -> Arrays:
        """Everything that goes on from epoch to epoch: weights, and a state if it is carried."""

    def calls(self) -> int:
        """How many training calls the masks have been drawn for."""

    def restore(self, arrays: Arrays, calls: int) -> None:
        """Go on from saved arrays, of the names, shapes and types of `arrays()`."""


def make(config: RunConfig, data: Path | None) -> Task:
    """The task of a run, with its data read and its model at its initial weights.

    Raises:
        DataError: the data cannot be read.
    """
    made: Task = import_module(f"benchmarks.{config.task}.task").make(config, data)
    return made


def perplexity(nats: float) -> float:
    """e to the power of a mean loss; infinite where no number is as large."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def engine_class(config: RunConfig) -> Any:
    """The class of a task's engine on a run's backend.

    A process can hold one Keras backend, so this chooses it for the whole process.
    """
    engines = f"benchmarks.{config.task}.engines"
    if config.backend == "torch":
        return import_module(f"{engines}.torch_engine").TorchEngine
    os.environ["KERAS_BACKEND"] = config.backend.removeprefix("keras-")
    return import_module(f"{engines}.keras_engine").KerasEngine


def lstm_shapes(features: int, recipe: Recipe, name: str = "lstm") -> dict[str, tuple[int, ...]]:
    """The weights of a stack of LSTMs by the names that all frameworks share; one bias per gate,
    whatever the framework has, so that every framework trains the same model."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(recipe.layers):
        width = recipe.units if layer else features
        shapes[f"{name}.{layer}.w_ih"] = (4 * recipe.units, width)
        shapes[f"{name}.{layer}.w_hh"] = (4 * recipe.units, recipe.units)
        shapes[f"{name}.{layer}.bias"] = (4 * recipe.units,)
    return shapes


def uniform(shapes: dict[str, tuple[int, ...]], init: float, seed: int) -> Arrays:
    """Weights uniform in (−init, init), drawn by NumPy in the order given.

    So every framework can begin with the same ones.
    """
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-init, init, shape).astype(np.float32) for name, shape in shapes.items()
    }
