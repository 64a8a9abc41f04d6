"""What the task asks of a framework, and the weights that every framework starts from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..config import RunConfig
from ..task import Arrays, engine_class, lstm_shapes, uniform
from .frames import Batch, Floats


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


def make(config: RunConfig, features: int, states: int) -> Engine:
    """The engine of a run's backend, with its initial weights, for frames of so many features."""
    recipe = config.recipe
    shapes = {
        **lstm_shapes(features, recipe),
        "output.weight": (states, recipe.units),
        "output.bias": (states,),
    }
    weights = uniform(shapes, recipe.init, config.start_seed)
    made: Engine = engine_class(config)(config, features, weights)
    return made
