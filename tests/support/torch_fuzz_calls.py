"""Random calls of the PyTorch layers, as data: what is drawn, and how its tensors lie in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dropout_policies_torch as dpt
import torch
from dropout_policies_kernels.operator_arguments import OPERATOR_SITES
from hypothesis import strategies as st
from torch import Tensor, nn

import dropout_policies as dp
from dropout_policies.testing.strategies import MIXED, policies, published

from .cases import CELLS
from .torch_layouts import ALL_LAYOUTS, FAULTS, LAYOUTS, MASK_LAYOUTS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
"""Calls of each kind of layer in the long version of each test."""

KINDS: dict[str, tuple[type, type, str, dict[str, Any]]] = {
    "LSTM": (dpt.LSTM, nn.LSTM, "lstm", {}),
    "GRU": (dpt.GRU, nn.GRU, "gru", {}),
    "RNN": (dpt.RNN, nn.RNN, "rnn_tanh", {}),
    "RNN, relu": (dpt.RNN, nn.RNN, "rnn_relu", {"nonlinearity": "relu"}),
}
"""Our layer, the stock layer, the kind of cell, and the arguments beside the sizes."""

COMBINED = {
    "all of the update": dp.semeniuta() | dp.zoneout(0.2, 0.1) | dp.rnndrop(0.2),
    "all of the recurrence": dp.variational() | dp.semeniuta() | dp.zoneout(0.3, 0.2),
    "hidden and weights": dp.naive(0.3) | dp.weight_drop(0.4),
    "state": dp.Policy(state=dp.drop(0.2), hidden=dp.drop(0.3), name="state"),
    "masks of each gate": dp.Policy(
        input=dp.drop(0.2, gates="untied"),
        between=dp.drop(0.3, per="sequence", gates="untied"),
        hidden=dp.drop(0.3, gates="untied"),
        hidden_update=dp.Rule(0.1, kind="zoneout"),
        name="masks of each gate",
    ),
}
"""Policies that are more than one of the catalogue's."""

SIZES = (1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33)
"""Small ones, and those around the edges of a vector of the processor."""

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}
"""How far two results may lie apart, as a part of 1 and the largest number."""

FORMS = ("steps first", "batch first", "unbatched", "packed", "packed, sorted")

BACKWARDS = (
    "once",
    "twice",
    "accumulated",
    "checkpointed",
    "second order",
    "interrupted",
    "input changed",
    "no_grad",
    "inference_mode",
)
"""What happens after the call: `interrupted` has an exception in a hook and then a second try, and
`input changed` changes a tensor in place before the gradient is taken."""


