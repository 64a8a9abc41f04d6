"""The captioning model in PyTorch."""

from __future__ import annotations

import torch
from dropout_policies_torch import LSTM, Embedding
from torch import Tensor, nn

from ...config import RunConfig
from ...sentences import torch_engine
from ...task import Arrays
from ...torch_training import linear_weights, lstm_weights


class CaptionModel(nn.Module):
    """An LSTM under a policy that reads the image as its first input, and then the caption."""

    def __init__(self, features: int, vocabulary: int, config: RunConfig) -> None:
        super().__init__()
        units = config.recipe.units
        self.image = nn.Linear(features, units)
        self.embedding = Embedding(vocabulary, units, **config.word_types)
        self.lstm = LSTM(
            units,
            units,
            num_layers=config.recipe.layers,
            batch_first=True,
            policy=config.placement,
            seed=config.start_seed,
        )
        self.output = nn.Linear(units, vocabulary)

    def forward(self, image: Tensor, before: Tensor) -> Tensor:
        """Images `[B, D]` and the words before each `[B, T]` to logits `[B, T, V]`."""
        # One call, so that masks that stay for a sequence are the same for image and words.
        x = torch.cat([self.image(image)[:, None], self.embedding(before)], dim=1)
        return self.output(self.lstm(x)[0][:, 1:])

    def begin(self, image: Tensor) -> list[Tensor]:
        """Images `[R, D]` to the state before the first word, two of `[R, L, H]`."""
        _, (h, c) = self.lstm(self.image(image)[:, None])
        return [h.transpose(0, 1), c.transpose(0, 1)]

    def step(self, before: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A word `[R]` and a state to logits `[R, V]` and the next state."""
        h, c = (each.transpose(0, 1).contiguous() for each in state)
        y, (h, c) = self.lstm(self.embedding(before)[:, None], (h, c))
        return self.output(y[:, 0]), [h.transpose(0, 1), c.transpose(0, 1)]


class TorchEngine(torch_engine.TorchEngine):
    """`benchmarks.sentences.engine.Engine` for captions on PyTorch."""

    def __init__(self, config: RunConfig, start: Arrays) -> None:
        vocabulary, features = len(start["embedding"]), start["image.weight"].shape[1]
        model = CaptionModel(features, vocabulary, config)
        named = {
            **dict(linear_weights("image", model.image)),
            "embedding": model.embedding.weight,
            **dict(lstm_weights("lstm", model.lstm)),
            **dict(linear_weights("output", model.output)),
        }
        noisy = [m for m in (model.embedding, model.lstm) if m.placement is not None]
        super().__init__(model, named, noisy, start, config.recipe)
