"""The calls of a sequential or functional model as a graph, if they can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

Layer = Any
Value = Any
"""A value of a graph. Only its identity matters."""


@dataclass(frozen=True)
class GraphCall:
    """One call of a layer or operation in a graph.

    Args:
        layer: the layer or operation.
        args: the positional arguments, with the graph's values among them.
        kwargs: the keyword arguments.
        outputs: the values that the call returns.
    """

    layer: Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]


@dataclass(frozen=True)
class Graph:
    """The calls of a model, in an order in which they can run.

    Args:
        inputs: the values that enter the model.
        calls: the calls, without those of input layers.
        outputs: the values that leave the model.
    """

    inputs: list[Value]
    calls: list[GraphCall]
    outputs: list[Value]


def graph_of(model: Layer) -> Graph | None:
    """Read the graph of a model. None for a layer, and for a model with its own `call`."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return _graph_of_row(model.layers)
    if isinstance(model, keras.Function) and not _has_own_call(model):
        return _graph_of_nodes(model)
    return None


def _has_own_call(model: Layer) -> bool:
    """Whether the class of a functional model is a user's and overrides `call`."""
    return not type(model).call.__module__.startswith("keras.")


def _graph_of_row(layers: list[Layer]) -> Graph:
    values = [_RowValue() for _ in range(len(layers) + 1)]
    calls = [
        GraphCall(layer, (values[number],), {}, [values[number + 1]])
        for number, layer in enumerate(layers)
    ]
    return Graph(values[:1], calls, values[-1:])


class _RowValue:
    """The value that goes from one layer of a row to the next."""


def _graph_of_nodes(model: Layer) -> Graph:
    # Private, because the public get_config fails if a layer has no config, and it says less. The
    # nodes hold the actual arguments of every call.
    by_depth = model._nodes_by_depth
    calls = [
        GraphCall(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    return Graph(list(model._inputs), calls, list(model._outputs))


def values_in(arguments: Any) -> list[Value]:
    """Find the values of a graph in a structure of arguments."""
    flat = keras.tree.flatten(arguments)
    return [each for each in flat if isinstance(each, keras.KerasTensor | _RowValue)]
