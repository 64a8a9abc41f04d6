"""The PyTorch side of a trial: how a model is built, counted and measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from dropout_policies_torch.model_wiring.example_calls import as_function
from torch import nn

import dropout_policies as dp

from .entries import Entry, define_missing_operators
from .measure import Ends, Masks, measure_masks
from .torch_models import MODELS

__all__ = ["MODELS", "build", "count_layers", "measure"]


def build(entry: Entry) -> tuple[nn.Module, Any]:
    """A model and an example input, the same every time.

    Raises:
        NotInstalledError: what it is made of is not installed.
    """
    define_missing_operators()
    torch.manual_seed(0)
    model, example = entry.build()
    return model, example


def count_layers(model: nn.Module) -> int:
    """How many recurrent layers it has, of any kind that PyTorch has."""
    return sum(isinstance(m, nn.RNNBase | nn.RNNCellBase) for m in model.modules())


def measure(model: nn.Module, example: Any, applied: dp.Applied, rate: float) -> list[Masks]:
    """The masks on each connection of a model under a policy that has one rate."""
    modules = dict(model.named_modules())
    layers = {member.name: modules[member.name] for member in applied.touched}
    call = as_function(model, example)

    def run(training: bool) -> Any:
        model.train(training)
        return call()

    modes = [(module, module.training) for module in model.modules()]
    try:
        return measure_masks(run, layers, _watch, rate)
    finally:
        for module, mode in modes:
            module.training = mode


def _watch(layer: nn.Module, ends: Ends) -> Callable[[], None]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (ends.take_input(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "input": ends.take_input(kwargs["input"])}

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(layer, nn.RNNCellBase):
            ends.take_output(output[0] if isinstance(output, tuple) else output, is_state=True)
            return None
        return (ends.take_output(output[0]), *output[1:])

    hooks = [
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after),
    ]

    def undo() -> None:
        for hook in hooks:
            hook.remove()

    return undo
