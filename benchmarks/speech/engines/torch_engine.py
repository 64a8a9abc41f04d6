"""The acoustic model in PyTorch."""

from __future__ import annotations

import torch
from dropout_policies_torch import LSTM
from torch import Tensor, nn

from ... import processes
from ...config import RunConfig
from ...task import Arrays
from ...torch_training import Trainer, linear_weights, lstm_weights
from ..engine import Scores
from ..frames import Batch


class AcousticModel(nn.Module):
    """Stacked LSTM under a policy, and a linear layer to the states."""

    def __init__(self, features: int, states: int, config: RunConfig) -> None:
        super().__init__()
        recipe = config.recipe
        self.lstm = LSTM(
            features,
            recipe.units,
            num_layers=recipe.layers,
            batch_first=True,
            policy=config.placement,
            seed=config.start_seed,
        )
        self.output = nn.Linear(recipe.units, states)

    def forward(self, x: Tensor) -> Tensor:
        """Frames `[B, T, D]` to logits `[B, T, V]`."""
        return self.output(self.lstm(x)[0])


class TorchEngine:
    """`benchmarks.speech.engine.Engine` on PyTorch."""

    def __init__(self, config: RunConfig, features: int, weights: Arrays) -> None:
        self.model = AcousticModel(features, len(weights["output.bias"]), config)
        named = {
            **dict(lstm_weights("lstm", self.model.lstm)),
            **dict(linear_weights("output", self.model.output)),
        }
        self.trainer = Trainer(self.model, named, config.recipe.clip)
        self.weights = self.trainer.weights
        self.rows = processes.own_rows(config.recipe.batch)
        self.model.lstm.row_offset = self.rows.start
        self.trainer.load(weights)

    def train(self, batch: Batch, learning_rate: float) -> float:
        self.model.train()
        mine = Batch(*(array[self.rows] for array in batch))
        costs, _ = self._costs(self.trainer.parallel, mine)
        total = (costs * self.trainer.tensor(mine.weight)).sum()
        self.trainer.step(total / len(mine.x), learning_rate)
        return processes.sum_over_processes(total) / float(batch.weight.sum())

    @torch.no_grad()
    def score(self, batch: Batch) -> Scores:
        self.model.eval()
        costs, logits = self._costs(self.model, batch)
        right = logits.argmax(-1) == self.trainer.tensor(batch.y)
        return Scores(costs.cpu().numpy(), right.float().cpu().numpy())

    def restore(self, weights: Arrays, calls: int) -> None:
        self.trainer.load(weights)
        self.model.lstm.calls = calls

    def calls(self) -> int:
        return self.model.lstm.calls

    def _costs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = model(self.trainer.tensor(batch.x))
        y = self.trainer.tensor(batch.y)
        costs = nn.functional.cross_entropy(logits.transpose(1, 2), y, reduction="none")
        return costs, logits
