"""The Keras side of a trial: how a model is built, counted and measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

import dropout_policies as dp

from .entries import Entry
from .keras_models import MODELS
from .measure import Ends, Masks, measure_masks

__all__ = ["MODELS", "build", "count_layers", "measure"]


def build(entry: Entry) -> tuple[Any, Any]:
    """A model and an example input, the same every time."""
    keras.utils.set_random_seed(0)
    model, example = entry.build()
    _run(model, example, False)
    return model, example


def count_layers(model: Any) -> int:
    """How many recurrent layers it has."""
    return sum(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers())


def measure(model: Any, example: Any, applied: dp.Applied, rate: float) -> list[Masks]:
    """The masks on each connection of a model under a policy; on PyTorch alone, whose gradients
    are measured."""
    if keras.backend.backend() != "torch":
        return []
    by_name = {
        name: layer for layer in model._flatten_layers() for name in (layer.name, layer.path)
    }
    names = [member.name for member in applied.touched]
    layers = {name: by_name[name] for name in names if name in by_name}
    if not layers:
        return []
    return measure_masks(lambda training: _run(model, example, training), layers, _watch, rate)


def _run(model: Any, example: Any, training: bool) -> Any:
    if not callable(example):
        return model(example, training=training)
    call = type(model).__call__

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(self, *args, **{"training": training} | kwargs if self is model else kwargs)

    type(model).__call__ = called
    try:
        return example()
    finally:
        type(model).__call__ = call


def _watch(layer: Any, ends: Ends) -> Callable[[], None]:
    """The layer's `call` is replaced: hooks of PyTorch's do not see Keras's layers."""
    original = layer.call

    def call(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(ends.take_input(sequences), *args, **kwargs)
        if isinstance(output, list | tuple):
            return type(output)((ends.take_output(output[0]), *output[1:]))
        return ends.take_output(output)

    object.__setattr__(layer, "call", call)

    def undo() -> None:
        vars(layer).pop("call", None)

    return undo
