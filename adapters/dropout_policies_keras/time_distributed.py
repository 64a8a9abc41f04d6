"""A drop-in `keras.layers.TimeDistributed` whose embedding drops the same word types at all
steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import SwappedLayer

from .embedding import Embedding
from .model_layers import Layer
from .tracing import Tensor


@keras.saving.register_keras_serializable(package="dropout_policies")
class TimeDistributed(keras.layers.TimeDistributed):  # type: ignore[misc]
    """A drop-in `keras.layers.TimeDistributed` for an embedding under a policy.

    Keras's class calls its layer once for each step, so that each call would drop different word
    types. When masks apply, this class looks up all words in one call. With any other layer, it
    works like Keras's class.

    Args:
        layer: the layer that runs at each step.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer.

    Raises:
        PolicyError: see `Embedding.call`.
        ValueError: Keras does not know or accept an argument.
    """

    layer: Any

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Run the layer at each step.

        Args:
            inputs: the inputs of the steps, `[B, T, ...]`; for an embedding, tokens `[B, T, W]`.
            training: whether the call is in training mode.
            mask: which steps are not padding, `[B, T]`, for a layer that takes a mask.

        Returns:
            `[B, T, ...]`; for an embedding, rows `[B, T, W, F]`.

        Raises:
            PolicyError: see `Embedding.call`.
        """
        embedding = embedding_in(self)
        if not isinstance(embedding, Embedding) or not embedding.is_active(bool(training)):
            return super().call(inputs, training=training, mask=mask)
        batch, *others = ops.shape(inputs)
        tokens = ops.reshape(inputs, (batch, math.prod(others)))
        rows = embedding.call(tokens, training=bool(training))
        # This makes a new tensor: Keras's wrapper returns none with an embedding's padding mask.
        return ops.reshape(rows, (batch, *others, ops.shape(rows)[-1]))


class SwappedTimeDistributed(SwappedLayer):
    """The state of a `TimeDistributed` around an embedding, to swap its class and restore it.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.name, layer, TimeDistributed)

    def swap(self) -> None:
        """Make it call the embedding once."""
        self.layer.__class__ = self.swapped

    def restore(self) -> None:
        """Make it what it was before."""
        self.layer.__class__ = self.kind


def embedding_in(layer: Layer) -> Layer | None:
    """Return the embedding that one or several nested `TimeDistributed` run at each step.

    None if they run another layer.
    """
    while isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    return layer if isinstance(layer, keras.layers.Embedding) else None


def wrappers_of(embeddings: Sequence[Layer], all_layers: Sequence[Layer]) -> list[Layer]:
    """Return the `TimeDistributed` layers that run one of these embeddings."""
    ids = {id(embedding) for embedding in embeddings}
    wrappers = [x for x in all_layers if isinstance(x, keras.layers.TimeDistributed)]
    return [x for x in wrappers if id(embedding_in(x)) in ids]


def unwrap(layer: Layer) -> None:
    """Give a `TimeDistributed` its Keras class back. It must be for an embedding whose policy is
    gone."""
    if type(layer) is TimeDistributed:
        layer.__class__ = keras.layers.TimeDistributed
