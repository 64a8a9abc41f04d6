"""A model that says sentences, in PyTorch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .. import processes
from ..task import Arrays
from ..torch_training import Trainer
from .batches import Batch, Floats
from .engine import State
from .words import Tokens


class Model(Protocol):
    """What a task's module has beside `__call__(given, before)`, the logits `[B, T, V]`."""

    def begin(self, given: Tensor) -> list[Tensor]:
        """The state before the first word, its arrays with the row first."""

    def step(self, before: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """After a word `[R]`: the logits of the next `[R, V]`, and the next state."""


class TorchEngine:
    """`benchmarks.sentences.engine.Engine` on PyTorch.

    Args:
        model: a `Model` that is a module.
        named: its parameters by their common names.
        noisy: its layers under the policy.
        start: its initial weights.
        recipe: the run's.
    """

    def __init__(
        self,
        model: nn.Module,
        named: dict[str, nn.Parameter],
        noisy: list[nn.Module],
        start: Arrays,
        recipe: Any,
    ) -> None:
        self.model, self.noisy = model, noisy
        self.trainer = Trainer(model, named, recipe.clip)
        self.weights, self._tensor = self.trainer.weights, self.trainer.tensor
        self.trainer.load(start)
        self.trained = 0
        self.rows = processes.own_rows(recipe.batch)
        for layer in noisy:
            layer.row_offset = self.rows.start

    def train(self, batch: Batch, learning_rate: float) -> float:
        self.model.train()
        mine = Batch(*(array[self.rows] for array in batch))
        costs = self._costs(self.trainer.parallel, mine)
        total = (costs * self._tensor(mine.weight)).sum()
        self.trainer.step(total / len(mine.words), learning_rate)
        self.trained += 1
        return processes.sum_over_processes(total) / float(batch.weight.sum())

    @torch.no_grad()
    def costs(self, batch: Batch) -> Floats:
        self.model.eval()
        return self._costs(self.model, batch).cpu().numpy()

    @torch.no_grad()
    def begin(self, given: Floats) -> State:
        self.model.eval()
        return [each.cpu().numpy() for each in self.model.begin(self._tensor(given))]

    @torch.no_grad()
    def step(self, before: Tokens, state: State) -> tuple[Floats, State]:
        tensors = [self._tensor(each) for each in state]
        logits, carried = self.model.step(self._tensor(before), tensors)
        return logits.log_softmax(-1).cpu().numpy(), [each.cpu().numpy() for each in carried]

    def restore(self, weights: Arrays, calls: int) -> None:
        self.trainer.load(weights)
        self.trained = calls
        for layer in self.noisy:
            layer.calls = calls

    def calls(self) -> int:
        return self.trained

    def _costs(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(self._tensor(batch.given), self._tensor(batch.before))
        words = self._tensor(np.asarray(batch.words))
        return nn.functional.cross_entropy(logits.transpose(1, 2), words, reduction="none")
