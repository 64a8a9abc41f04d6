"""What every task's recipe has, how its learning rate falls, and when a run is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained: plain SGD on clipped gradients, from uniform weights.

    Args:
        units: H, of every layer.
        layers: L.
        rate: the dropout rate of the paper's placements when none is given.
        policy: the policy that runs when none is given.
        init: parameters start uniform in (−init, init).
        learning_rate: of the first epochs.
        full_epochs: epochs at that rate; None for as many as each have a lower validation
            perplexity than all before, and the first that has not.
        decay: what it is divided by in every epoch after those.
        epochs: how many epochs in all, at most.
        patience: a run is over before when so many epochs in a row had no lower validation
            perplexity than those before them; None for never.
        clip: the global norm that gradients are clipped to.
        batch: B.
    """

    units: int
    layers: int
    rate: float
    policy: str = "zaremba"
    init: float
    learning_rate: float = 1.0
    full_epochs: int | None
    decay: float
    epochs: int
    patience: int | None = None
    clip: float = 5.0
    batch: int = 20


def learning_rate(recipe: Recipe, done: Sequence[Mapping[str, float]]) -> float:
    """The learning rate of the epoch after those that are done, of which these are the figures."""
    full = recipe.full_epochs
    if full is None:
        full = _until_it_stalls(_perplexities(done))
    return float(recipe.learning_rate / recipe.decay ** max(0, len(done) + 1 - full))


def over(recipe: Recipe, epochs: int, done: Sequence[Mapping[str, float]]) -> bool:
    """Whether a run of so many epochs has nothing left to do after those that are done."""
    if len(done) >= epochs:
        return True
    if recipe.patience is None or len(done) <= recipe.patience:
        return False
    found = _perplexities(done)
    return min(found[-recipe.patience :]) >= min(found[: -recipe.patience])


def _perplexities(done: Sequence[Mapping[str, float]]) -> list[float]:
    return [epoch["valid_perplexity"] for epoch in done]


def _until_it_stalls(perplexities: Sequence[float]) -> int:
    """How many epochs there are up to the first that is no better than all before, or will be."""
    for count in range(1, len(perplexities)):
        if perplexities[count] >= min(perplexities[:count]):
            return count + 1
    return len(perplexities) + 1


def presets(task: str) -> dict[str, Any]:
    """A task's recipes by name."""
    found: dict[str, Any] = import_module(f"benchmarks.{task}.presets").PRESETS
    return found
