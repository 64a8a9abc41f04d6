"""What the structure of a Keras model shows of how its recurrent layers feed one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import keras

from dropout_policies.adapter import (
    NOWHERE,
    DropoutCall,
    ExistingDropout,
    LayerCall,
    Origin,
    PolicyError,
    RecurrentLayer,
    Wiring,
    as_dropout_use,
    as_layer_uses,
    consume,
    note_uses,
    union,
)

from ..layer_cells import cells_of
from ..model_layers import Layer, directions_of, layers_of
from ..policy_cells import is_cell, is_convolutional, is_keras_cell
from ..policy_layer import PolicyLayer
from .call_arguments import count_outputs, returns_sequences, sequence_and_state
from .existing_dropout import active_dropout, find_dropouts
from .functional_graph import Graph, GraphCall, Value, graph_of, values_in


def read_wiring(model: Layer, found: Sequence[RecurrentLayer]) -> Wiring:
    """Read from a model's structure how its recurrent layers are connected.

    Args:
        model: the model.
        found: its recurrent layers.
    """
    dropouts = find_dropouts(model, found)
    reader = GraphReader(found, dropouts)
    for root in _outermost_graphs(model):
        reader.read(root, is_whole=root is model)
    parents = parents_with_own_call(model, found)
    in_code = {id(layer) for parent in parents for layer in layers_of(parent, recursive=False)}
    placed = [
        call
        for call in reader.dropout_calls
        if id(call.dropout.layer) not in in_code and call not in reader.open_calls
    ]
    is_placed = {call.dropout for call in placed}
    pairs = list(dict.fromkeys([*reader.pairs, *_pairs_in_code(parents, found)]))
    uses, _ = as_layer_uses(reader.layer_calls)
    return Wiring(
        found,
        uses,
        [as_dropout_use(call) for call in placed],
        [d for d in dict.fromkeys(dropouts.values()) if d not in is_placed],
        [pair for pair in pairs if _widths_match(*pair)],
        [pair for pair in pairs if _may_be_widened(*pair)],
    )


def is_fully_read(model: Layer, found: Sequence[RecurrentLayer]) -> bool:
    """Whether a model's structure shows everything.

    It does if no recurrent layer or dropout is in a layer with its own `call`, and if there is no
    layer of user code without weights, which might mask its input.
    """
    dropouts = find_dropouts(model, found)
    own = [x for x in layers_of(model) if _is_code_alone(x) and id(x) not in dropouts]
    return not own and not any(
        id(inner) in dropouts or any(inner is item.layer for item in found)
        for parent in parents_with_own_call(model, found)
        for inner in layers_of(parent)
    )


def _is_code_alone(layer: Layer) -> bool:
    """Whether a layer consists only of a user's code, without weights."""
    is_kerass = type(layer).__module__.startswith("keras.")
    is_own = not is_kerass or isinstance(layer, keras.layers.Lambda)
    return is_own and not layer.weights and graph_of(layer) is None


def _outermost_graphs(model: Layer) -> list[Layer]:
    """Return the models with a readable graph that are not inside another such model."""
    graphs = {id(x): graph for x in layers_of(model) if (graph := graph_of(x)) is not None}
    inside = {id(call.layer) for graph in graphs.values() for call in graph.calls}
    return [x for x in layers_of(model) if id(x) in graphs and id(x) not in inside]


def parents_with_own_call(model: Layer, found: Sequence[RecurrentLayer]) -> list[Layer]:
    """Return the layers and models that contain others, and whose code alone shows the calls."""
    known = {id(item.layer) for item in found}
    known |= {id(each) for item in found for each in directions_of(item.layer)}
    wrappers = keras.layers.RNN | keras.layers.Bidirectional | keras.layers.TimeDistributed
    return [
        parent
        for parent in layers_of(model)
        if id(parent) not in known and not isinstance(parent, wrappers)
        if graph_of(parent) is None and layers_of(parent, recursive=False)
    ]


