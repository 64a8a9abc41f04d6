"""The language model in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from dropout_policies_torch import LSTM, Embedding
from torch import Tensor, nn

from ...config import RunConfig
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
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = LanguageModel(len(weights["embedding"]), config).to(self.device)
        # One bias per gate: the second one stays at zero (see `initial_weights`).
        for layer in range(self.preset.layers):
            bias = getattr(self.model.lstm, f"bias_hh_l{layer}")
            nn.init.zeros_(bias).requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(self.trained, lr=self.preset.learning_rate)
        self.loss = nn.CrossEntropyLoss(reduction="none")
        self.state = self._zeros(self.preset.batch)
        self.load(weights)

    def train_window(self, x: Tokens, y: Tokens, learning_rate: float) -> float:
        self.model.train()
        logits, state = self.model(self._tensor(x.T), self.state)
        self.state = state[0].detach(), state[1].detach()
        nats = self.loss(logits.flatten(0, 1), self._tensor(y.T).flatten()).sum()
        self.optimizer.zero_grad()
        (nats / x.shape[0]).backward()
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return nats.item() / x.size

    @torch.no_grad()
    def _clip(self) -> None:
        """Scale the gradients down to a global norm.

        Not `clip_grad_norm_`: it adds an epsilon to the norm, and the norm of a large float32
        tensor is off by as much again where the sum of its squares is not.
        """
        gradients = [p.grad for p in self.trained if p.grad is not None]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        scale = self.preset.clip / norm.clamp(min=self.preset.clip)
        for gradient in gradients:
            gradient.mul_(scale)

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

    def weights(self) -> Weights:
        return {name: p.detach().cpu().numpy().copy() for name, p in self._named().items()}

    def carried(self) -> Weights:
        return {"h": self.state[0].cpu().numpy(), "c": self.state[1].cpu().numpy()}

    def calls(self) -> int:
        return self.model.lstm.calls

    def restore(self, weights: Weights, carried: Weights, calls: int) -> None:
        self.load(weights)
        self.state = self._tensor(carried["h"]), self._tensor(carried["c"])
        for layer in (self.model.lstm, self.model.embedding):
            if layer.placement is not None:
                layer.calls = calls

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        for name, parameter in self._named().items():
            parameter.copy_(self._tensor(weights[name]))

    def _named(self) -> dict[str, nn.Parameter]:
        model, lstm = self.model, self.model.lstm
        named = {"embedding": model.embedding.weight}
        for layer in range(self.preset.layers):
            named[f"lstm.{layer}.w_ih"] = getattr(lstm, f"weight_ih_l{layer}")
            named[f"lstm.{layer}.w_hh"] = getattr(lstm, f"weight_hh_l{layer}")
            named[f"lstm.{layer}.bias"] = getattr(lstm, f"bias_ih_l{layer}")
        return named | {"output.weight": model.output.weight, "output.bias": model.output.bias}

    def _zeros(self, batch: int) -> State:
        shape = (self.preset.layers, batch, self.preset.units)
        return torch.zeros(shape, device=self.device), torch.zeros(shape, device=self.device)

    def _tensor(self, array: np.ndarray) -> Tensor:
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        return torch.from_numpy(np.array(array, kind, order="C")).to(self.device)
