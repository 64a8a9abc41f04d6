"""How to call a module that takes more than a sequence: lengths, or an initial state."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

STATE_METHOD = re.compile("(init|zero|begin|start).*(hidden|state)|(hidden|state).*(init|zero)")
"""The name of a method that makes an initial state for B samples, such as `init_hidden`."""


@dataclass(frozen=True)
class CallStyle:
    """One way to call a module.

    Args:
        features: D.
        is_packed: whether the input is a PackedSequence.
        batch_axis: the axis of the samples. None if no other argument depends on their number.
        length_arguments: the arguments that take the lengths of the sequences.
        state_number: the index of the initial state to pass, among those that can be made. None:
            pass no state.
    """

    features: int
    is_packed: bool = False
    batch_axis: int | None = None
    length_arguments: tuple[str, ...] = ()
    state_number: int | None = None

    def extra_arguments(self, module: nn.Module, x: Tensor) -> dict[str, Any]:
        """Make the arguments that follow a sequence `[T, B, ...]` or `[B, T, ...]`."""
        axis = self.batch_axis if self.batch_axis is not None else 1
        batch, steps = x.shape[axis], x.shape[1 - axis]
        arguments: dict[str, Any] = {
            name: torch.full((batch,), steps) for name in self.length_arguments
        }
        if self.state_number is not None:
            state = list(_initial_states(module, batch))[self.state_number]
            arguments |= state_as_arguments(module, state)
        return arguments


def possible_call_styles(module: nn.Module, widths: Sequence[int]) -> Iterator[CallStyle]:
    """List the ways to call a module, the likeliest first. The caller tries which one works.

    Args:
        module: the module.
        widths: the possible values of D.
    """
    names = required_arguments(module)
    lengths = tuple(name for name in names if _takes_lengths(name))
    axes = (1, 0) if names else (None,)
    needs_state = len(names) > len(lengths)
    states = range(len(list(_initial_states(module, 1)))) if needs_state else ()
    for is_packed, width, axis, state in product((False, True), widths, axes, states or (None,)):
        yield CallStyle(width, is_packed, axis, lengths, state)


def required_arguments(module: nn.Module) -> list[str]:
    """Return the arguments without defaults, except the first."""
    return [name for name, has_default in _arguments(module).items() if not has_default]


def state_arguments(module: nn.Module) -> list[str]:
    """Return the arguments that take an initial state, or may take one."""
    required = [name for name in required_arguments(module) if not _takes_lengths(name)]
    return required or [name for name in _arguments(module) if not _takes_lengths(name)][:1]


def state_as_arguments(module: nn.Module, state: Any) -> dict[str, Any]:
    """Make arguments from an initial state: one for the whole state, or one for each part."""
    names = state_arguments(module)
    return {names[0]: state} if len(names) == 1 else dict(zip(names, state, strict=True))


def _arguments(module: nn.Module) -> Mapping[str, bool]:
    """Return the arguments of `forward` except the first, and whether they have defaults."""
    try:
        signature = inspect.signature(module.forward)
    except ValueError:  # a traced module has none
        return {}
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return {p.name: p.default is not p.empty for p in parameters[1:]}


def _takes_lengths(name: str) -> bool:
    return "len" in name


def _initial_states(module: nn.Module, batch: int) -> Iterator[Any]:
    """Make the possible initial states of a module.

    First come the states that its own methods make, then zeros for its PyTorch layers.
    """
    for name in filter(STATE_METHOD.search, dir(type(module))):
        try:
            yield getattr(module, name)(batch)
        except Exception:  # the method takes other arguments, or makes no state
            continue
    layers = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
    zeros = [_zero_state(layer, batch) for layer in layers]
    if zeros:
        yield zeros[0] if len(zeros) == 1 else zeros


def _zero_state(layer: nn.RNNBase, batch: int) -> Any:
    like = next(layer.parameters())
    rows = layer.num_layers * (1 + layer.bidirectional)
    h = like.new_zeros(rows, batch, layer.proj_size or layer.hidden_size)
    return (h, like.new_zeros(rows, batch, layer.hidden_size)) if layer.mode == "LSTM" else h


@contextmanager
def without_onednn() -> Iterator[None]:
    """Make a context that calls modules without oneDNN.

    oneDNN rearranges an LSTM's weights at every call. That takes longer than a few steps.
    """
    onednn: Any = torch.backends.mkldnn
    is_frozen = torch.backends.flags_frozen()  # type: ignore[no-untyped-call]
    before = onednn.enabled
    if before and not is_frozen:
        onednn.enabled = False
    try:
        yield
    finally:
        if before and not is_frozen:
            onednn.enabled = before
