"""The calls of a sequential or functional model as a graph, as far as they can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

Layer = Any
Value = Any
"""A value of a graph, known by its identity alone."""


@dataclass(frozen=True)
class GraphCall:
    """One call of a layer or operation in a graph.

    Args:
        layer: the layer or operation.
        args: its arguments, with the values among them.
        kwargs: those by keyword.
        outputs: the values that it gives.
    """

    layer: Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]


@dataclass(frozen=True)
class Graph:
    """The calls of a model in an order in which they can run.

    Args:
        inputs: the values that come into the model.
        calls: its calls, inputs left out.
        outputs: the values that leave it.
    """

    inputs: list[Value]
    calls: list[GraphCall]
    outputs: list[Value]


def graph_of(model: Layer) -> Graph | None:
    """A model's graph; None for a layer, and for a model with a `call` of its own."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return _graph_of_row(model.layers)
    if isinstance(model, keras.Function) and not _has_own_call(model):
        return _graph_of_nodes(model)
    return None


def _has_own_call(model: Layer) -> bool:
    """Whether a functional model is of a user's class that runs something else, or something
    around it, in its `call`."""
    return not type(model).call.__module__.startswith("keras.")


def _graph_of_row(layers: list[Layer]) -> Graph:
    values = [_RowValue() for _ in range(len(layers) + 1)]
    calls = [
        GraphCall(layer, (values[number],), {}, [values[number + 1]])
        for number, layer in enumerate(layers)
    ]
    return Graph(values[:1], calls, values[-1:])


class _RowValue:
    """What goes from one layer of a row to the next."""


def _graph_of_nodes(model: Layer) -> Graph:
    # Private, because get_config, the public way, fails where one layer has no config, and says
    # less: the nodes hold the very arguments of every call.
    by_depth = model._nodes_by_depth
    calls = [
        GraphCall(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    return Graph(list(model._inputs), calls, list(model._outputs))


def values_in(arguments: Any) -> list[Value]:
    """The values of a graph in a structure of arguments."""
    flat = keras.tree.flatten(arguments)
    return [each for each in flat if isinstance(each, keras.KerasTensor | _RowValue)]
