"""The layers of a model and their names."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

Layer = Any
"""A `keras.layers.Layer`. Keras has no types to check against."""

RECURRENT_LAYERS = (keras.layers.RNN, keras.layers.Bidirectional)
"""The layers that are whole recurrent networks. They own the layers inside them."""


def layers_of(parent: Layer, recursive: bool = True) -> list[Layer]:
    """Return the layers inside a layer or model, at every depth or only at the first."""
    # Private, because the public `layers` exists only on models, and a user's own layer may
    # contain recurrent layers too.
    inner = parent._flatten_layers(include_self=recursive, recursive=recursive)
    return list(dict.fromkeys(inner))


def directions_of(layer: Layer) -> list[Layer]:
    """Return the layer itself, or both directions of a `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def kind_of(layer: Layer) -> str:
    """Return a layer's class as a user writes it, e.g. "keras.layers.Bidirectional(LSTM)"."""
    kind = type(layer)
    package, _, _ = kind.__module__.partition(".")
    module = {"keras": "keras.layers", __package__: package}.get(package, kind.__module__)
    inner = f"({type(layer.forward_layer).__name__})" if len(directions_of(layer)) == 2 else ""
    return f"{module}.{kind.__qualname__}{inner}"


def takes_training(layer: Layer) -> bool:
    """Whether a layer's `call` has a `training` argument, so that Keras passes it on."""
    return "training" in inspect.signature(layer.call).parameters


def variables_of(model: Layer) -> list[keras.Variable]:
    """Return the variables of a model, including those that Keras does not list.

    These are the states of `stateful` layers, and variables in attributes of a user's layers.
    """
    listed = list(model.variables)
    held = [
        value
        for layer in layers_of(model)
        for attribute in vars(layer).values()
        for value in (attribute if isinstance(attribute, list | tuple) else [attribute])
        if isinstance(value, keras.Variable)
    ]
    return list({id(variable): variable for variable in [*listed, *held]}.values())


def unique_names(layers: Sequence[Layer], all_layers: Sequence[Layer]) -> list[str]:
    """Return the names of some layers. If several have one name, the name of their model precedes.

    Args:
        layers: the layers.
        all_layers: all layers of the model that contains them, including inner models.
    """
    counts = Counter(layer.name for layer in layers)
    models = [layer for layer in all_layers if isinstance(layer, keras.Model)]

    def name(layer: Layer) -> str:
        holders = [m.name for m in models if any(layer is inner for inner in m.layers)]
        return "/".join([*holders[-1:], layer.name]) if counts[layer.name] > 1 else layer.name

    return [name(layer) for layer in layers]


def ids_inside(all_layers: Sequence[Layer], kinds: tuple[type[Layer], ...]) -> set[int]:
    """Return the ids of the layers inside layers of some classes."""
    return {
        id(inner)
        for outer in all_layers
        if isinstance(outer, kinds)
        for inner in layers_of(outer)
        if inner is not outer
    }
