"""How a module is called that takes more than a sequence: its lengths, or an initial state."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

MAKER = re.compile("(init|zero|begin|start).*(hidden|state)|(hidden|state).*(init|zero)")
"""What a method is called that makes an initial state for B samples, as `init_hidden`."""


@dataclass(frozen=True)
class Way:
    """One way to call a module.

    Args:
        features: D, of what comes in.
        packed: whether as a PackedSequence.
        batch_axis: the axis of the samples; None where nothing else has that size.
        lengths: the arguments that want the sequences' lengths.
        start: the number, of the initial states that can be made, of the one that is given; None
            where the module does without.
    """

    features: int
    packed: bool = False
    batch_axis: int | None = None
    lengths: tuple[str, ...] = ()
    start: int | None = None

    def arguments(self, module: nn.Module, x: Tensor) -> dict[str, Any]:
        """What is given beside a sequence `[T, B, ...]` or `[B, T, ...]`."""
        axis = self.batch_axis if self.batch_axis is not None else 1
        batch, steps = x.shape[axis], x.shape[1 - axis]
        found: dict[str, Any] = {name: torch.full((batch,), steps) for name in self.lengths}
        if self.start is not None:
            found |= as_arguments(module, list(_starts(module, batch))[self.start])
        return found


def ways(module: nn.Module, widths: Sequence[int]) -> Iterator[Way]:
    """The ways to call it, the likeliest first; which one it is shows when it is tried.

    Args:
        module: which.
        widths: what D may be.
    """
    names = wanted(module)
    lengths = tuple(name for name in names if _is_lengths(name))
    axes = (1, 0) if names else (None,)
    starts = range(len(list(_starts(module, 1)))) if len(names) > len(lengths) else ()
    for packed, width, axis, start in product((False, True), widths, axes, starts or (None,)):
        yield Way(width, packed, axis, lengths, start)


def wanted(module: nn.Module) -> list[str]:
    """The arguments that a module cannot be called without, but for the first."""
    return [name for name, has_value in _arguments(module).items() if not has_value]


def state_arguments(module: nn.Module) -> list[str]:
    """The arguments that take an initial state, or may do so."""
    needed = [name for name in wanted(module) if not _is_lengths(name)]
    return needed or [name for name in _arguments(module) if not _is_lengths(name)][:1]


def as_arguments(module: nn.Module, state: Any) -> dict[str, Any]:
    """An initial state as a module takes it: as one argument, or each part as one."""
    names = state_arguments(module)
    return {names[0]: state} if len(names) == 1 else dict(zip(names, state, strict=True))


def _arguments(module: nn.Module) -> Mapping[str, bool]:
    """The arguments of `forward` but for the first, and whether they have values of their own."""
    named = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return {p.name: p.default is not p.empty for p in named[1:]}


def _is_lengths(name: str) -> bool:
    return "len" in name


def _starts(module: nn.Module, batch: int) -> Iterator[Any]:
    """The initial states that can be made for a module: its own first, then zeros for the layers of
    PyTorch's that it has."""
    for name in filter(MAKER.search, dir(type(module))):
        try:
            yield getattr(module, name)(batch)
        except Exception:  # one that wants something else, or makes none
            continue
    layers = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
    zeros = [_zeros(layer, batch) for layer in layers]
    if zeros:
        yield zeros[0] if len(zeros) == 1 else zeros


def _zeros(layer: nn.RNNBase, batch: int) -> Any:
    like = next(layer.parameters())
    rows = layer.num_layers * (1 + layer.bidirectional)
    h = like.new_zeros(rows, batch, layer.proj_size or layer.hidden_size)
    return (h, like.new_zeros(rows, batch, layer.hidden_size)) if layer.mode == "LSTM" else h
