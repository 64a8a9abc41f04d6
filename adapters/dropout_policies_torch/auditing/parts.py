"""The recurrent layers of a model as modules to audit, each with the dropout around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropout_policies.adapter import DropoutCall, LayerCall, ModelPart, RecurrentLayer

from ..model_wiring.observer import Observer


class RecurrentPart(nn.Module):
    """A recurrent layer as a model uses it, with the dropout before and after it.

    Args:
        layer: the layer, or a cell.
        before: the dropout modules on its input, in order.
        after: the dropout modules on its output, in order.
        step_by_step: whether the model calls the layer once for every step.
    """

    def __init__(
        self,
        layer: nn.Module,
        before: Sequence[nn.Module],
        after: Sequence[nn.Module],
        step_by_step: bool,
    ) -> None:
        super().__init__()
        self.layer, self.step_by_step = layer, step_by_step
        self.before, self.after = nn.ModuleList(before), nn.ModuleList(after)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """Run the layer and the dropout around it.

        Args:
            x: `[T, B, D]`, or `[B, T, D]` if the layer takes that.
            hx: the initial state, or None.

        Returns:
            Every h, and the last state.
        """
        if isinstance(self.layer, nn.RNNCellBase):
            outputs = []
            for step in x:
                hx = self.layer(self._through(self.before, step), hx)
                outputs.append(self._through(self.after, hx if isinstance(hx, Tensor) else hx[0]))
            return torch.stack(outputs), hx
        if not self.step_by_step:
            y, hx = self.layer(self._through(self.before, x), hx)
            return self._through(self.after, y), hx
        axis = 1 if getattr(self.layer, "batch_first", False) else 0
        outputs = []
        for step in torch.split(x, 1, axis):
            y, hx = self.layer(self._through(self.before, step), hx)
            outputs.append(self._through(self.after, y))
        return torch.cat(outputs, axis), hx

    @staticmethod
    def _through(dropouts: nn.ModuleList, x: Tensor) -> Tensor:
        for dropout in dropouts:
            x = dropout(x)
        return x


class FunctionDropout(nn.Module):
    """A module that runs a dropout function of a model's code.

    Args:
        name: the function's name in `torch.nn.functional`.
        rate: the rate of the dropout.
    """

    def __init__(self, name: str, rate: float) -> None:
        super().__init__()
        self.name, self.rate = name, rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped."""
        dropped: Tensor = getattr(nn.functional, self.name)(x, self.rate, self.training)
        return dropped


def find_parts(observer: Observer) -> list[ModelPart]:
    """Collect the recurrent layers that ran, each with the dropout around it.

    Args:
        observer: the observer of a run of the model.
    """
    return [
        _part(item, [call for call in observer.layer_calls if call.item is item], observer)
        for item in dict.fromkeys(call.item for call in observer.layer_calls)
    ]


def _part(item: RecurrentLayer, calls: Sequence[LayerCall], observer: Observer) -> ModelPart:
    first = calls[0]
    before: list[DropoutCall] = []
    after: list[DropoutCall] = []
    others: list[DropoutCall] = []
    for dropout in observer.dropout_calls:
        is_on_output = first in dropout.inputs.outputs
        if dropout in first.inputs.dropouts:
            found = before if _fits(dropout, first.shape) else others
        elif is_on_output and _fits(dropout, first.output_shape):
            found = [] if _is_next_input(dropout) else after
        else:
            found = others if is_on_output and not _is_next_input(dropout) else []
        found.append(dropout)
    seen_elsewhere = [d for d in others if any(_fits(d, c.output_shape) for c in d.inputs.outputs)]
    notes = tuple(
        f"{dropout.dropout} is next to {item.name} with its axes in another order, at a rate that "
        f"only the call knows, or as a mask of the code's own; it was not measured there"
        for dropout in others
        if dropout not in seen_elsewhere
    )
    step_by_step = len(calls) > 1 and all(call.steps == 1 for call in calls)
    part = RecurrentPart(
        item.layer, list(map(_as_module, before)), list(map(_as_module, after)), step_by_step
    )
    return ModelPart(item.name, part, notes)


def _is_next_input(dropout: DropoutCall) -> bool:
    """Whether a dropout is measured on the input of the layer that it feeds."""
    return any(_fits(dropout, call.shape) for call in dropout.comes_into)


def _fits(dropout: DropoutCall, shape: tuple[int, ...]) -> bool:
    """Whether a dropout gets the same shape as a layer, and can run without the model.

    For packed sequences, only the width is known and compared.
    """
    is_known = bool(dropout.rate) or dropout.dropout.can_switch_off
    same = dropout.shape == shape or (len(shape) == 1 and dropout.shape[-1:] == shape)
    return is_known and same


def _as_module(call: DropoutCall) -> nn.Module:
    """Return the module to audit in place of a dropout."""
    if isinstance(call.dropout.layer, nn.Module):
        return call.dropout.layer
    return FunctionDropout(call.dropout.kind.rpartition(".")[2], call.rate)
