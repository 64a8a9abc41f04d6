"""The calls of a sequential or functional model, and of the models inside it, as a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import keras

Layer = Any


class Ref(NamedTuple):
    """One call of a layer in a model: the layer's name, and the number of the call."""

    name: str
    call: int


@dataclass(frozen=True)
class Graph:
    """What a model shows of its wiring.

    Args:
        layers: its layers and operations by name.
        sources: for each call, the calls that its input comes from; of a recurrent layer's
            arguments the first one alone. A source that is no layer is the model's own input.
        outputs: the calls that the model's output comes from.
    """

    layers: dict[str, Layer]
    sources: dict[Ref, list[Ref]]
    outputs: list[Ref]


@dataclass(eq=False)
class Frame:
    """One place in which a model runs: its graph, where it was called, and the models inside."""

    graph: Graph
    outer: tuple[Frame, Ref] | None = None
    inner: dict[Ref, Frame] = field(default_factory=dict)


def frames(layers: Sequence[Layer]) -> Iterator[Frame]:
    """Every model that can be seen into among some layers, in every place in which it runs."""
    graphs = {id(layer): graph for layer in layers if (graph := graph_of(layer)) is not None}
    nested = {id(part) for graph in graphs.values() for part in graph.layers.values()}

    def opened(graph: Graph, outer: tuple[Frame, Ref] | None) -> Iterator[Frame]:
        frame = Frame(graph, outer)
        yield frame
        for ref in graph.sources:
            inside = graphs.get(id(graph.layers.get(ref.name)))
            if inside is not None:
                first, *others = opened(inside, (frame, ref))
                frame.inner[ref] = first
                yield from (first, *others)

    for layer, graph in graphs.items():
        if layer not in nested:
            yield from opened(graph, None)


def graph_of(model: Layer) -> Graph | None:
    """A model's graph; None for a layer, and for a model with a `call` of its own."""
    if isinstance(model, keras.Sequential):
        refs = [Ref(layer.name, 0) for layer in model.layers]
        before = {b: [a] for a, b in pairwise(refs)}
        sources = {ref: before.get(ref, [Ref("", 0)]) for ref in refs}
        return Graph({layer.name: layer for layer in model.layers}, sources, refs[-1:])
    if not isinstance(model, keras.Function):
        return None
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return None  # a layer that cannot be described; then neither can the graph
    if "layers" not in config:
        return None
    layers = {operation.name: operation for operation in model.operations}
    sources = {}
    for entry in config["layers"]:
        recurrent = isinstance(
            layers.get(entry["name"]), keras.layers.RNN | keras.layers.Bidirectional
        )
        for call, node in enumerate(entry["inbound_nodes"]):
            given: Any = (node["args"], node["kwargs"])
            if recurrent:
                given = node["args"][:1] or node["kwargs"].get("sequences")
            sources[Ref(entry["name"], call)] = list(dict.fromkeys(_histories(given)))
    return Graph(layers, sources, list(_outputs(config["output_layers"])))


def _histories(value: Any) -> Iterator[Ref]:
    """The calls whose outputs stand in a serialized argument."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield Ref(*value["keras_history"][:2])
        for inner in value.values():
            yield from _histories(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _histories(inner)


def _outputs(value: Any) -> Iterator[Ref]:
    """The calls in `output_layers`: [name, call, tensor], alone or in a structure of them."""
    if isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str):
        yield Ref(value[0], value[1])
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _outputs(inner)
