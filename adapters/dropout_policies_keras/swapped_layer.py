"""The state of a layer before a policy, and how to restore it."""

from __future__ import annotations

import gc
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import SwappedLayer

from . import policy_layer, recurrent_layer
from .embedding import CALL_SIGNATURE, update_call_signature
from .layer_cells import cells_of, keras_cells
from .model_layers import Layer, layers_of
from .policy_cells import restore_cell
from .saving_warnings import update_saving_warnings

POLICY_ATTRIBUTES = (*policy_layer.POLICY_ATTRIBUTES, *recurrent_layer.POLICY_ATTRIBUTES)
"""The attributes that a policy adds to a layer."""


class RestorableLayer(SwappedLayer):
    """The current state of a layer, or of one direction of a `Bidirectional`, to restore later.

    Args:
        name: the layer's name in the model.
        layer: the layer.
        swapped: the class that it is about to get.
    """

    def __init__(self, name: str, layer: Layer, swapped: type[Layer]) -> None:
        super().__init__(name, layer, swapped)
        self.cells = [
            (type(cell), cell.dropout, cell.recurrent_dropout) for cell in keras_cells(layer)
        ]
        generator = _current_generator(layer)
        self.state = None if generator is None else ops.convert_to_numpy(generator.state).copy()
        names = (*POLICY_ATTRIBUTES, *CALL_SIGNATURE)
        self.attributes = {name: vars(layer)[name] for name in names if name in vars(layer)}

    def restore(self) -> None:
        """Restore the state of the layer."""
        layer = self.layer
        layer.__class__ = self.kind
        for name in POLICY_ATTRIBUTES:
            layer.__dict__.pop(name, None)
        for cell, before in zip(keras_cells(layer), self.cells, strict=True):
            restore_cell(cell, *before)
        layer.__dict__.update(self.attributes)
        if self.state is not None:
            _current_generator(layer).state.assign(self.state)


def _current_generator(layer: Layer) -> Any:
    """Return the generator of a policy's masks that exists before the policy.

    It is that of the first cell, or one that an earlier policy added. None if there is none.
    """
    if "_mask_generator" in vars(layer):
        return vars(layer)["_mask_generator"]
    first = keras_cells(layer)[:1]
    return next((cell.seed_generator for cell in first if cell is cells_of(layer)[0]), None)


def take_off(layer: Layer) -> None:
    """Take the policy off a layer.

    The layer is then as it was before `apply`. If it was created with the policy, it becomes the
    stock layer. A user's class that is derived from ours keeps its class, without a policy.
    """
    before = vars(layer).get("_before_policy")
    if before is not None:
        before.restore()
        return
    if isinstance(layer, recurrent_layer.CudnnRecurrent):
        layer.__dict__.setdefault(
            "use_cudnn", "auto"
        )  # ours is a property, the stock layer's is not
    cells = keras_cells(layer)
    rates = vars(layer).get("native_rates") or [(0.0, 0.0)] * len(cells)
    layer.remove_generator()
    for name in POLICY_ATTRIBUTES:
        layer.__dict__.pop(name, None)
    for cell, native in zip(cells, rates, strict=True):
        restore_cell(cell, getattr(type(cell), "stock", type(cell)), *native)
    if type(layer).__module__.partition(".")[0] == __name__.partition(".")[0]:
        layer.__class__ = next(
            cls for cls in type(layer).__mro__ if cls.__module__.startswith("keras.")
        )
        if isinstance(layer, keras.layers.Embedding):
            update_call_signature(layer)


def update_models(model: Layer) -> None:
    """Update every model that runs layers of a model after these have changed.

    Its traced functions are wrong now, and its warnings on saving may be wrong too.

    Args:
        model: a model or a layer.
    """
    changed = {id(layer) for layer in layers_of(model)}
    models = {id(each): each for each in (model, *_live_models())}
    for each in models.values():
        if not any(id(layer) in changed for layer in layers_of(each)):
            continue
        update_saving_warnings(each)
        # Traced functions are made again at once, because a running `fit` calls them again.
        for step in ("train", "test", "predict"):
            if getattr(each, f"{step}_function", None) is not None:
                getattr(each, f"make_{step}_function")(force=True)


def _live_models() -> list[Layer]:
    """Return every model in this process. A layer does not know which models it is in."""
    return [
        value
        for value in gc.get_objects()
        # This avoids isinstance, which would resolve proxies, and skips half-made models.
        if issubclass(type(value), keras.Model) and hasattr(value, "_layers")
    ]


class ModelsToUpdate:
    """The models that run a model's layers. They must be updated after every change.

    Args:
        model: the model.
    """

    def __init__(self, model: Layer) -> None:
        self.model = model

    def check(self) -> None:
        """Check nothing, because nothing can be wrong."""

    def restore(self) -> None:
        """Update the models."""
        update_models(self.model)
