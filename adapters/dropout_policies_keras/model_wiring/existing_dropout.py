"""Finding the dropout layers that a model already has, switching them off, and restoring them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

import keras

from dropout_policies.adapter import (
    ExistingDropout,
    RecurrentLayer,
    number_text,
)

from ..model_layers import Layer, kind_of, layers_of, unique_names
from .functional_graph import graph_of

RATE_NAMES = (
    *("rate", "stddev", "p", "drop", "dropout", "drop_prob", "drop_rate", "drop_p", "prob"),
    *("dropout_rate", "dropout_prob", "dropout_p", "p_dropout", "noise", "sigma"),
)
"""The attributes that may hold a dropout's rate, in Keras and in users' own classes."""

DROPOUT_FUNCTIONS = ("dropout", "alpha_dropout", "spatial_dropout", "gaussian_dropout")
"""The names of functions that perform dropout."""

SWITCHED_OFF = "_rate_before_policy"
"""The attribute in which a dropout stores its old rate."""


def find_dropouts(model: Layer, found: Sequence[RecurrentLayer]) -> dict[int, ExistingDropout]:
    """Find the active dropout layers of a model, by id.

    Dropouts inside its recurrent layers, and inside Keras's own composite layers, are left out.
    `TimeDistributed` around a dropout counts as that dropout.

    Args:
        model: the model.
        found: its recurrent layers.
    """
    all_layers = layers_of(model)
    inside = {id(inner) for item in found for inner in layers_of(item.layer)}
    for layer in all_layers:
        if _is_made_by_keras(layer):
            inside |= {id(inner) for inner in layers_of(layer) if inner is not layer}
    dropouts = {
        id(layer): ExistingDropout(name, kind_of(layer), *_rate_text(layer))
        for name, layer in dropouts_by_name(model)
        if id(layer) not in inside and _is_active(layer)
    }
    for layer in all_layers:
        if isinstance(layer, keras.layers.TimeDistributed) and id(layer.layer) in dropouts:
            dropouts[id(layer)] = dropouts[id(layer.layer)]
    return dropouts


def _is_made_by_keras(layer: Layer) -> bool:
    """Whether a layer is one of Keras's own that contains others.

    `MultiHeadAttention`, for example, contains a dropout, which masks nothing that a policy masks.
    """
    is_open = isinstance(layer, keras.Model | keras.layers.TimeDistributed)
    return type(layer).__module__.startswith("keras.") and not is_open and graph_of(layer) is None


def active_dropout(layer: Layer) -> ExistingDropout | None:
    """Describe a layer that is a dropout or wraps one in `TimeDistributed`. None if it is off."""
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    if not isinstance(inner, keras.layers.Layer) or not _is_active(inner):
        return None
    return ExistingDropout(inner.name, kind_of(inner), *_rate_text(inner))


def dropouts_by_name(model: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield the names and dropout layers of a model, active or not."""
    all_layers = layers_of(model)
    found = [layer for layer in all_layers if _is_of_dropout_class(layer)]
    yield from zip(unique_names(found, all_layers), found, strict=True)


def _is_of_dropout_class(layer: Layer) -> bool:
    """Whether a layer is a dropout by its class name, without weights or inner layers."""
    if isinstance(layer, keras.layers.Lambda):
        return calls_dropout(getattr(layer.function, "__code__", None))
    names = " ".join(kind.__name__.lower() for kind in type(layer).__mro__)
    is_named = "dropout" in names or ("noise" in names and rate_attribute(layer) is not None)
    return is_named and not getattr(layer, "weights", ()) and not layers_of(layer, recursive=False)


def _is_active(layer: Layer) -> bool:
    attribute = rate_attribute(layer)
    is_on = attribute is None or float(getattr(layer, attribute)) > 0.0
    return is_on and _is_of_dropout_class(layer)


def calls_dropout(code: CodeType | None) -> bool:
    """Whether a function's code, or a function inside it, names a dropout function."""
    if code is None:
        return False
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return any(name in code.co_names for name in DROPOUT_FUNCTIONS) or any(
        map(calls_dropout, inner)
    )


def rate_attribute(layer: Layer) -> str | None:
    """Return the name of the attribute that holds a dropout's rate. None if there is none."""
    for name in RATE_NAMES:
        value = getattr(layer, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return name
    return None


def _rate_text(layer: Layer) -> tuple[str, Any, bool]:
    """Return a dropout's rate as text, the layer, and whether its rate can be set."""
    attribute = rate_attribute(layer)
    if attribute is None:
        return "rate given in its code", layer, False
    rate = f"{attribute}={number_text(getattr(layer, attribute))}"
    return rate, layer, attribute in vars(layer)


class SwitchedOffDropout:
    """A dropout layer whose rate is about to be set to 0.

    Args:
        dropout: the dropout.
        neighbours: the recurrent layers next to it. They store its rate in a saved model.
    """

    def __init__(self, dropout: ExistingDropout, neighbours: Sequence[Layer]) -> None:
        self.name, self.layer, self.neighbours = dropout.name, dropout.layer, list(neighbours)
        self.attribute = rate_attribute(dropout.layer) or "rate"
        self.rate = vars(dropout.layer)[self.attribute]

    def check(self) -> None:
        """Check nothing, because nothing can be wrong."""

    def switch_off(self) -> None:
        """Set the rate to 0, and store the old rate in the layer and its neighbours."""
        saved = self.attribute, self.rate
        vars(self.layer)[SWITCHED_OFF] = saved
        vars(self.layer)[self.attribute] = 0.0
        for neighbour in self.neighbours:
            others = neighbour.dropouts_taken_over
            vars(neighbour)["dropouts_taken_over"] = {**others, self.name: saved}

    def restore(self) -> None:
        """Give the layer its old rate back."""
        restore_rate(self.layer)


def restore_rate(layer: Layer, saved: Sequence[Any] | None = None) -> None:
    """Give a dropout that a policy switched off its old rate back. Other layers do not change.

    Args:
        layer: the layer.
        saved: the attribute and its value, for a layer that does not store them.
    """
    saved = layer.__dict__.pop(SWITCHED_OFF, saved)
    if saved is not None:
        attribute, rate = saved
        layer.__dict__[attribute] = rate
