"""The PyTorch adapter as a subject of the properties."""

from __future__ import annotations

import dropout_policies_torch as dpt
import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dropout_policies.reference import Weights

from .cases import Case, Numbers, Outcome, loss_weights, random_direction
from .cases import numbers as numbers_of
from .convolutions import Convolution

States = tuple[torch.Tensor, ...]

LAYERS = {
    "lstm": (dpt.LSTM, {}),
    "gru": (dpt.GRU, {}),
    "rnn_tanh": (dpt.RNN, {}),
    "rnn_relu": (dpt.RNN, {"nonlinearity": "relu"}),
}


def build(case: Case, given: Numbers, **arguments):
    """The layer of a case, in float64, with its weights."""
    kind, more = LAYERS[case.cell]
    if case.proj_size:
        more = more | {"proj_size": case.proj_size}
    more = {"policy": case.policy, "seed": case.seed} | more | arguments
    layer = kind(
        case.input_size,
        case.hidden_size,
        num_layers=case.layers,
        bias=case.bias,
        bidirectional=len(case.directions) == 2,
        batch_first=case.form == "batch first",
        dtype=torch.float64,
        **more,
    )
    load(layer, given)
    layer.calls, layer.row_offset = case.call, case.row_offset
    return layer.train(case.training)


def tensors(w: Weights) -> dict[str, torch.Tensor]:
    """An oracle's weights as PyTorch has them. Where its two biases count alike, as their sum, they
    share the oracle's one."""
    found = {"weight_ih": w.w_ih, "weight_hh": w.w_hh}
    if w.bias is not None:
        share = 1.0 if w.recurrent_bias is not None else 0.75
        found["bias_ih"] = share * w.bias
        found["bias_hh"] = 0.25 * w.bias if w.recurrent_bias is None else w.recurrent_bias
    if w.w_hr is not None:
        found["weight_hr"] = w.w_hr
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}


def named(given: Numbers) -> dict[str, torch.Tensor]:
    """All weights of a case under PyTorch's names."""
    return {
        f"{name}_l{inner}" + "_reverse" * direction: tensor
        for inner, row in enumerate(given.weights)
        for direction, w in enumerate(row)
        for name, tensor in tensors(w).items()
    }


@torch.no_grad()
def load(layer: torch.nn.Module, given: Numbers) -> None:
    """Copy the oracle's weights into a layer."""
    for name, tensor in named(given).items():
        getattr(layer, name).copy_(tensor)


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


def call(layer, case: Case, x: torch.Tensor, state: States | None) -> list[torch.Tensor]:
    """y, h (and c) of a call in the case's form."""
    if state is not None and unbatched(case):
        state = tuple(part[:, 0] for part in state)
    single = case.cell != "lstm"
    y, end = layer(pack(x, case), state[0] if state is not None and single else state)
    end = (end,) if single else end
    if unbatched(case):
        end = tuple(part[:, None] for part in end)
    return [unpack(y, case), *end]


