"""A small classifier of sequences, its data, and what must hold when another library trains it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

SAMPLES, STEPS, FEATURES, UNITS = 24, 5, 6, 16
SITES = {"input", "between", "output"}


class Classifier(nn.Module):
    """Sequences `[B, T, F]` to logits `[B, 2]`, with stock layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, UNITS, num_layers=2, batch_first=True)
        self.head = nn.Linear(UNITS, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Random sequences, and the sign of the sum of each."""
    x = torch.randn(SAMPLES, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
    return x, (x.sum((1, 2)) > 0).long()


def outputs_in_training(model: nn.Module) -> list[torch.Tensor]:
    """A list that gets the output of `model.rnn` at each of its training calls."""
    outputs: list[torch.Tensor] = []

    def hook(module: nn.Module, _: object, output: tuple[torch.Tensor, object]) -> None:
        if module.training:
            outputs.append(output[0].detach().clone())

    model.rnn.register_forward_hook(hook)
    return outputs


def check_masks(recorded: list[dict], outputs: list[torch.Tensor], calls: int) -> None:
    """The masks of `zaremba` were drawn anew at each call and step, and are those that were used.

    Args:
        recorded: what `dp.record` gives for the layer: masks by slot for each call
        outputs: the layer's outputs `[B, T, H]` in training
        calls: how many training calls there must be
    """
    assert len(recorded) == len(outputs) == calls > 1
    for masks, output in zip(recorded, outputs, strict=True):
        assert {slot.site.value for slot in masks} == SITES
        for slot, mask in masks.items():  # [T, B, F]
            assert not any(np.array_equal(a, b) for a, b in pairwise(mask)), slot
            if slot.site.value == "output":
                zeros = (output == 0).transpose(0, 1).numpy()
                np.testing.assert_array_equal(zeros, mask == 0)
    for earlier, later in pairwise(recorded):
        for slot, mask in earlier.items():
            shared = min(mask.shape[1], later[slot].shape[1])
            assert not np.array_equal(mask[:, :shared], later[slot][:, :shared]), slot


def check_evaluation(model: nn.Module, checkpoint: dict[str, torch.Tensor]) -> None:
    """The checkpoint loads into the stock model, which then computes the same, bit for bit."""
    stock = Classifier()
    stock.load_state_dict(checkpoint, strict=True)
    assert type(stock.rnn) is nn.LSTM
    x, _ = data()
    with torch.no_grad():
        assert torch.equal(model.eval()(x), stock.eval()(x))
