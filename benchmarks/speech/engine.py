"""What the task asks of a framework, and the weights that every framework starts from."""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

from ..config import RunConfig
from ..task import Arrays, uniform
from .frames import STATES, Batch, Floats


class Scores(NamedTuple):
    """What each frame costs in nats, and whether it is recognised: both `[B, T]`."""

    nats: Floats
    right: Floats


class Engine(Protocol):
    """Stacked LSTM under a policy over frames, and a softmax over states."""

    def train(self, batch: Batch, learning_rate: float) -> float:
        """One step of SGD; mean nats of a frame. The loss is summed over the frames of a piece and
        averaged over the batch."""

    def score(self, batch: Batch) -> Scores:
        """Without masks."""

    def weights(self) -> Arrays:
        """The model's weights."""

    def restore(self, weights: Arrays, calls: int) -> None:
        """Go on from saved weights and number of training calls."""

    def calls(self) -> int:
        """How many training calls the masks have been drawn for."""


def make(config: RunConfig, features: int) -> Engine:
    """The engine of a run's backend, with its initial weights."""
    recipe = config.recipe
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(recipe.layers):
        width = recipe.units if layer else features
        shapes[f"lstm.{layer}.w_ih"] = (4 * recipe.units, width)
        shapes[f"lstm.{layer}.w_hh"] = (4 * recipe.units, recipe.units)
        shapes[f"lstm.{layer}.bias"] = (4 * recipe.units,)
    shapes |= {"output.weight": (STATES, recipe.units), "output.bias": (STATES,)}
    weights = uniform(shapes, recipe.init, config.start_seed)
    if config.backend == "torch":
        from .engines.torch_engine import TorchEngine

        return TorchEngine(config, features, weights)
    os.environ["KERAS_BACKEND"] = config.backend.removeprefix("keras-")
    from .engines.keras_engine import KerasEngine

    return KerasEngine(config, features, weights)
