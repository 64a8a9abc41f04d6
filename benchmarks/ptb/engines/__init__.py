"""The language model in each framework, as a user of the library would write it."""

from __future__ import annotations

import os

from ...config import RunConfig
from ..engine import Engine, initial_weights


def make(config: RunConfig, vocabulary: int) -> Engine:
    """The engine of a run's backend, with its initial weights.

    A process can hold one Keras backend, so this chooses it for the whole process.
    """
    weights = initial_weights(config, vocabulary)
    if config.backend == "torch":
        from .torch_engine import TorchEngine

        return TorchEngine(config, weights)
    os.environ["KERAS_BACKEND"] = config.backend.removeprefix("keras-")
    from .keras_engine import KerasEngine

    return KerasEngine(config, weights)
