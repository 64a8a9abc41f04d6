"""The PyTorch adapter as a subject of the properties."""

from __future__ import annotations

import numpy as np
import torch
from dropout_policies_torch import LSTM
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .cases import Case, Numbers, Outcome
from .cases import numbers as numbers_of


def build(case: Case, given: Numbers) -> LSTM:
    """The layer of a case, in float64, with its weights."""
    layer = LSTM(
        case.input_size,
        case.hidden_size,
        num_layers=case.layers,
        bias=case.bias,
        bidirectional=len(case.directions) == 2,
        proj_size=case.proj_size,
        policy=case.policy,
        seed=case.seed,
        dtype=torch.float64,
    )
    load(layer, given)
    layer.calls, layer.row_offset = case.call, case.row_offset
    return layer.train(case.training)


@torch.no_grad()
def load(layer: torch.nn.LSTM, given: Numbers) -> None:
    """Copy the oracle's weights into an LSTM; the second bias is zero."""
    for inner, row in enumerate(given.weights):
        for direction, w in enumerate(row):
            name = f"_l{inner}" + ("_reverse" if direction else "")
            getattr(layer, "weight_ih" + name).copy_(torch.from_numpy(w.w_ih))
            getattr(layer, "weight_hh" + name).copy_(torch.from_numpy(w.w_hh))
            if w.bias is not None:
                getattr(layer, "bias_ih" + name).copy_(torch.from_numpy(w.bias))
                getattr(layer, "bias_hh" + name).zero_()
            if w.w_hr is not None:
                getattr(layer, "weight_hr" + name).copy_(torch.from_numpy(w.w_hr))


def pack(x: torch.Tensor, case: Case) -> torch.Tensor | PackedSequence:
    """The input as a user hands it over: packed, in unsorted order, if the case has lengths."""
    if case.lengths is None:
        return x
    return pack_padded_sequence(x, list(case.lengths), enforce_sorted=False)


def unpack(y: torch.Tensor | PackedSequence) -> torch.Tensor:
    return pad_packed_sequence(y)[0] if isinstance(y, PackedSequence) else y


def run(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on the PyTorch adapter."""
    given = given or numbers_of(case)
    layer = build(case, given)
    state = None
    if given.state is not None:
        state = torch.from_numpy(given.state[0]), torch.from_numpy(given.state[1])
    y, (h, c) = layer(pack(torch.from_numpy(given.x), case), state)
    arrays: list[np.ndarray] = [part.detach().numpy() for part in (unpack(y), h, c)]
    return Outcome(*arrays)