def _moved(layout: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A saved tensor in another place; those that are no plain numbers stay where they are."""

    def move(saved: Tensor) -> Tensor:
        if saved.layout != torch.strided or not saved.is_floating_point() or not saved.dim():
            return saved
        return layout(saved.detach())

    return move


SAVED: dict[str, Callable[[Tensor], Tensor]] = {
    "the same": lambda saved: saved,
    "copied": _moved(Tensor.clone),
    **{name: _moved(layout) for name, layout in LAYOUTS.items() if name != "subclass"},
}
"""What hooks for saved tensors can give back: the same numbers in another place."""

WRONGLY_SAVED = tuple(sorted(set(FAULTS) - {"nested", "quantized"}))
"""What hooks for saved tensors give back wrongly."""


class Interrupted(Exception):  # noqa: N818 - no error of the code under test
    """What a hook raises in the middle of a backward pass."""


@dataclass(frozen=True)
class Call:
    """One call of one layer, as data.

    Args:
        kind: one of `KINDS`.
        policy: what falls on it.
        input_size, hidden_size, proj_size, layers, bidirectional, bias: the layer's own arguments.
        form: one of `FORMS`.
        batch, lengths: the samples; `lengths` are their steps.
        state: whether a state is given.
        dtype, autocast: of the tensors; and of autocast, if it is on.
        device: where all of it is.
        layouts: how tensors lie in memory, by name; those that are not there are contiguous.
        one_buffer: all weights are parts of one array.
        tied: the first two layers or directions have one recurrent weight.
        owner: whose weights run: the "layer", a "deep copy", or those of a "functional_call".
        frozen: names of tensors that need no gradient.
        wanted: of those that do, which are asked for; all if it is empty.
        grad_layouts: the outputs that the loss depends on, with the layout of each one's gradient.
        backward: one of `BACKWARDS`.
        saved: what a hook for saved tensors gives back, one of `SAVED` or `FAULTS`; None for none.
        number: which hook raises, or which tensor changes or is wrongly given back.
        threads: in the call, and in the backward pass.
        compiled: whether compiled functions take the steps where they can.
        large: whether weights are laid out for oneDNN as large ones are.
        masks: how masks that are put in lie in memory; None where they are drawn.
        draw: what the numbers are drawn from.
    """

    kind: str
    policy: dp.Policy
    input_size: int = 3
    hidden_size: int = 4
    proj_size: int = 0
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    form: str = "steps first"
    batch: int = 3
    lengths: tuple[int, ...] = (4, 4, 4)
    state: bool = True
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    device: str = "cpu"
    layouts: Mapping[str, str] = field(default_factory=dict)
    one_buffer: bool = False
    tied: bool = False
    owner: str = "layer"
    frozen: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    grad_layouts: Mapping[str, str] = field(default_factory=lambda: {"y": "contiguous"})
    backward: str = "once"
    saved: str | None = None
    number: int = 0
    threads: tuple[int, int] = (1, 1)
    compiled: bool = True
    large: bool = False
    masks: str | None = None
    draw: int = 0

    @property
    def packed(self) -> bool:
        return self.form.startswith("packed")

    @property
    def steps(self) -> int:
        return max(self.lengths)

    @property
    def states(self) -> tuple[str, ...]:
        if not self.state:
            return ()
        return ("h0", "c0") if self.kind == "LSTM" else ("h0",)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("y", "h", "c") if self.kind == "LSTM" else ("y", "h")

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the layer's weights by name."""
        directions, out = 1 + self.bidirectional, self.proj_size or self.hidden_size
        rows = CELLS[KINDS[self.kind][2]].inside.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            width = self.input_size if layer == 0 else directions * out
            for way in range(directions):
                end = f"_l{layer}" + "_reverse" * way
                shapes["weight_ih" + end] = (rows, width)
                shapes["weight_hh" + end] = (rows, out)
                if self.bias:
                    shapes["bias_ih" + end] = shapes["bias_hh" + end] = (rows,)
                if self.proj_size:
                    shapes["weight_hr" + end] = (out, self.hidden_size)
        return shapes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors that the call is given, by name."""
        count, batch = self.layers * (1 + self.bidirectional), (self.batch,)
        x: tuple[int, ...] = (self.steps, self.batch, self.input_size)
        if self.packed:
            x = (sum(self.lengths), self.input_size)
        elif self.form == "batch first":
            x = (self.batch, self.steps, self.input_size)
        elif self.form == "unbatched":
            x, batch = (self.steps, self.input_size), ()
        widths = {"h0": self.proj_size or self.hidden_size, "c0": self.hidden_size}
        states = {name: (count, *batch, widths[name]) for name in self.states}
        return {"x": x, **states, **self.weights}

    def needs_gradient(self, name: str) -> bool:
        return self.backward not in ("no_grad", "inference_mode") and name not in self.frozen


Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Wrong:
    """A call with something wrong in one place.

    Args:
        call: the call.
        name: a tensor of the call's, or an output whose gradient is wrong: "gradient of y".
        fault: one of `FAULTS`.
    """

    call: Call
    name: str
    fault: str


WITHIN = ("semeniuta", "zoneout", "rnndrop")
"""Policies under which nothing but the recurrence keeps tensors for its gradient."""


@st.composite
def chosen_policies(draw: st.DrawFn, kind: str, layers: int, double: bool, inside: bool) -> Any:
    """Policies of the catalogue, combined ones; and in double precision, any.

    Args:
        double: whether it is for double precision.
        inside: whether masks fall inside the recurrence, for which there are operators.
    """
    cell = CELLS[KINDS[kind][2]].type
    if draw(st.sampled_from([False, False, True])):
        name = draw(st.sampled_from(sorted(COMBINED)))
        rules = {site.value: rule for site, rule in COMBINED[name].items() if site in cell.sites}
        return dp.Policy(name=name, **rules)
    names = [name for name in dp.names() if published(name, cell) is not None]
    if inside:
        names = [name for name in names if name in ("variational", "naive", *WITHIN)]
    elif double and draw(st.booleans()):
        return draw(policies(cell, layers, (MIXED,)))
    return published(draw(st.sampled_from(names)), cell)


@st.composite
def calls(draw: st.DrawFn, kind: str, devices: Sequence[str] = ("cpu",)) -> Call:
    """Random calls of one kind of layer."""

    def one_of(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    single, double = torch.float32, torch.float64
    dtypes = [(single, None), (double, None)]
    # Most calls are such as compiled functions take.
    usual = one_of(True, True, True, False)
    if not usual:
        low = (torch.bfloat16, torch.float16)
        dtypes += [*((single, half) for half in low), *((half, None) for half in low)]
    dtype, autocast = one_of(*dtypes)
    hidden_size, layers = one_of(*SIZES), one_of(1, 1, 1, 2, 2, 3)
    bidirectional = one_of(False, False, True)
    projected = kind == "LSTM" and hidden_size > 1 and one_of(False, False, True)
    form = one_of("steps first", *FORMS)
    batch = 1 if form == "unbatched" else one_of(1, 2, 3, 4, 7, 13, 17, 33)
    steps = one_of(1, 2, 3, 4, 5, 6, 11)
    lengths = (steps,) * batch
    if form.startswith("packed"):
        drawn = draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
        lengths = (steps, *sorted(drawn[1:], reverse=True))
        if form == "packed":
            lengths = lengths[1:] + lengths[:1]
    call = Call(
        kind=kind,
        policy=draw(chosen_policies(kind, layers, dtype is double, usual)),
        input_size=one_of(*SIZES),
        hidden_size=hidden_size,
        proj_size=draw(st.integers(1, hidden_size - 1)) if projected else 0,
        layers=layers,
        bidirectional=bidirectional,
        bias=one_of(True, True, False),
        form=form,
        batch=batch,
        lengths=lengths,
        state=one_of(True, True, False),
        dtype=dtype,
        autocast=autocast,
        device=one_of(*devices),
        one_buffer=one_of(False, False, False, True),
        owner=one_of("layer", "layer", "layer", "deep copy", "functional_call"),
        threads=one_of(*[(1, 1)] * 8, *[(3, 3), (3, 1), (1, 3)] * 2, (2, 2)),
        compiled=usual or one_of(True, False),
        large=one_of(False, False, False, True),
        masks=one_of(None, None, None, *MASK_LAYOUTS),
        draw=draw(st.integers(0, 2**16)),
    )
    names = list(call.shapes)
    # The tensors whose layouts matter most come up more often than the many weights.
    often = [name for name in names if name not in call.weights] * 3
    layouts = st.dictionaries(
        st.sampled_from(names + often), st.sampled_from(sorted(ALL_LAYOUTS)), max_size=4
    )
    some = st.frozensets(st.sampled_from(names), max_size=3)
    gradients = st.sampled_from(sorted(ALL_LAYOUTS))
    grad_layouts = st.dictionaries(st.sampled_from(call.outputs), gradients, min_size=1)
    ways = [way for way in BACKWARDS if way != "second order" or dtype is double]
    backward = one_of("once", "once", "interrupted", "interrupted", *ways)
    saved = None
    if backward in ("once", "twice", "accumulated") and one_of(False, True):
        saved = one_of(*SAVED if _runs_ours(call) else ("the same", "copied"))
    frozen, wanted, laid = draw(some), draw(st.just(frozenset()) | some), draw(layouts)
    # PyTorch copies tensors of its own classes alone, and forgets others' in a backward pass.
    if call.owner == "deep copy" or backward == "checkpointed":
        laid = {name: layout for name, layout in laid.items() if layout != "subclass"}
    return replace(
        call,
        layouts=laid,
        tied=_can_be_tied(call) and one_of(False, False, False, True),
        frozen=frozen,
        wanted=wanted - frozen,
        grad_layouts=draw(grad_layouts),
        backward=backward,
        saved=saved,
        number=draw(st.integers(0, 40)),
    )


def _runs_ours(call: Call) -> bool:
    """Whether no layer runs in oneDNN's kernel for an LSTM, whose own gradient is wrong where what
    it saved comes back in another layout."""
    inside = set(OPERATOR_SITES["LSTM"]) & set(call.policy) - {dp.Site.INPUT}
    return call.kind != "LSTM" or call.dtype is torch.float64 or bool(inside)


def _can_be_tied(call: Call) -> bool:
    return call.layers * (1 + call.bidirectional) > 1 and not call.one_buffer


@st.composite
def wrongly_saved(draw: st.DrawFn, kind: str) -> Call:
    """Calls for which a hook for saved tensors gives something wrong back."""
    call = draw(calls(kind))
    cell = CELLS[KINDS[kind][2]].type
    names = [name for name in WITHIN if published(name, cell) is not None]
    packed, half = call.packed, call.dtype not in (torch.float32, torch.float64)
    return replace(
        call,
        policy=published(draw(st.sampled_from(names)), cell),
        form="steps first" if packed else call.form,
        lengths=(call.steps,) * call.batch,
        # A subclass runs in the plain loop, of whose saved tensors only PyTorch knows.
        layouts={n: layout for n, layout in call.layouts.items() if layout != "subclass"},
        dtype=torch.float32 if half else call.dtype,
        autocast=None,
        compiled=True,
        backward=draw(st.sampled_from(["once", "twice", "accumulated"])),
        saved=draw(st.sampled_from(WRONGLY_SAVED)),
    )


@st.composite
def wrong_calls(draw: st.DrawFn, kind: str, faults: Sequence[str] = tuple(FAULTS)) -> Wrong:
    """Calls with something wrong in one place."""
    call = draw(calls(kind))
    owner = "layer" if call.owner == "deep copy" else call.owner
    call = replace(
        call,
        dtype=call.dtype if _runs_ours(call) else torch.float64,
        autocast=None,
        owner=owner,
        layouts={},
        one_buffer=False,
        tied=False,
        frozen=frozenset(),
        wanted=frozenset(),
        backward="once",
        saved=None,
        masks=None,
        compiled=True,
    )
    gradients = [f"gradient of {name}" for name in call.outputs]
    names = [*call.shapes, *(name for name in call.shapes if name not in call.weights), *gradients]
    return Wrong(call, draw(st.sampled_from(names)), draw(st.sampled_from(list(faults))))
