"""What can be seen of how a Keras model's layers feed one another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import keras

Layer = Any
"""A `keras.layers.Layer`; Keras has no types to check against."""


def layers_of(parent: Layer, recursive: bool = True) -> list[Layer]:
    """The layers inside a layer or model, at every depth or at the first."""
    # Private, because the public `layers` exists on models only, and a layer of the user's own
    # may hold recurrent layers too.
    return list(parent._flatten_layers(include_self=recursive, recursive=recursive))


def feeders(model: Layer) -> dict[str, str | None] | None:
    """For each layer of a model, by name, the one layer that feeds its first input.

    None for a layer that is fed by several or by none; None as a whole if the model has a `call`
    of its own, which shows nothing.
    """
    if isinstance(model, keras.Sequential):
        names = [layer.name for layer in model.layers]
        return dict([(names[0], None)] if names else []) | {b: a for a, b in pairwise(names)}
    if not isinstance(model, keras.Function):
        return None
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return None  # a layer that cannot be described; then neither can the graph
    if "layers" not in config:
        return None
    fed: dict[str, str | None] = {}
    for layer in config["layers"]:
        sources = {
            name
            for node in layer["inbound_nodes"]
            for first in node["args"][:1]
            for name in _histories(first)
        }
        fed[layer["name"]] = sources.pop() if len(sources) == 1 else None
    return fed


def _histories(value: Any) -> Iterator[str]:
    """The names of the layers whose outputs stand in a serialized argument."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        for inner in value.values():
            yield from _histories(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _histories(inner)


def way_up(
    name: str, fed: dict[str, str | None], layers: dict[str, Layer], ends: set[str]
) -> tuple[list[Layer], str | None]:
    """From a layer against the flow, past layers without weights, to one of `ends`.

    Returns:
        The layers passed on the way, and the end's name; None if the way ends elsewhere.
    """
    passed: list[Layer] = []
    source = fed.get(name)
    while source is not None and source not in ends:
        layer = layers.get(source)
        if layer is not None:
            if layer.weights or not layer.built:
                return passed, None
            passed.append(layer)
        source = fed.get(source)
    return passed, source


def drops(layer: Layer) -> bool:
    """Whether a layer is one of Keras's dropout or noise layers, with a rate above 0."""
    kinds = (
        keras.layers.Dropout,
        keras.layers.SpatialDropout1D,
        keras.layers.GaussianDropout,
        keras.layers.AlphaDropout,
    )
    return isinstance(layer, kinds) and float(layer.rate) > 0.0


def retrace(model: Layer) -> None:
    """Have compiled models trace their steps anew; what they traced knows nothing of a change."""
    for inner in layers_of(model):
        if isinstance(inner, keras.Model):
            inner.train_function = inner.test_function = inner.predict_function = None
