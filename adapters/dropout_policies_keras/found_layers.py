"""Finding the layers of a model that can take a policy, and those that cannot, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras

from dropout_policies.adapter import RecurrentLayer, Skipped

from .layer_cells import cells_of
from .model_layers import (
    RECURRENT_LAYERS,
    Layer,
    directions_of,
    ids_inside,
    kind_of,
    layers_of,
    unique_names,
)
from .policy_cells import is_cell
from .policy_classes import has_own_call, reason_to_skip
from .time_distributed import TimeDistributed, embedding_in, wrappers_of


def find_embeddings(model: Layer) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """Find the embeddings that can take a policy, and those that cannot, with the reason."""
    all_layers = layers_of(model)
    inside = ids_inside(all_layers, RECURRENT_LAYERS)
    every = [x for x in all_layers if isinstance(x, keras.layers.Embedding) and id(x) not in inside]
    reasons = {id(x): reason_to_skip(x) or _reason_of_wrappers(x, all_layers) for x in every}
    skipped = [Skipped(x.name, kind_of(x), why) for x in every if (why := reasons[id(x)])]
    named = _named([x for x in every if not reasons[id(x)]], all_layers)
    return [replace(item, name=_name_inside(item, all_layers)) for item in named], skipped


def _name_inside(embedding: RecurrentLayer, all_layers: Sequence[Layer]) -> str:
    """Join the names of the `TimeDistributed` layers that run an embedding and its own name.

    The embedding's own name is often one that Keras generated.
    """
    wrappers = wrappers_of([embedding.layer], all_layers)
    return "/".join([*(wrapper.name for wrapper in wrappers), embedding.name])


def _reason_of_wrappers(embedding: Layer, all_layers: Sequence[Layer]) -> str:
    """Explain why an embedding in `TimeDistributed` can take no policy. "" if it can take one."""
    wrappers = [x for x in all_layers if isinstance(x, keras.layers.TimeDistributed)]
    for wrapper in wrappers:
        if all(embedding is not inner for inner in layers_of(wrapper)):
            continue
        if embedding_in(wrapper) is not embedding:
            return (
                f"it is inside a layer that {wrapper.name} (TimeDistributed) runs once for every "
                f"step, and each would drop other words; put the embedding before {wrapper.name}"
            )
        is_own = type(wrapper) not in (keras.layers.TimeDistributed, TimeDistributed)
        if is_own or has_own_call(embedding):
            whose = f"the class of {wrapper.name}" if is_own else "its call"
            return (
                f"{whose} is of your own, and {wrapper.name} (TimeDistributed) runs the embedding "
                f"once for every step, which would drop other words; call the embedding itself on "
                f"all steps"
            )
    return ""


def find_layers(model: Layer) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """Find the recurrent layers that can take a policy, and those that cannot, with the reason."""
    found: list[Layer] = []
    skipped: list[Skipped] = []
    all_layers = layers_of(model)
    inside = ids_inside(all_layers, (*RECURRENT_LAYERS, keras.layers.TimeDistributed))
    for layer in all_layers:
        reason = _reason_to_skip(layer) if id(layer) not in inside else None
        if reason:
            skipped.append(Skipped(layer.name, kind_of(layer), reason))
        elif reason is not None:
            found.append(layer)
    return _named(found, all_layers), skipped


def _named(found: Sequence[Layer], all_layers: Sequence[Layer]) -> list[RecurrentLayer]:
    return [
        RecurrentLayer(name, layer, kind_of(layer), _count_layers(layer))
        for name, layer in zip(unique_names(found, all_layers), found, strict=True)
    ]


def _count_layers(layer: Layer) -> int:
    return len(cells_of(directions_of(layer)[0])) if isinstance(layer, RECURRENT_LAYERS) else 1


def _reason_to_skip(layer: Layer) -> str | None:
    """Explain why a recurrent layer can take no policy. "" if it can, None for another layer."""
    if isinstance(layer, RECURRENT_LAYERS):
        return next(filter(None, map(reason_to_skip, directions_of(layer))), "")
    if isinstance(layer, keras.layers.TimeDistributed):
        inner = any(isinstance(each, RECURRENT_LAYERS) for each in layers_of(layer))
        reason = "a recurrent layer inside TimeDistributed runs once for every step of another"
        return reason if inner else None
    if is_cell(layer):
        return reason_to_skip(layer)
    if isinstance(layer, keras.layers.StackedRNNCells):
        return None  # its cells are separate layers
    if hasattr(layer, "state_size"):
        return (
            "a cell of your own that your code calls step by step cannot have a policy; run it "
            "in keras.layers.RNN, which can"
        )
    return None