class GraphReader:
    """Follows values through the graphs of functional and sequential models.

    Args:
        found: the recurrent layers.
        dropouts: the active dropout layers, by their ids.
    """

    def __init__(
        self, found: Sequence[RecurrentLayer], dropouts: Mapping[int, ExistingDropout]
    ) -> None:
        self.items = {id(item.layer): item for item in found}
        self.dropouts = dropouts
        self.layer_calls: list[LayerCall] = []
        self.dropout_calls: list[DropoutCall] = []
        self.open_calls: set[DropoutCall] = set()
        """The dropouts at an end of a graph, where only code shows what comes next."""
        self.pairs: list[tuple[RecurrentLayer, RecurrentLayer]] = []
        """The pairs for which only a layer's code shows whether the first feeds the second."""

    def read(self, model: Layer, is_whole: bool) -> None:
        """Follow values through a model.

        Args:
            model: a model with a readable graph.
            is_whole: whether it is the whole model, and not a part of a model with unseen code.
        """
        graph = graph_of(model)
        assert graph is not None
        outside = DropoutCall(ExistingDropout("", "", ""), NOWHERE)
        begin = NOWHERE if is_whole else Origin(dropouts=frozenset({outside}))
        first = len(self.dropout_calls)
        leaving = self._run(graph, [begin] * len(graph.inputs))
        consume(union(leaving))
        if is_whole:
            return
        at_end = union(leaving).dropouts
        for call in self.dropout_calls[first:]:
            has_neighbour = call.inputs.outputs or call.inputs.states or call.comes_into
            if not has_neighbour and (outside in call.inputs.dropouts or call in at_end):
                self.open_calls.add(call)

    def _run(self, graph: Graph, inputs: Sequence[Origin]) -> list[Origin]:
        """Follow values through a graph, and return the origins of its outputs."""
        known: dict[int, Origin] = {
            id(value): origin for value, origin in zip(graph.inputs, inputs, strict=True)
        }

        def origins(arguments: Any) -> list[Origin]:
            return [known.get(id(value), NOWHERE) for value in values_in(arguments)]

        for call in graph.calls:
            kwargs = {name: value for name, value in call.kwargs.items() if name != "mask"}
            given = origins((call.args, kwargs))
            for value, origin in self._call(call, given, origins):
                known[id(value)] = origin
        return [known.get(id(value), NOWHERE) for value in graph.outputs]

    def _call(
        self, call: GraphCall, given: list[Origin], origins: Any
    ) -> Iterator[tuple[Value, Origin]]:
        """Yield the outputs of one call with their origins."""
        layer, together = call.layer, union(given)
        inner = graph_of(layer)
        if id(layer) in self.items:
            sequence, state = sequence_and_state(call.args, call.kwargs)
            yield from self._see_layer(call, union(origins(sequence)), union(origins(state)))
        elif id(layer) in self.dropouts:
            dropout = DropoutCall(self.dropouts[id(layer)], together)
            self.dropout_calls.append(dropout)
            after = together | Origin(dropouts=frozenset({dropout}))
            yield from ((value, after) for value in call.outputs)
        elif inner is not None:
            same = len(given) == len(inner.inputs)
            leaving = self._run(inner, given if same else [together] * len(inner.inputs))
            yield from zip(call.outputs, leaving, strict=True)
        elif getattr(layer, "weights", None) or not getattr(layer, "built", True):
            consume(together)
            after = self._see_code(layer, together)
            yield from ((value, after) for value in call.outputs)
        else:
            yield from ((value, together) for value in call.outputs)

    def _see_layer(
        self, call: GraphCall, inputs: Origin, state: Origin
    ) -> Iterator[tuple[Value, Origin]]:
        item = self.items[id(call.layer)]
        made = LayerCall(item, None, inputs, state)
        self.layer_calls.append(made)
        note_uses(made)
        self.pairs += [(before, item) for before in inputs.hidden]
        count, mine = count_outputs(call.layer), frozenset({made})
        for number, value in enumerate(call.outputs):
            yield value, Origin(outputs=mine) if number < count else Origin(states=mine)

    def _see_code(self, layer: Layer, inputs: Origin) -> Origin:
        """Return the origin of the output of a layer that only its code describes."""
        ends = _first_and_last(layer, self.items)
        if ends is None:
            return NOWHERE
        before = {call.item: None for call in inputs.outputs} | dict.fromkeys(inputs.hidden)
        self.pairs += [(each, ends[0]) for each in before]
        return Origin(hidden=frozenset({ends[1]}))


