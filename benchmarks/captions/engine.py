"""The weights that every framework's captioning model starts from."""

from __future__ import annotations

from ..config import RunConfig
from ..sentences.engine import Engine
from ..task import engine_class, lstm_shapes, uniform
from .flickr import POOLED


def make(config: RunConfig, vocabulary: int) -> Engine:
    """The engine of a run's backend, with its initial weights."""
    recipe = config.recipe
    shapes = {
        "image.weight": (recipe.units, POOLED),
        "image.bias": (recipe.units,),
        "embedding": (vocabulary, recipe.units),
        **lstm_shapes(recipe.units, recipe),
        "output.weight": (vocabulary, recipe.units),
        "output.bias": (vocabulary,),
    }
    weights = uniform(shapes, recipe.init, config.start_seed)
    made: Engine = engine_class(config)(config, weights)
    return made
