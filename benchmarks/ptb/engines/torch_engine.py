"""The language model in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from dropout_policies_torch import LSTM, Embedding
from torch import Tensor, nn

from ... import processes
from ...config import RunConfig
from ...torch_training import Trainer, linear_weights, lstm_weights
from ..engine import Array, Tokens, Weights

State = tuple[Tensor, Tensor]


def captures(config: RunConfig) -> bool:
    """Whether a run's steps are captured in CUDA graphs, which keyed masks do not fit in, nor what
    processes tell one another."""
    keyed = config.same_start or config.word_types or config.placement.scheduled
    return torch.cuda.is_available() and not keyed and processes.process_count() == 1


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
            seed=None if captures(config) else config.start_seed,
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
        self.captures, self.seed = captures(config), config.start_seed
        self.weights, self._tensor = self.trainer.weights, self.trainer.tensor
        self.loss = nn.CrossEntropyLoss(reduction="none")
        self.rows = processes.own_rows(self.preset.batch)
        for layer in (self.model.lstm, self.model.embedding):
            layer.row_offset = self.rows.start
        self.state = self._zeros(self.rows.stop - self.rows.start)
        self.trainer.load(weights)
        self._at(0)

    def train_window(self, x: Tokens, y: Tokens, learning_rate: float) -> float:
        self.model.train()
        if self.captures:
            nats = self.trainer.replayed(self._losses, [x.T, y.T], learning_rate)
            self.trained += 1
        else:
            mine = (self._tensor(words[self.rows].T) for words in (x, y))
            loss, total = self._losses(*mine)
            self.trainer.step(loss, learning_rate)
            nats = processes.sum_over_processes(total)
        return nats / x.size

    def _losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of words and the next ones `[T, B]`: nats for each row, and in all."""
        h, c = self.state
        logits, state = self.trainer.parallel(x, (h.clone(), c.clone()))
        for carried, new in zip(self.state, state, strict=True):
            carried.copy_(new.detach())
        nats = self.loss(logits.flatten(0, 1), y.flatten()).sum()
        return nats / x.shape[1], nats

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
        for carried in self.state:
            carried.zero_()

    def carried(self) -> Weights:
        h, c = (processes.gather_rows(carried, axis=1) for carried in self.state)
        return {"h": h, "c": c}

    def calls(self) -> int:
        # The layer itself counts no call that a graph replays.
        return self.trained if self.captures else self.model.lstm.calls

    def restore(self, weights: Weights, carried: Weights, calls: int) -> None:
        self.trainer.load(weights)
        for mine, name in zip(self.state, "hc", strict=True):
            mine.copy_(self._tensor(carried[name][:, self.rows]))
        self._at(calls)

    def _at(self, calls: int) -> None:
        """Go on with the masks of a call."""
        self.trained = calls
        torch.manual_seed(self.seed + calls)  # for masks without a seed
        for layer in (self.model.lstm, self.model.embedding):
            if layer.placement is not None:
                layer.calls = calls

    def _zeros(self, batch: int) -> State:
        shape = (self.preset.layers, batch, self.preset.units)
        device = self.trainer.device
        return torch.zeros(shape, device=device), torch.zeros(shape, device=device)