def run(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on the PyTorch adapter."""
    given = given or numbers_of(case)
    return outcome(build(case, given), case, given)


CELLS = {
    "lstm": (dpt.LSTMCell, {}),
    "gru": (dpt.GRUCell, {}),
    "rnn_tanh": (dpt.RNNCell, {}),
    "rnn_relu": (dpt.RNNCell, {"nonlinearity": "relu"}),
}


def run_cells(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on PyTorch's cells, a call for each step, the last one's h masked where it leaves."""
    given = given or numbers_of(case)
    kind, more = CELLS[case.cell]
    cells = []
    for number, (w,) in enumerate(given.weights):
        size = case.input_size if number == 0 else case.hidden_size
        where = {"policy": case.policy, "seed": case.seed, "stack": (number, case.layers)}
        cell = kind(size, case.hidden_size, case.bias, dtype=torch.float64, **where, **more)
        copy(cell, w)
        cell.calls, cell.row_offset = case.call, case.row_offset
        cells.append(cell.train(case.training))
    inputs = [torch.from_numpy(a).requires_grad_() for a in (given.x, *(given.state or ()))]
    alone, single = unbatched(case), case.cell != "lstm"
    states = [
        tuple(state[number, 0] if alone else state[number] for state in inputs[1:]) or None
        for number in range(case.layers)
    ]
    outputs = []
    for x in inputs[0]:
        x = x[0] if alone else x
        for number, cell in enumerate(cells):
            before = states[number]
            end = cell(x, before[0] if before is not None and single else before)
            states[number] = (end,) if single else end
            x = states[number][0]
        y = cells[-1].mask_output(x)
        outputs.append(y[None] if alone else y)
    end = [torch.stack(parts) for parts in zip(*states, strict=True)]
    end = [part[:, None] for part in end] if alone else end
    return measured(
        case, inputs, by_layer(cells), named(random_direction(case)), [torch.stack(outputs), *end]
    )


class ConvLSTMCell(torch.nn.Module):
    """A convolutional LSTM cell as a user may write it, for any number of spatial axes."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, convolution: Convolution):
        super().__init__()
        self.input_size, self.hidden_size, self.convolution = input_size, hidden_size, convolution

        def parameter(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(*shape, dtype=torch.float64))

        self.weight_ih = parameter(4 * hidden_size, input_size * convolution.taps)
        self.weight_hh = parameter(4 * hidden_size, hidden_size * convolution.taps)
        if bias:
            self.bias_ih, self.bias_hh = (parameter(4 * hidden_size) for _ in range(2))

    def forward(self, x, state=None):
        gates = self.convolve(x, self.weight_ih, self.convolution)
        if state is None:
            state = 2 * (gates.new_zeros(len(x), self.hidden_size, *gates.shape[2:]),)
        h, c = state
        gates = gates + self.convolve(h, self.weight_hh, self.convolution.of_states)
        if hasattr(self, "bias_ih"):
            gates = gates + (self.bias_ih + self.bias_hh).reshape(-1, *(1 for _ in x.shape[2:]))
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def convolve(self, value, weight, how: Convolution):
        kernel = weight.reshape(len(weight), -1, *how.kernel)
        around = [zeros for axis in reversed(how.zeros_around) for zeros in axis]
        value = torch.nn.functional.pad(value, around)
        convolve = getattr(torch.nn.functional, f"conv{len(how.kernel)}d")
        return convolve(value, kernel, stride=how.stride, dilation=how.dilation)


def run_unrolled(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on cells of a user's own, run by `Unrolled`: stock ones, or convolutional ones."""
    given = given or numbers_of(case)
    inputs = [torch.from_numpy(a).requires_grad_() for a in (given.x, *(given.state or ()))]
    convolution = case.convolution
    x = inputs[0].unflatten(2, (case.input_size, *convolution.sizes))
    x = x if unbatched(case) else pack(x, case)
    spatial = convolution.output_sizes
    ends, cells = [], []
    for number, (w,) in enumerate(given.weights):
        size = case.input_size if number == 0 else case.hidden_size
        where = convolution if number == 0 else convolution.of_states
        if convolution.sizes:
            cell = ConvLSTMCell(size, case.hidden_size, case.bias, where)
        else:
            cell = torch.nn.LSTMCell(size, case.hidden_size, case.bias, dtype=torch.float64)
        copy(cell, w)
        place = {"policy": case.policy, "seed": case.seed, "stack": (number, case.layers)}
        # What the states' sizes are is said where they are not the input's.
        named_size = None if spatial == where.sizes else spatial
        first = case.form == "batch first"
        layer = dpt.Unrolled(cell, batch_first=first, spatial_size=named_size, **place)
        layer.train(case.training)
        layer.calls, layer.row_offset = case.call, case.row_offset
        states = (state[number].unflatten(1, (case.hidden_size, *spatial)) for state in inputs[1:])
        x, end = layer(x, tuple(states) or None)
        ends.append(tuple(state.flatten(1) for state in end))
        cells.append(cell)
    y = (x if unbatched(case) else unpack(x, case)).flatten(2)
    parts = [y, *(torch.stack(each) for each in zip(*ends, strict=True))]
    return measured(case, inputs, by_layer(cells), named(random_direction(case)), parts)


@torch.no_grad()
def copy(cell: torch.nn.Module, w: Weights) -> None:
    """Copy the oracle's weights into a cell."""
    for name, tensor in tensors(w).items():
        getattr(cell, name).copy_(tensor)


def by_layer(cells: list[torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """The weights of cells under the names that they would have in one layer object."""
    return {
        f"{name}_l{number}": parameter
        for number, cell in enumerate(cells)
        for name, parameter in cell.named_parameters()
    }


def outcome(layer, case: Case, given: Numbers) -> Outcome:
    """One call of a layer that is built already, and the slope of its loss."""
    inputs = [torch.from_numpy(a).requires_grad_() for a in (given.x, *(given.state or ()))]
    parts = call(layer, case, inputs[0], tuple(inputs[1:]) or None)
    return measured(
        case, inputs, dict(layer.named_parameters()), named(random_direction(case)), parts
    )


def measured(case, inputs, parameters, along, parts) -> Outcome:
    """The outcome of a call.

    Args:
        inputs: x and the states, of which gradients are taken.
        parameters: the weights by name.
        along: the weights' part of the way.
        parts: y and the states that the call gave.
    """
    names = ("y", "h", "c")[: len(parts)]
    pulls = [torch.from_numpy(loss_weights(case, n, tuple(p.shape))) for n, p in zip(names, parts)]  # noqa: B905
    loss = sum((part * weight).sum() for part, weight in zip(parts, pulls, strict=True))
    ahead = random_direction(case)
    values = [*inputs, *(parameters[name] for name in along)]
    ways = [ahead.x, *(ahead.state or ())][: len(inputs)]
    ways = [*map(torch.from_numpy, ways), *along.values()]
    found = torch.autograd.grad(loss, values, allow_unused=True)
    slope = sum((g * w).sum() for g, w in zip(found, ways, strict=True) if g is not None)
    y, *state = (part.detach().numpy() for part in parts)
    return Outcome(y, tuple(state), float(slope))
