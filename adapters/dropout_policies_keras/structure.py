"""How the recurrent layers of a Keras model feed one another, as far as that can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import keras

from dropout_policies.adapter import (
    LayerUse,
    Placement,
    PolicyError,
    RecurrentLayer,
)

from .functional_graph import Frame, LayerCall, find_frames, graph_of
from .policy_cells import CELL_TYPES
from .policy_layer import PolicyLayer

Layer = Any
"""A `keras.layers.Layer`; Keras has no types to check against."""

DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
)


def layers_of(parent: Layer, recursive: bool = True) -> list[Layer]:
    """The layers inside a layer or model, at every depth or at the first."""
    # Private, because the public `layers` exists on models only, and a layer of the user's own
    # may hold recurrent layers too.
    return list(parent._flatten_layers(include_self=recursive, recursive=recursive))


def directions_of(layer: Layer) -> list[Layer]:
    """The layer itself, or both directions of a `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


class Wiring:
    """How the recurrent layers of a model feed one another.

    Args:
        model: the model.
        found: its recurrent layers.
    """

    def __init__(self, model: Layer, found: Sequence[RecurrentLayer]) -> None:
        self.model = model
        self.by_id = {id(item.layer): item for item in found}
        self.frames = list(find_frames(list(dict.fromkeys(layers_of(model)))))

    def find_uses(self) -> list[LayerUse]:
        """Where layers run in sequential and functional models, and which layers feed them there,
        through layers without weights."""
        uses: dict[tuple[Frame, LayerCall], LayerUse] = {}

        def use_at(frame: Frame, call: LayerCall) -> LayerUse:
            if (frame, call) not in uses:
                feeding, _ = self._find_feeding(frame, call)
                item = self.by_id[id(frame.graph.layers[call.name])]
                uses[frame, call] = LayerUse(item, [use_at(*source) for source in feeding])
            return uses[frame, call]

        for frame in self.frames:
            for call in frame.graph.sources:
                if id(frame.graph.layers.get(call.name)) in self.by_id:
                    use_at(frame, call)
        return list(uses.values())

    def find_ambiguous_pairs(self) -> Iterator[tuple[RecurrentLayer, RecurrentLayer]]:
        """Pairs of layers whose widths match in a model or layer with a `call` of its own, which
        alone knows whether the first feeds the second."""
        for parent in self._parents_with_own_call():
            inner = layers_of(parent, recursive=False)
            ends = [each for layer in inner if (each := self._first_and_last(layer)) is not None]
            order = sorted(permutations(range(len(ends)), 2), key=lambda ij: ij[0] > ij[1])
            for i, j in order:
                before, after = ends[i][1], ends[j][0]
                if before is not after and _widths_match(before, after):
                    yield before, after

    def check_adjacent_dropouts(self, places: Mapping[RecurrentLayer, Placement]) -> None:
        """Make sure that no dropout layer falls on a connection that a policy masks.

        Args:
            places: each layer's placement.

        Raises:
            PolicyError: one does; the message names both layers.
        """
        for frame in self.frames:
            for call in frame.graph.sources:
                layer = frame.graph.layers.get(call.name)
                feeding, dropouts = self._find_feeding(frame, call)
                item = self.by_id.get(id(layer))
                if item is not None and dropouts and places[item].masks_input(item.layers):
                    raise PolicyError(_clash_message(item, dropouts[0], places[item]))
                for source_frame, source in feeding if is_dropout(layer) else ():
                    item = self.by_id[id(source_frame.graph.layers[source.name])]
                    if places[item].masks_output(item.layers):
                        raise PolicyError(_clash_message(item, layer, places[item]))

    def adjacent_dropouts(self) -> Iterator[Layer]:
        """Dropout layers next to a recurrent one in a model or layer with a `call` of its own,
        which alone knows what they fall on."""
        for parent in self._parents_with_own_call():
            inner = layers_of(parent, recursive=False)
            if any(self._first_and_last(layer) is not None for layer in inner):
                yield from (layer for layer in inner if is_dropout(layer))

    def _parents_with_own_call(self) -> Iterator[Layer]:
        for parent in dict.fromkeys(layers_of(self.model)):
            is_recurrent = isinstance(parent, keras.layers.RNN | keras.layers.Bidirectional)
            if id(parent) not in self.by_id and not is_recurrent and graph_of(parent) is None:
                yield parent

    def _first_and_last(self, layer: Layer) -> tuple[RecurrentLayer, RecurrentLayer] | None:
        """The first and the last recurrent layer of a layer that is one, of a model whose graph
        can be read, or of a layer that has one and no other weights."""
        if id(layer) in self.by_id:
            return self.by_id[id(layer)], self.by_id[id(layer)]
        inner = [self.by_id[id(part)] for part in layers_of(layer) if id(part) in self.by_id]
        if inner and graph_of(layer) is None:
            own = {id(weight) for weight in inner[0].layer.weights}
            has_no_others = {id(weight) for weight in layer.weights} == own
            return (inner[0], inner[0]) if len(inner) == 1 and has_no_others else None
        return (inner[0], inner[-1]) if inner else None

    def _find_feeding(
        self, frame: Frame, call: LayerCall
    ) -> tuple[list[tuple[Frame, LayerCall]], list[Layer]]:
        """The recurrent layers that feed a call, directly or through layers without weights.

        Returns:
            The calls of those layers, and the dropout layers on the way.
        """
        feeding: list[tuple[Frame, LayerCall]] = []
        dropouts: list[Layer] = []
        visited: set[tuple[Frame, LayerCall]] = set()
        queue = [(frame, source) for source in frame.graph.sources[call]]
        while queue:
            place = queue.pop(0)
            if place in visited:
                continue
            visited.add(place)
            at, source = place
            layer = at.graph.layers.get(source.name)
            if layer is None or isinstance(layer, keras.layers.InputLayer):
                if at.outer is not None:
                    outer, outer_call = at.outer
                    queue += [(outer, further) for further in outer.graph.sources[outer_call]]
            elif id(layer) in self.by_id:
                feeding.append(place)
            elif source in at.inner:
                queue += [(at.inner[source], last) for last in at.inner[source].graph.outputs]
            elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
                dropouts += [layer] * is_dropout(layer)
                queue += [(at, further) for further in at.graph.sources.get(source, ())]
        return feeding, dropouts


def is_dropout(layer: Layer) -> bool:
    """Whether a layer is one of Keras's dropout or noise layers, with a rate above 0."""
    return isinstance(layer, DROPOUTS) and float(layer.rate) > 0.0


def retrace(model: Layer) -> None:
    """Make compiled models trace their steps again: after a change, the old traces are wrong."""
    for inner in layers_of(model):
        if isinstance(inner, keras.Model):
            # At once for a step that is traced already: a running `fit` calls it again.
            for step in ("train", "test", "predict"):
                if getattr(inner, f"{step}_function", None) is not None:
                    getattr(inner, f"make_{step}_function")(force=True)


def find_producers(tensor: Any) -> list[Any]:
    """The recurrent policy layers whose output a symbolic tensor is, directly or through layers
    without weights.

    Raises:
        PolicyError: an active dropout layer stands between, or a layer inside `Bidirectional`
            would mask the connection too.
    """
    producers: list[Any] = []
    dropouts: list[Layer] = []
    queue = [tensor] if isinstance(tensor, keras.KerasTensor) else []
    while queue:
        # Private, because nothing public says where a tensor comes from before there is a model.
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
                    f"feeds, and both would mask the connection. Say where each stands: "
                    f"{type(forward).__name__}(..., stack=(0, 2)) inside, and stack=(1, 2) for the "
                    f"next."
                )
        elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
            dropouts += [layer] * is_dropout(layer)
            queue += layer._inbound_nodes[node].input_tensors
    if producers and dropouts:
        raise PolicyError(
            f"{dropouts[0].name} ({type(dropouts[0]).__name__}, rate {float(dropouts[0].rate):g}) "
            f"stands between {producers[0].name} and another layer under a policy, which would "
            f"mask the same connection a second time. Leave it out."
        )
    return list(dict.fromkeys(producers))


def _is_policy_layer(layer: Layer) -> bool:
    return isinstance(layer, PolicyLayer) and isinstance(layer, keras.layers.RNN)


def _widths_match(before: RecurrentLayer, after: RecurrentLayer) -> bool:
    first, second = directions_of(before.layer), directions_of(after.layer)
    if not first[0].return_sequences:
        return False
    is_doubled = len(first) == 2 and before.layer.merge_mode == "concat"
    shape = first[0].compute_output_shape((None, None, None))
    width = (shape[0] if first[0].return_state else shape)[-1] * (2 if is_doubled else 1)
    input_width = _input_width(second[0])
    return input_width is None or bool(input_width == width)


def _input_width(layer: Layer) -> int | None:
    """The width of a recurrent layer's input; None if it takes any, or if only a user's own cell
    knows."""
    cell = layer.cell
    first = cell.cells[0] if isinstance(cell, keras.layers.StackedRNNCells) else cell
    is_known = type(first) in CELL_TYPES and first.built
    return first.kernel.shape[0] if is_known else None


def _clash_message(item: RecurrentLayer, dropout: Layer, placement: Placement) -> str:
    return (
        f"{item.name} ({item.kind}) stands beside {dropout.name} ({type(dropout).__name__}, rate "
        f"{float(dropout.rate):g}): policy {placement.policy.name!r} would mask the same "
        f"connection a second time. Remove that layer, or set its rate to 0, first."
    )
