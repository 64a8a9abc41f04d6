"""The weights that every framework's translation model starts from."""

from __future__ import annotations

from ..config import RunConfig
from ..sentences.engine import Engine
from ..task import engine_class, lstm_shapes, uniform


def make(config: RunConfig, english: int, french: int) -> Engine:
    """The engine of a run's backend, with its initial weights, for so many words of each."""
    recipe = config.recipe
    units = recipe.units
    shapes: dict[str, tuple[int, ...]] = {
        "source": (english, units),
        **lstm_shapes(units, recipe, "encoder"),
        "target": (french, units),
        **lstm_shapes(units, recipe, "decoder"),
        "output.weight": (french, units),
        "output.bias": (french,),
    }
    if recipe.attention:
        shapes |= {"attended.weight": (units, 2 * units), "attended.bias": (units,)}
    made: Engine = engine_class(config)(config, uniform(shapes, recipe.init, config.start_seed))
    return made
