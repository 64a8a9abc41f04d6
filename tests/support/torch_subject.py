"""The PyTorch adapter as a subject of the properties."""

from __future__ import annotations

import torch
from dropout_policies_torch import LSTM
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .cases import Case, Numbers, Outcome
from .cases import numbers as numbers_of

State = tuple[torch.Tensor, torch.Tensor]


def build(case: Case, given: Numbers) -> LSTM:
    """The layer of a case, in float64, with its weights."""
    layer = LSTM(
        case.input_size,
        case.hidden_size,
        num_layers=case.layers,
        bias=case.bias,
        bidirectional=len(case.directions) == 2,
        proj_size=case.proj_size,
        batch_first=case.form == "batch first",
        policy=case.policy,
        seed=case.seed,
        dtype=torch.float64,
    )
    load(layer, given)
    layer.calls, layer.row_offset = case.call, case.row_offset
    return layer.train(case.training)


@torch.no_grad()
def load(layer: torch.nn.LSTM, given: Numbers) -> None:
    """Copy the oracle's weights into an LSTM; its two biases share the oracle's one."""
    for inner, row in enumerate(given.weights):
        for direction, w in enumerate(row):
            name = f"_l{inner}" + ("_reverse" if direction else "")
            getattr(layer, "weight_ih" + name).copy_(torch.from_numpy(w.w_ih))
            getattr(layer, "weight_hh" + name).copy_(torch.from_numpy(w.w_hh))
            if w.bias is not None:
                bias = torch.from_numpy(w.bias)
                getattr(layer, "bias_ih" + name).copy_(0.75 * bias)
                getattr(layer, "bias_hh" + name).copy_(0.25 * bias)
            if w.w_hr is not None:
                getattr(layer, "weight_hr" + name).copy_(torch.from_numpy(w.w_hr))


def pack(x: torch.Tensor, case: Case) -> torch.Tensor | PackedSequence:
    """The input `[T, B, D]` as a user hands it over: packed if the case has lengths."""
    if case.lengths is not None:
        return pack_padded_sequence(x, list(case.lengths), enforce_sorted=case.form == "sorted")
    if unbatched(case):
        return x[:, 0]
    return x.transpose(0, 1) if case.form == "batch first" else x


def unpack(y: torch.Tensor | PackedSequence, case: Case) -> torch.Tensor:
    """The output as `[T, B, K*P]`."""
    if isinstance(y, PackedSequence):
        return pad_packed_sequence(y)[0]
    if unbatched(case):
        return y[:, None]
    return y.transpose(0, 1) if case.form == "batch first" else y


def unbatched(case: Case) -> bool:
    return case.form == "unbatched" and case.batch == 1 and case.lengths is None


def call(layer: LSTM, case: Case, x: torch.Tensor, state: State | None) -> list[torch.Tensor]:
    """y, h and c of a call in the case's form."""
    if state is not None and unbatched(case):
        state = state[0][:, 0], state[1][:, 0]
    y, (h, c) = layer(pack(x, case), state)
    if unbatched(case):
        h, c = h[:, None], c[:, None]
    return [unpack(y, case), h, c]


def run(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on the PyTorch adapter."""
    given = given or numbers_of(case)
    return outcome(build(case, given), case, given)


def outcome(layer: LSTM, case: Case, given: Numbers) -> Outcome:
    """One call of a layer that is built already."""
    state = None
    if given.state is not None:
        state = torch.from_numpy(given.state[0]), torch.from_numpy(given.state[1])
    parts = call(layer, case, torch.from_numpy(given.x), state)
    return Outcome(*[part.detach().numpy() for part in parts])
