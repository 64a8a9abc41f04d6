"""What every task's recipe has, and how its learning rate falls."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol


class Recipe(Protocol):
    """How a model is trained: plain SGD on clipped gradients, from uniform weights.

    Args:
        units: H, of every layer.
        layers: L.
        rate: the dropout rate of the paper's placements when none is given.
        policy: the policy that runs when none is given.
        init: parameters start uniform in (−init, init).
        learning_rate: of the first epochs.
        full_epochs: epochs at that rate.
        decay: what it is divided by in every epoch after those.
        epochs: how many epochs in all.
        clip: the global norm that gradients are clipped to.
        batch: B.
    """

    units: int
    layers: int
    rate: float
    policy: str
    init: float
    learning_rate: float
    full_epochs: int
    decay: float
    epochs: int
    clip: float
    batch: int


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate in an epoch, counted from 0."""
    return float(recipe.learning_rate / recipe.decay ** max(0, epoch + 1 - recipe.full_epochs))


def presets(task: str) -> dict[str, Any]:
    """A task's recipes by name."""
    found: dict[str, Any] = import_module(f"benchmarks.{task}.presets").PRESETS
    return found