def _pairs_in_code(
    parents: Sequence[Layer], found: Sequence[RecurrentLayer]
) -> Iterator[tuple[RecurrentLayer, RecurrentLayer]]:
    """Find pairs of layers in a model or layer with its own `call`.

    Only that code shows whether the first feeds the second. Pairs in the order in which the layers
    were written come first.
    """
    by_id = {id(item.layer): item for item in found}
    for parent in parents:
        inner = layers_of(parent, recursive=False)
        ends = [each for layer in inner if (each := _first_and_last(layer, by_id)) is not None]
        order = sorted(permutations(range(len(ends)), 2), key=lambda ij: ij[0] > ij[1])
        for i, j in order:
            before, after = ends[i][1], ends[j][0]
            if before is not after:
                yield before, after


def _first_and_last(
    layer: Layer, by_id: Mapping[int, RecurrentLayer]
) -> tuple[RecurrentLayer, RecurrentLayer] | None:
    """Find the first and the last recurrent layer of a layer.

    The layer may be such a layer, a model with a readable graph, or a layer with a single recurrent
    layer and no other weights. None for any other layer.
    """
    if id(layer) in by_id:
        return by_id[id(layer)], by_id[id(layer)]
    inner = [by_id[id(part)] for part in layers_of(layer) if id(part) in by_id]
    if inner and graph_of(layer) is None:
        own = {id(weight) for weight in inner[0].layer.weights}
        has_no_others = {id(weight) for weight in layer.weights} == own
        return (inner[0], inner[0]) if len(inner) == 1 and has_no_others else None
    return (inner[0], inner[-1]) if inner else None


def find_producers(tensor: Any) -> list[Any]:
    """Find the recurrent policy layers whose output a symbolic tensor is.

    Layers without weights may stand in between.

    Raises:
        PolicyError: an active dropout layer stands in between, or a layer inside `Bidirectional`
            would also mask the connection.
    """
    producers: list[Any] = []
    dropouts: list[ExistingDropout] = []
    queue = [tensor] if isinstance(tensor, keras.KerasTensor) else []
    while queue:
        # Private, because no public API tells where a tensor comes from before there is a model.
        history = getattr(queue.pop(), "_keras_history", None)
        if history is None:
            continue
        layer, node, _ = history
        if _is_policy_layer(layer):
            producers += [layer] * (layer.placement is not None and layer.return_sequences)
        elif _is_policy_layer(forward := directions_of(layer)[0]):
            if forward.placement is not None and forward.placement.masks_output(forward.layers):
                raise PolicyError(
                    f"{layer.name}: a layer inside Bidirectional does not join the one that it "
                    "feeds, and both would mask the connection. Give each its place in a stack: "
                    f"{type(forward).__name__}(..., stack=(0, 2)) inside, and stack=(1, 2) for "
                    "the next."
                )
        elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
            dropout = active_dropout(layer)
            dropouts += [] if dropout is None else [dropout]
            queue += layer._inbound_nodes[node].input_tensors
    if producers and dropouts:
        raise PolicyError(
            f"{dropouts[0]} is between {producers[0].name} and another layer under a policy, "
            "which would mask the same connection a second time. Leave it out."
        )
    return list(dict.fromkeys(producers))


def _is_policy_layer(layer: Layer) -> bool:
    return isinstance(layer, PolicyLayer) and isinstance(layer, keras.layers.RNN)


def _widths_match(before: RecurrentLayer, after: RecurrentLayer) -> bool:
    """Whether one layer could feed another directly."""
    if not returns_sequences(before.layer):
        return False
    width = _input_width(after.layer)
    return width is None or width == _output_width(before.layer)


def _may_be_widened(before: RecurrentLayer, after: RecurrentLayer) -> bool:
    """Whether one layer could feed another together with other values."""
    width = _input_width(after.layer)
    return (
        returns_sequences(before.layer)
        and width is not None
        and _output_width(before.layer) < width
    )


def _output_width(layer: Layer) -> int:
    if is_cell(layer):
        return int(layer.units)
    first = directions_of(layer)
    doubled = 2 if len(first) == 2 and layer.merge_mode == "concat" else 1
    cell = cells_of(first[0])[-1]
    if is_convolutional(cell):
        return int(cell.filters) * doubled
    shape = first[0].compute_output_shape((None, None, None))
    return int((shape[0] if first[0].return_state else shape)[-1]) * doubled


def _input_width(layer: Layer) -> int | None:
    """Return the width of a recurrent layer's input.

    None if the layer is not built, or if its cell is a user's own.
    """
    first = cells_of(directions_of(layer)[0])[0]
    is_known = (first is layer or is_keras_cell(first)) and first.built
    return int(first.kernel.shape[-2]) if is_known else None
