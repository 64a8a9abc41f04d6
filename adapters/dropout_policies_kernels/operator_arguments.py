"""The arguments and results of the operators of whole sequences, grouped in records or flat.

Functions of this package take the records below. `torch.library` and `torch.autograd.Function` take
tensors one by one. Only `flatten` and `FlatSignature` convert between the two.

T is the number of steps, B the batch, D the width of the input, H the hidden size, and G the number
of gates. P is the width of h: `proj_size` in an LSTM with a projection, otherwise H. Masks are
`[T or 1, B or 1, F or 1]`, where F is H, or P for a mask of h. A site without a mask has None. A
mask that x or h passes on the way into the gates may hold one mask for each gate, side by side. It
is then G*D or G*P wide. The operator takes a mask of x only in that case. Any other mask of x is
applied beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from torch import Tensor

from dropout_policies.adapter import (
    Site,
)


class LSTMWeights(NamedTuple):
    """The weights of an LSTM.

    Args:
        w_ih: `[4*H, D]`.
        w_hh: `[4*H, P]`.
        bias: the sum of both biases, `[4*H]`, or None.
        w_hr: the projection, `[P, H]`, or None.
    """

    w_ih: Tensor
    w_hh: Tensor
    bias: Tensor | None
    w_hr: Tensor | None = None


KERNEL_SITES = ("hidden", "candidate", "cell", "state", "hidden_update", "cell_update")
"""The sites of a kernel's masks, in order."""


class LSTMMasks(NamedTuple):
    """The masks inside an LSTM, in the order of the operator's arguments."""

    input: Tensor | None
    hidden: Tensor | None
    candidate: Tensor | None
    cell: Tensor | None
    state: Tensor | None
    hidden_update: Tensor | None
    cell_update: Tensor | None

    @property
    def for_kernel(self) -> Sequence[Tensor | None]:
        """The masks at `KERNEL_SITES`."""
        return self[1:]


class LSTMInputs(NamedTuple):
    """The inputs of an LSTM.

    Args:
        x: the input, `[T, B, D]`.
        h0: the initial hidden state, `[B, P]`.
        c0: the initial cell state, `[B, H]`.
        weights: the weights.
        masks: the masks.
        reverse: whether steps run from the last to the first.
    """

    x: Tensor
    h0: Tensor
    c0: Tensor
    weights: LSTMWeights
    masks: LSTMMasks
    reverse: bool

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The initial states."""
        return self.h0, self.c0


class LSTMSaved(NamedTuple):
    """The results of an LSTM's forward pass that its backward pass needs.

    Args:
        hs: h of every step, `[T, B, P]`.
        cs: c of every step, `[T, B, H]`.
        gates: i, f, g and o after their activations, `[T, B, 4*H]`.
        tanh_cell: the tanh of each step's new c, before zoneout, `[T, B, H]`.
    """

    hs: Tensor
    cs: Tensor
    gates: Tensor
    tanh_cell: Tensor


class LSTMOutputs(NamedTuple):
    """The outputs of an LSTM: h of every step, the last c, and the rest of `LSTMSaved`.

    The rest is empty if no backward pass follows.
    """

    hs: Tensor
    last_c: Tensor
    cs: Tensor
    gates: Tensor
    tanh_cell: Tensor

    @property
    def saved(self) -> LSTMSaved:
        """The part that the backward pass needs."""
        return LSTMSaved(self.hs, self.cs, self.gates, self.tanh_cell)


class GRUWeights(NamedTuple):
    """The weights of a GRU: `[3*H, D]`, `[3*H, H]`, and two biases, each `[3*H]` or None."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None


class GRUMasks(NamedTuple):
    """The masks inside a GRU, in the order of the operator's arguments."""

    input: Tensor | None
    hidden: Tensor | None
    candidate: Tensor | None
    state: Tensor | None
    hidden_update: Tensor | None

    @property
    def for_kernel(self) -> Sequence[Tensor | None]:
        """The masks at `KERNEL_SITES`."""
        return self.hidden, self.candidate, None, self.state, self.hidden_update, None


