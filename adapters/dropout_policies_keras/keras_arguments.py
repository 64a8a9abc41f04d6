"""Types for the arguments of Keras's layers, because Keras declares none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

Activation = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a function, or a function's config. None: no activation."""

Initializer = str | Callable[..., Any] | Mapping[str, Any] | None
"""A name, an initializer, or its config."""

Regularizer = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a regularizer, or its config. None: no penalty."""

Constraint = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a constraint, or its config. None: no constraint."""


class LayerArguments(TypedDict, total=False):
    """The keyword arguments of every Keras layer."""

    name: str | None
    trainable: bool
    dtype: Any
    autocast: bool


class EmbeddingArguments(LayerArguments, total=False):
    """The keyword arguments that `keras.layers.Embedding` takes but does not list."""

    activity_regularizer: Regularizer


class RNNArguments(LayerArguments, total=False):
    """The keyword arguments that `keras.layers.RNN` takes but does not list."""

    activity_regularizer: Regularizer


class SimpleRNNArguments(LayerArguments, total=False):
    """The keyword arguments that `keras.layers.SimpleRNN` takes but does not list."""

    zero_output_for_mask: bool


class GatedArguments(SimpleRNNArguments, total=False):
    """The keyword arguments that `keras.layers.LSTM` and `GRU` take but do not list."""

    implementation: int


class CellArguments(LayerArguments, total=False):
    """The keyword arguments that `keras.layers.LSTMCell` and `GRUCell` take but do not list."""

    implementation: int
