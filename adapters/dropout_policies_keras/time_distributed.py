"""A drop-in for `keras.layers.TimeDistributed` whose embedding drops the same word types in all
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

    Keras's calls its layer once for each step, and each call would drop other word types. Under
    masks this one looks all words up in one call. With any other layer it is Keras's.

    Args:
        layer: the layer that it runs at each step.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as every layer of Keras takes them.

    Raises:
        PolicyError: see `Embedding.call`.
        ValueError: an argument that Keras does not know or accept.
    """

    layer: Any

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """What the layer gives at each step.

        Args:
            inputs: the steps' inputs, `[B, T, ...]`; of an embedding, tokens `[B, T, W]`.
            training: whether the call is in training.
            mask: which steps are no padding, `[B, T]`, for a layer that takes it.

        Returns:
            `[B, T, ...]`; of an embedding, rows `[B, T, W, F]`.

        Raises:
            PolicyError: see `Embedding.call`.
        """
        embedding = embedding_in(self)
        if not isinstance(embedding, Embedding) or not embedding.is_active(bool(training)):
            return super().call(inputs, training=training, mask=mask)
        batch, *others = ops.shape(inputs)
        tokens = ops.reshape(inputs, (batch, math.prod(others)))
        rows = embedding.call(tokens, training=bool(training))
        # In a new tensor: Keras's wrapper gives none with an embedding's own mask of padding.
        return ops.reshape(rows, (batch, *others, ops.shape(rows)[-1]))


class SwappedTimeDistributed(SwappedLayer):
    """A `TimeDistributed` around an embedding, as it is now.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.name, layer, TimeDistributed)

    def swap(self) -> None:
        """Have it call the embedding once."""
        self.layer.__class__ = self.swapped

    def restore(self) -> None:
        """Make it what it was."""
        self.layer.__class__ = self.kind


def embedding_in(layer: Layer) -> Layer | None:
    """The embedding that `TimeDistributed`, or several around each other, run at each step; None if
    it is another layer."""
    while isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    return layer if isinstance(layer, keras.layers.Embedding) else None


def wrappers_of(embeddings: Sequence[Layer], all_layers: Sequence[Layer]) -> list[Layer]:
    """Each `TimeDistributed` that runs one of some embeddings."""
    ids = {id(embedding) for embedding in embeddings}
    wrappers = [x for x in all_layers if isinstance(x, keras.layers.TimeDistributed)]
    return [x for x in wrappers if id(embedding_in(x)) in ids]


def unwrap(layer: Layer) -> None:
    """Make a layer Keras's again if it is a `TimeDistributed` for an embedding whose policy is
    gone."""
    if type(layer) is TimeDistributed:
        layer.__class__ = keras.layers.TimeDistributed
