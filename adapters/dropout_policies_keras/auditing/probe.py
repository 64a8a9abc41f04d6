"""Runs a Keras layer or model under audit with other weights, and repeatedly with the same noise.

During the audit, every layer returns sequences, and a softmax at the end is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dropout_policies.adapter import (
    INITIAL_STATE,
    Array,
    Parameter,
    PolicyError,
    no_matrices_error,
    number_text,
)

from ..layers import Recurrent
from ..model_layers import Layer, layers_of
from ..model_wiring.model_state import capture_state, restore_state
from .calling import call_layer, find_sequence_input, with_zero_states
from .matrices import as_matrices, find_spatial_axes
from .parts import RecurrentPart

SETTINGS: dict[type, dict[str, Any]] = {
    keras.layers.RNN: {"return_sequences": True, "stateful": False},
    keras.layers.Bidirectional: {"return_sequences": True, "stateful": False},
    # Small signals do not show in probabilities.
    keras.layers.Softmax: {"call": lambda inputs, **_: inputs},
}
"""The attributes of layers during the audit, by class. A layer without the attribute gets none."""

PROBABILITIES = (keras.activations.softmax, keras.activations.log_softmax)
"""The activations that are skipped during the audit."""

FROM_CLASS = object()
"""A marker for an attribute that a layer has only from its class."""


class Probe:
    """The Keras implementation of `dropout_policies.adapter.Probe`.

    Raises:
        PolicyError: the layer is not built, has no weight matrix, more than one embedding, a
            Masking layer, or inputs that the audit does not know.
    """

    takes_states: bool

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.name = _title(layer)
        if not layer.built:
            raise PolicyError(
                f"{self.name} is not built, and has no weights yet. Build it first, for instance "
                f"by calling it on a batch."
            )
        layers = list(dict.fromkeys(layers_of(layer)))
        embeddings = [part for part in layers if isinstance(part, keras.layers.Embedding)]
        if len(embeddings) > 1:
            raise PolicyError(
                f"{self.name} has {len(embeddings)} embeddings, and the audit can pass tokens to "
                "one only. Give it the recurrent layer alone."
            )
        weights = as_matrices(layer.weights, layers)
        self._weights = {f"{w.variable.path}#{number}": w for number, w in enumerate(weights)}
        matrices = (w for name, w in self._weights.items() if not INITIAL_STATE.search(name))
        first = next((w for w in matrices if len(w.shape) == 2), None)
        if first is None:
            raise no_matrices_error(self.name, any(len(w.shape) > 2 for w in layer.weights))
        self._axes = find_spatial_axes(layers)
        self.embedding: Parameter | None = None
        self.features = int(first.shape[0])
        if embeddings:
            matrix = embeddings[0].embeddings
            name = next(n for n, w in self._weights.items() if w.variable is matrix)
            self.embedding = Parameter(name, tuple(matrix.shape), False)
            self.features = int(matrix.shape[1])
        # The first token may stand for padding, which passes nothing on.
        self._first_token = int(any(embedding.mask_zero for embedding in embeddings))
        if any(isinstance(part, keras.layers.Masking) for part in layers):
            raise PolicyError(
                f"{self.name} has a Masking layer, which would take most of the audit's input for "
                "padding. Give it the model without that, or the recurrent layer alone."
            )
        rank = 2 if embeddings else 3 + len(self._axes.sizes)
        self._sequence_input = find_sequence_input(layer, self.name, rank)
        self.takes_states = isinstance(layer, keras.layers.RNN)
        self._written: dict[str, Array] = {}
        self._models: dict[tuple[bool, int], keras.Model] = {}

    def __enter__(self) -> Probe:
        layers = list(dict.fromkeys(layers_of(self.layer)))
        changes = [
            (layer, name, value)
            for layer in layers
            for kind, settings in SETTINGS.items()
            for name, value in settings.items()
            if isinstance(layer, kind) and hasattr(layer, name)
        ]
        changes += [
            (layer, "activation", keras.activations.linear)
            for layer in layers
            if getattr(layer, "activation", None) in PROBABILITIES
        ]
        self._attributes = [
            (layer, name, vars(layer).get(name, FROM_CLASS)) for layer, name, _ in changes
        ]
        self._initial_noise = capture_state(self._variables())
        self._values: dict[str, Array] = {
            name: weight.read() for name, weight in self._weights.items()
        }
        for layer, name, value in changes:
            object.__setattr__(layer, name, value)
        return self

    def __exit__(self, *error: object) -> None:
        for layer, name, value in self._attributes:
            if value is FROM_CLASS:
                object.__delattr__(layer, name)
            else:
                object.__setattr__(layer, name, value)
        restore_state(self._initial_noise)

    def _variables(self) -> list[keras.Variable]:
        return list({id(v): v for v in (*self.layer.weights, *self.layer.variables)}.values())

    def parameters(self) -> list[Parameter]:
        return [
            Parameter(name, weight.shape, True)
            for name, weight in self._weights.items()
            if self.embedding is None or name != self.embedding.name
        ]

    def own(self, name: str) -> Array:
        return self._values[name]

    def run(
        self,
        weights: Mapping[str, Array],
        x: Array,
        batch: int,
        states: Sequence[Array] | None,
        training: bool,
    ) -> Array:
        for name, value in weights.items():
            if self._written.get(name) is not value:
                self._weights[name].write(value)
                self._written[name] = value
        if self.embedding is None:
            same = np.repeat(x[None], batch, axis=0)
            inputs = self._axes.spread(same, self._axes.sizes).astype(np.float32)
        else:
            rows, tokens = np.unique(x, axis=0, return_inverse=True)
            matrix = self._weights[self.embedding.name].variable
            first, end = self._first_token, self._first_token + len(rows)
            if end > matrix.shape[0]:
                raise PolicyError(f"{self.name} knows fewer tokens than the audit needs.")
            table = ops.convert_to_numpy(matrix.value).copy()
            table[first:end] = rows
            matrix.assign(table)
            self._written.pop(self.embedding.name, None)
            inputs = np.repeat(first + tokens.reshape(1, -1), batch, axis=0)
        cells = range(len(states[0])) if states else ()
        state = [
            self._axes.spread(part[cell], self._axes.of_states).astype(np.float32)
            for cell in cells
            for part in states or ()
        ]
        key = (training, len(state))
        if key not in self._models:
            self._models[key] = _ModeModel(self.layer, training, self._sequence_input)
        result = self._models[key].predict_on_batch([inputs, *state] if state else inputs)
        outputs = [np.asarray(part) for part in keras.tree.flatten(result)]
        for y in outputs:
            if y.ndim == 3 + len(self._axes.sizes) and y.shape[:2] == (batch, len(x)):
                return self._axes.first_position(y).swapaxes(0, 1).astype(np.float64)
        raise PolicyError(
            f"{self.name} does not return an output for every step, which the audit needs. "
            f"Received: outputs {', '.join(str(y.shape) for y in outputs)} for {batch} samples of "
            f"{len(x)} steps. Give it the recurrent layer alone."
        )

    def noise(self) -> Any:
        weights = {id(weight) for weight in self.layer.weights}
        return capture_state(v for v in self._variables() if id(v) not in weights)

    def replay(self, noise: Any) -> None:
        restore_state(noise)


class _ModeModel(keras.Model):  # type: ignore[misc] # keras has no types
    """A model that always runs a layer in one mode.

    Its `predict_on_batch` compiles the layer as Keras does, and carries its random state on.
    """

    def __init__(self, inner: Layer, in_training: bool, sequence_input: int) -> None:
        super().__init__(name="audited")
        self.inner, self.in_training = inner, in_training
        self.sequence_input = sequence_input

    def call(self, inputs: Any) -> Any:
        for layer in layers_of(self.inner):
            # Keras resets the masks of a layer's only cell, but not those of stacked cells.
            if hasattr(layer, "reset_dropout_mask"):
                layer.reset_dropout_mask()
                layer.reset_recurrent_dropout_mask()
        x, *states = inputs if isinstance(inputs, list | tuple) else [inputs]
        if isinstance(self.inner, keras.Model) and getattr(self.inner, "inputs", None):
            # If it were called as a layer, it would insist on the T that it was built for.
            inputs = with_zero_states(self.inner, x, self.sequence_input)
            return self.inner.call(inputs, training=self.in_training)
        if not states:
            return call_layer(self.inner, x, self.in_training)
        return self.inner(x, initial_state=states, training=self.in_training)


def _title(layer: Layer) -> str:
    """Return the class, and for a recurrent layer the arguments that matter here."""
    layer = layer.layer if isinstance(layer, RecurrentPart) else layer
    arguments = []
    if isinstance(layer, keras.layers.Bidirectional):
        return f"Bidirectional({_title(layer.forward_layer)})"
    for name in ("units", "filters", "dropout", "recurrent_dropout"):
        value = getattr(layer, name, None) if isinstance(layer, keras.layers.RNN) else None
        if isinstance(value, int | float) and value:
            sized = name in ("units", "filters")
            arguments.append(f"{value}" if sized else f"{name}={number_text(value)}")
    if isinstance(layer, Recurrent) and layer.placement is not None:
        arguments.append(f"policy={layer.placement.policy.name!r}")
    return f"{type(layer).__name__}({', '.join(arguments)})"
