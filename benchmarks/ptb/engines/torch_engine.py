"""The language model in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from dropout_policies_torch import LSTM, Embedding
from torch import Tensor, nn

from ...config import RunConfig
from ...torch_training import Trainer, linear_weights, lstm_weights
from ..engine import Array, Tokens, Weights

State = tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Embedding, stacked LSTM under a policy, and a linear layer to the vocabulary."""

    def __init__(self, vocabulary: int, config: RunConfig) -> None:
        super().__init__()
        preset = config.recipe
        self.embedding = Embedding(vocabulary, preset.units, **config.word_types)
        self.lstm = LSTM(
            preset.units,
            preset.units,
            num_layers=preset.layers,
            policy=config.placement,
            seed=config.start_seed,
        )
        self.output = nn.Linear(preset.units, vocabulary)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Words `[T, B]` and a state to logits `[T, B, V]` and the next state."""
        y, state = self.lstm(self.embedding(x), state)
        return self.output(y), state


class TorchEngine:
    """`benchmarks.ptb.engine.Engine` on PyTorch, on a GPU where there is one."""

    def __init__(self, config: RunConfig, weights: Weights) -> None:
        self.preset = config.recipe
        self.model = LanguageModel(len(weights["embedding"]), config)
        named = {
            "embedding": self.model.embedding.weight,
            **dict(lstm_weights("lstm", self.model.lstm)),
            **dict(linear_weights("output", self.model.output)),
        }
        self.trainer = Trainer(self.model, named, self.preset.clip)
        self.weights, self._tensor = self.trainer.weights, self.trainer.tensor
        self.loss = nn.CrossEntropyLoss(reduction="none")
        self.state = self._zeros(self.preset.batch)
        self.trainer.load(weights)

    def train_window(self, x: Tokens, y: Tokens, learning_rate: float) -> float:
        self.model.train()
        logits, state = self.model(self._tensor(x.T), self.state)
        self.state = state[0].detach(), state[1].detach()
        nats = self.loss(logits.flatten(0, 1), self._tensor(y.T).flatten()).sum()
        self.trainer.step(nats / x.shape[0], learning_rate)
        return nats.item() / x.size

    @torch.no_grad()
    def nats(self, windows: Iterable[tuple[Tokens, Tokens]]) -> Iterator[Array]:
        self.model.eval()
        state = None
        for x, y in windows:
            state = self._zeros(len(x)) if state is None else state
            logits, state = self.model(self._tensor(x.T), state)
            costs = self.loss(logits.flatten(0, 1), self._tensor(y.T).flatten())
            yield costs.reshape(y.T.shape).T.cpu().numpy()

    @torch.no_grad()
    def next_word(self, words: Tokens) -> Array:
        self.model.eval()
        logits, _ = self.model(self._tensor(words[:, None]), self._zeros(1))
        return logits[-1, 0].log_softmax(-1).cpu().numpy()

    def reset(self) -> None:
        self.state = self._zeros(self.preset.batch)

    def carried(self) -> Weights:
        return {"h": self.state[0].cpu().numpy(), "c": self.state[1].cpu().numpy()}

    def calls(self) -> int:
        return self.model.lstm.calls

    def restore(self, weights: Weights, carried: Weights, calls: int) -> None:
        self.trainer.load(weights)
        self.state = self._tensor(carried["h"]), self._tensor(carried["c"])
        for layer in (self.model.lstm, self.model.embedding):
            if layer.placement is not None:
                layer.calls = calls

    def _zeros(self, batch: int) -> State:
        shape = (self.preset.layers, batch, self.preset.units)
        device = self.trainer.device
        return torch.zeros(shape, device=device), torch.zeros(shape, device=device)
