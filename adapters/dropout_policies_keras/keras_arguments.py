"""The types of the arguments of Keras's layers; Keras itself has none to check against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

Activation = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a function, or a function's config; None applies no activation."""

Initializer = str | Callable[..., Any] | Mapping[str, Any] | None
"""A name, an initializer, or its config."""

Regularizer = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a regularizer, or its config; None adds no penalty."""

Constraint = str | Callable[[Any], Any] | Mapping[str, Any] | None
"""A name, a constraint, or its config; None leaves the weight free."""


class LayerArguments(TypedDict, total=False):
    """What every layer of Keras takes by keyword."""

    name: str | None
    trainable: bool
    dtype: Any
    autocast: bool


class EmbeddingArguments(LayerArguments, total=False):
    """What `keras.layers.Embedding` takes by keyword, in addition to those that it lists."""

    activity_regularizer: Regularizer


class RNNArguments(LayerArguments, total=False):
    """What `keras.layers.RNN` takes by keyword, in addition to those that it lists."""

    activity_regularizer: Regularizer


class SimpleRNNArguments(LayerArguments, total=False):
    """What `keras.layers.SimpleRNN` takes by keyword, in addition to those that it lists."""

    zero_output_for_mask: bool


class GatedArguments(SimpleRNNArguments, total=False):
    """What `keras.layers.LSTM` and `GRU` take by keyword, in addition to those that they list."""

    implementation: int


class CellArguments(LayerArguments, total=False):
    """What `keras.layers.LSTMCell` and `GRUCell` take by keyword, in addition to those that they
    list."""

    implementation: int