class GRUInputs(NamedTuple):
    """The inputs of a GRU.

    Args:
        x: the input, `[T, B, D]`.
        h0: the initial hidden state, `[B, H]`.
        weights: the weights.
        masks: the masks.
        reverse: whether steps run from the last to the first.
    """

    x: Tensor
    h0: Tensor
    weights: GRUWeights
    masks: GRUMasks
    reverse: bool

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The initial state."""
        return (self.h0,)


class GRUSaved(NamedTuple):
    """The results of a GRU's forward pass that its backward pass needs.

    Args:
        hs: h of every step, `[T, B, H]`.
        gates: r, z and n after their activations, `[T, B, 3*H]`.
        hidden_n: the hidden state's part of n, before r multiplies it, `[T, B, H]`.
    """

    hs: Tensor
    gates: Tensor
    hidden_n: Tensor


class GRUOutputs(NamedTuple):
    """The outputs of a GRU: h of every step, the last h, and the rest of `GRUSaved`.

    The rest is empty if no backward pass follows.
    """

    hs: Tensor
    last_h: Tensor
    gates: Tensor
    hidden_n: Tensor

    @property
    def saved(self) -> GRUSaved:
        """The part that the backward pass needs."""
        return GRUSaved(self.hs, self.gates, self.hidden_n)


class RNNWeights(NamedTuple):
    """The weights of a simple RNN: `[H, D]`, `[H, H]`, and the sum of both biases `[H]` or None."""

    w_ih: Tensor
    w_hh: Tensor
    bias: Tensor | None


class RNNMasks(NamedTuple):
    """The masks inside a simple RNN, in the order of the operator's arguments.

    A simple RNN has only one gate, so no mask holds one for each gate.
    """

    hidden: Tensor | None
    state: Tensor | None
    hidden_update: Tensor | None

    @property
    def for_kernel(self) -> Sequence[Tensor | None]:
        """The masks at `KERNEL_SITES`."""
        return self.hidden, None, None, self.state, self.hidden_update, None


class RNNInputs(NamedTuple):
    """The inputs of a simple RNN.

    Args:
        x: the input, `[T, B, D]`.
        h0: the initial hidden state, `[B, H]`.
        weights: the weights.
        masks: the masks.
        reverse: whether steps run from the last to the first.
    """

    x: Tensor
    h0: Tensor
    weights: RNNWeights
    masks: RNNMasks
    reverse: bool

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The initial state."""
        return (self.h0,)


class RNNSaved(NamedTuple):
    """The results of a simple RNN's forward pass that its backward pass needs.

    Args:
        hs: h of every step, `[T, B, H]`.
        gates: the new h of every step, before mask and zoneout, `[T, B, H]`.
    """

    hs: Tensor
    gates: Tensor


class RNNOutputs(NamedTuple):
    """The outputs of a simple RNN: h of every step, the last h, and the rest of `RNNSaved`.

    The rest is empty if no backward pass follows.
    """

    hs: Tensor
    last_h: Tensor
    gates: Tensor

    @property
    def saved(self) -> RNNSaved:
        """The part that the backward pass needs."""
        return RNNSaved(self.hs, self.gates)


class GradOutputs(NamedTuple):
    """The gradients of an operator's outputs.

    Args:
        grad_hs: the gradient of every h, `[T, B, P]`.
        grad_last: the gradient of the last c of an LSTM, or of the last h of another layer,
            `[B, H]`.
    """

    grad_hs: Tensor
    grad_last: Tensor


Masks = LSTMMasks | GRUMasks | RNNMasks
Inputs = LSTMInputs | GRUInputs | RNNInputs

OPERATOR_SITES = {
    "LSTM": tuple(Site(name) for name in LSTMMasks._fields),
    "GRU": tuple(Site(name) for name in GRUMasks._fields),
    "RNN_TANH": tuple(Site(name) for name in RNNMasks._fields),
    "RNN_RELU": tuple(Site(name) for name in RNNMasks._fields),
}
"""PyTorch's `mode` of a layer → the sites of its operator's masks, in order. `input` stands for the
site of the layer's input, which is `between` in all layers except the first."""

_SCHEMA_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool"}


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple)


def _schema_of(name: str, kind: Any) -> list[tuple[str, str]]:
    """Return the names and types of a parameter in a schema. A record gives those of its fields."""
    if not _is_record(kind):
        return [(name, _SCHEMA_TYPES[kind])]
    fields = get_type_hints(kind)
    return [pair for field in kind._fields for pair in _schema_of(field, fields[field])]


def flatten(arguments: Iterable[Any]) -> list[Any]:
    """Replace each record among the arguments by its fields."""
    flat: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            flat += flatten(argument)
        else:
            flat.append(argument)
    return flat


def make_grouping(record: Any) -> Callable[[Sequence[Any]], Any]:
    """Make the inverse of `flatten`: a function that maps flat values to a record.

    Args:
        record: the type of the record. Its fields may be records.
    """
    # The function runs at every call of an operator. The work done here makes it fast.
    hints = get_type_hints(record)
    parts: list[tuple[int, int, Any]] = []
    first = 0
    for field in record._fields:
        kind = hints[field]
        end = first + len(_schema_of(field, kind))
        parts.append((first, end, make_grouping(kind) if _is_record(kind) else None))
        first = end
    make = record._make
    if not any(group for _, _, group in parts):
        return make  # type: ignore[no-any-return]
    return lambda flat: make(
        [flat[first] if group is None else group(flat[first:end]) for first, end, group in parts]
    )


class FlatSignature:
    """The flat signature of a function that takes records.

    Args:
        function: an annotated function. Each parameter is a record, a tensor or a bool. It returns
            a record or a tuple of tensors.

    Attributes:
        group: a function that maps flat values to a record of the function's arguments.
        returned: the type that the function returns.
        schema: the flat signature in the schema language of `torch.library`.
        size: the number of flat values.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        kinds = get_type_hints(function)
        self.returned: Any = kinds.pop("return")
        self.group = make_grouping(NamedTuple("Arguments", list(kinds.items())))
        named = [pair for name, kind in kinds.items() for pair in _schema_of(name, kind)]
        self.size = len(named)
        count = len(get_args(self.returned) or self.returned._fields)
        parameters = ", ".join(f"{kind} {name}" for name, kind in named)
        self.schema = f"({parameters}) -> ({', '.join(['Tensor'] * count)})"
