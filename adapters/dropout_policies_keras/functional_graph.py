"""The calls of a sequential or functional model, and of the models inside it, as a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import keras

Layer = Any


class LayerCall(NamedTuple):
    """One call of a layer in a model: the layer's name, and the number of the call."""

    name: str
    number: int


@dataclass(frozen=True)
class Graph:
    """The calls of a model, as far as they can be read.

    Args:
        layers: its layers and operations by name.
        sources: for each call, the calls whose outputs it takes; of a recurrent layer's arguments
            the first one alone. A source that is no layer is the model's own input.
        outputs: the calls that return the model's output.
    """

    layers: dict[str, Layer]
    sources: dict[LayerCall, list[LayerCall]]
    outputs: list[LayerCall]


@dataclass(eq=False)
class Frame:
    """One place in which a model runs: its graph, where it was called, and the models inside."""

    graph: Graph
    outer: tuple[Frame, LayerCall] | None = None
    inner: dict[LayerCall, Frame] = field(default_factory=dict)


def find_frames(layers: Sequence[Layer]) -> Iterator[Frame]:
    """Every model among some layers whose graph can be read, in every place in which it runs."""
    graphs = {id(layer): graph for layer in layers if (graph := graph_of(layer)) is not None}
    nested = {id(part) for graph in graphs.values() for part in graph.layers.values()}

    def expand(graph: Graph, outer: tuple[Frame, LayerCall] | None) -> Iterator[Frame]:
        frame = Frame(graph, outer)
        yield frame
        for call in graph.sources:
            inside = graphs.get(id(graph.layers.get(call.name)))
            if inside is not None:
                first, *others = expand(inside, (frame, call))
                frame.inner[call] = first
                yield from (first, *others)

    for model_id, graph in graphs.items():
        if model_id not in nested:
            yield from expand(graph, None)


def graph_of(model: Layer) -> Graph | None:
    """A model's graph; None for a layer, and for a model with a `call` of its own."""
    if isinstance(model, keras.Sequential):
        calls = [LayerCall(layer.name, 0) for layer in model.layers]
        previous = {b: [a] for a, b in pairwise(calls)}
        sources = {call: previous.get(call, [LayerCall("", 0)]) for call in calls}
        return Graph({layer.name: layer for layer in model.layers}, sources, calls[-1:])
    if not isinstance(model, keras.Function):
        return None
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return None  # a layer without a config; then the model has none either
    if "layers" not in config:
        return None
    layers = {operation.name: operation for operation in model.operations}
    sources = {}
    for entry in config["layers"]:
        is_recurrent = isinstance(
            layers.get(entry["name"]), keras.layers.RNN | keras.layers.Bidirectional
        )
        for number, node in enumerate(entry["inbound_nodes"]):
            arguments: Any = (node["args"], node["kwargs"])
            if is_recurrent:
                arguments = node["args"][:1] or node["kwargs"].get("sequences")
            sources[LayerCall(entry["name"], number)] = list(
                dict.fromkeys(_calls_in_argument(arguments))
            )
    return Graph(layers, sources, list(_calls_in_outputs(config["output_layers"])))


def _calls_in_argument(value: Any) -> Iterator[LayerCall]:
    """The calls whose outputs stand in a serialized argument."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield LayerCall(*value["keras_history"][:2])
        for inner in value.values():
            yield from _calls_in_argument(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _calls_in_argument(inner)


def _calls_in_outputs(value: Any) -> Iterator[LayerCall]:
    """The calls in `output_layers`: [name, call, tensor], alone or in a structure of them."""
    if isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str):
        yield LayerCall(value[0], value[1])
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _calls_in_outputs(inner)
