"""The translation model in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp

from ...config import RunConfig
from ...sentences import torch_engine
from ...task import Arrays
from ...torch_training import linear_weights, lstm_weights


class Translator(nn.Module):
    """PyTorch's own LSTMs: one reads the source, the other goes on from its state."""

    def __init__(self, english: int, french: int, config: RunConfig) -> None:
        super().__init__()
        units, layers = config.recipe.units, config.recipe.layers
        self.source = nn.Embedding(english, units)
        self.encoder = nn.LSTM(units, units, num_layers=layers, batch_first=True)
        self.target = nn.Embedding(french, units)
        self.decoder = nn.LSTM(units, units, num_layers=layers, batch_first=True)
        self.attended = nn.Linear(2 * units, units) if config.recipe.attention else None
        self.output = nn.Linear(units, french)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        """Source words `[B, S]`, 0 where there is none, and the words before each `[B, T]` to
        logits `[B, T, V]`."""
        y, state = self._read(source)
        x, _ = self.decoder(self.target(before), state)
        return self._say(x, y, source > 0)

    def begin(self, source: Tensor) -> list[Tensor]:
        """The state before the first word: h and c `[R, L, H]`; with attention, what the encoder
        gave `[R, S, H]` and where there are words `[R, S]`."""
        y, state = self._read(source)
        carried = [each.transpose(0, 1) for each in state]
        return carried if self.attended is None else [*carried, y, (source > 0).float()]

    def step(self, before: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A word `[R]` and a state to logits `[R, V]` and the next state."""
        h, c, *seen = state
        x, carried = self.decoder(
            self.target(before)[:, None], tuple(e.transpose(0, 1).contiguous() for e in (h, c))
        )
        y, there = (seen[0], seen[1] > 0) if seen else (x, before[:, None] > 0)
        logits = self._say(x, y, there)[:, 0]
        return logits, [*(each.transpose(0, 1) for each in carried), *seen]

    def _read(self, source: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What the encoder gives `[B, S, H]`, and its state after the last word of each row."""
        # A row that only fills up a batch has no word, and is read as one.
        lengths = (source > 0).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            self.source(source), lengths, batch_first=True, enforce_sorted=False
        )
        y, state = self.encoder(packed)
        return pad_packed_sequence(y, batch_first=True, total_length=source.shape[1])[0], state

    def _say(self, x: Tensor, y: Tensor, there: Tensor) -> Tensor:
        """Decoder's outputs `[B, T, H]` to logits, with attention after a look at the encoder's."""
        if self.attended is not None:
            likeness = (x @ y.transpose(1, 2)).masked_fill(~there[:, None], -1e9)
            context = likeness.softmax(-1) @ y
            x = self.attended(torch.cat([context, x], dim=-1)).tanh()
        return self.output(x)


class TorchEngine(torch_engine.TorchEngine):
    """`benchmarks.sentences.engine.Engine` for translation on PyTorch."""

    def __init__(self, config: RunConfig, start: Arrays) -> None:
        model = Translator(len(start["source"]), len(start["target"]), config)
        named = {
            "source": model.source.weight,
            **dict(lstm_weights("encoder", model.encoder)),
            "target": model.target.weight,
            **dict(lstm_weights("decoder", model.decoder)),
            **dict(linear_weights("output", model.output)),
        }
        if model.attended is not None:
            named |= linear_weights("attended", model.attended)
        # Neither feeds the other: the decoder gets a state.
        stacks = [["encoder"], ["decoder"]]
        dp.apply(model, policy=config.placement, seed=config.start_seed, stacks=stacks)
        noisy = [model.encoder, model.decoder]
        super().__init__(model, named, noisy, start, config.recipe)
