"""What can be seen of how a Keras model's recurrent layers feed one another."""

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

from .cells import TYPES
from .functional_graph import Frame, Ref, frames, graph_of
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


def halves(layer: Layer) -> list[Layer]:
    """The layer itself, or both directions of a `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


class Wiring:
    """How the recurrent layers that were found in a model are joined."""

    def __init__(self, model: Layer, found: Sequence[RecurrentLayer]) -> None:
        self.model = model
        self.by_id = {id(item.layer): item for item in found}
        self.frames = list(frames(list(dict.fromkeys(layers_of(model)))))

    def uses(self) -> list[LayerUse]:
        """Where layers run in sequential and functional models, and what comes into them there,
        through layers without weights."""
        made: dict[tuple[Frame, Ref], LayerUse] = {}

        def use(frame: Frame, ref: Ref) -> LayerUse:
            if (frame, ref) not in made:
                reached, _ = self._up(frame, ref)
                item = self.by_id[id(frame.graph.layers[ref.name])]
                made[frame, ref] = LayerUse(item, [use(*source) for source in reached])
            return made[frame, ref]

        for frame in self.frames:
            for ref in frame.graph.sources:
                if id(frame.graph.layers.get(ref.name)) in self.by_id:
                    use(frame, ref)
        return list(made.values())

    def unclear(self) -> Iterator[tuple[RecurrentLayer, RecurrentLayer]]:
        """Pairs of fitting width in a model or layer of which only its `call` knows how they are
        joined."""
        for parent in self._opaque():
            inner = layers_of(parent, recursive=False)
            ends = [end for layer in inner if (end := self._ends(layer)) is not None]
            order = sorted(permutations(range(len(ends)), 2), key=lambda ij: ij[0] > ij[1])
            for i, j in order:
                before, after = ends[i][1], ends[j][0]
                if before is not after and _fits(before, after):
                    yield before, after

    def check(self, places: Mapping[RecurrentLayer, Placement]) -> None:
        """A policy must not meet a dropout layer on a connection that it masks.

        Raises:
            PolicyError: it does; the message names both layers.
        """
        for frame in self.frames:
            for ref in frame.graph.sources:
                layer = frame.graph.layers.get(ref.name)
                reached, passed = self._up(frame, ref)
                item = self.by_id.get(id(layer))
                if item is not None and passed and places[item].masks_input(item.layers):
                    raise PolicyError(_clash(item, passed[0], places[item]))
                for source, name in reached if drops(layer) else ():
                    item = self.by_id[id(source.graph.layers[name.name])]
                    if places[item].masks_output(item.layers):
                        raise PolicyError(_clash(item, layer, places[item]))

    def beside(self) -> Iterator[Layer]:
        """Dropout layers beside a recurrent one of which only a `call` knows what they fall on."""
        for parent in self._opaque():
            inner = layers_of(parent, recursive=False)
            if any(self._ends(layer) is not None for layer in inner):
                yield from (layer for layer in inner if drops(layer))

    def _opaque(self) -> Iterator[Layer]:
        for parent in dict.fromkeys(layers_of(self.model)):
            recurrent = isinstance(parent, keras.layers.RNN | keras.layers.Bidirectional)
            if id(parent) not in self.by_id and not recurrent and graph_of(parent) is None:
                yield parent

    def _ends(self, layer: Layer) -> tuple[RecurrentLayer, RecurrentLayer] | None:
        """The first and the last recurrent layer of a layer that is one, of a model whose wiring
        can be seen, or of a layer that has one and no other weights."""
        if id(layer) in self.by_id:
            return self.by_id[id(layer)], self.by_id[id(layer)]
        inner = [self.by_id[id(part)] for part in layers_of(layer) if id(part) in self.by_id]
        if inner and graph_of(layer) is None:
            alone = {id(w) for w in layer.weights} == {id(w) for w in inner[0].layer.weights}
            return (inner[0], inner[0]) if len(inner) == 1 and alone else None
        return (inner[0], inner[-1]) if inner else None

    def _up(self, frame: Frame, ref: Ref) -> tuple[list[tuple[Frame, Ref]], list[Layer]]:
        """Against the flow from a call, past layers without weights, to recurrent layers.

        Returns:
            The calls of recurrent layers that are reached, and the dropout layers passed.
        """
        reached: list[tuple[Frame, Ref]] = []
        passed: list[Layer] = []
        seen: set[tuple[Frame, Ref]] = set()
        ahead = [(frame, source) for source in frame.graph.sources[ref]]
        while ahead:
            here = ahead.pop(0)
            if here in seen:
                continue
            seen.add(here)
            at, source = here
            layer = at.graph.layers.get(source.name)
            if layer is None or isinstance(layer, keras.layers.InputLayer):
                if at.outer is not None:
                    outer, call = at.outer
                    ahead += [(outer, further) for further in outer.graph.sources[call]]
            elif id(layer) in self.by_id:
                reached.append(here)
            elif source in at.inner:
                ahead += [(at.inner[source], last) for last in at.inner[source].graph.outputs]
            elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
                passed += [layer] * drops(layer)
                ahead += [(at, further) for further in at.graph.sources.get(source, ())]
        return reached, passed


def drops(layer: Layer) -> bool:
    """Whether a layer is one of Keras's dropout or noise layers, with a rate above 0."""
    return isinstance(layer, DROPOUTS) and float(layer.rate) > 0.0


def retrace(model: Layer) -> None:
    """Have compiled models trace their steps anew; what they traced knows nothing of a change."""
    for inner in layers_of(model):
        if isinstance(inner, keras.Model):
            # Made anew at once where there was one: a fit that is running calls it again.
            for kind in ("train", "test", "predict"):
                if getattr(inner, f"{kind}_function", None) is not None:
                    getattr(inner, f"make_{kind}_function")(force=True)


def producers(tensor: Any) -> list[Any]:
    """The recurrent policy layers that a symbolic tensor comes out of, through layers without
    weights.

    Raises:
        PolicyError: one of the layers that are passed is an active dropout layer.
    """
    found: list[Any] = []
    passed: list[Layer] = []
    ahead = [tensor] if isinstance(tensor, keras.KerasTensor) else []
    while ahead:
        # Private, because nothing public tells where a tensor comes from before there is a model.
        history = getattr(ahead.pop(), "_keras_history", None)
        if history is None:
            continue
        layer, node, _ = history
        if _is_ours(layer):
            found += [layer] * (layer.placement is not None and layer.return_sequences)
        elif _is_ours(half := halves(layer)[0]):
            if half.placement is not None and half.placement.masks_output(half.layers):
                raise PolicyError(
                    f"{layer.name}: a layer inside Bidirectional does not join the one that it "
                    f"feeds, and both would mask the connection. Say where each stands: "
                    f"{type(half).__name__}(..., stack=(0, 2)) inside, and stack=(1, 2) for the "
                    f"next."
                )
        elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
            passed += [layer] * drops(layer)
            ahead += layer._inbound_nodes[node].input_tensors
    if found and passed:
        raise PolicyError(
            f"{passed[0].name} ({type(passed[0]).__name__}, rate {float(passed[0].rate):g}) stands "
            f"between {found[0].name} and another layer under a policy, which would mask the same "
            f"connection a second time. Leave it out."
        )
    return list(dict.fromkeys(found))


def _is_ours(layer: Layer) -> bool:
    return isinstance(layer, PolicyLayer) and isinstance(layer, keras.layers.RNN)


def _fits(a: RecurrentLayer, b: RecurrentLayer) -> bool:
    first, second = halves(a.layer), halves(b.layer)
    if not first[0].return_sequences:
        return False
    joined = len(first) == 2 and a.layer.merge_mode == "concat"
    width = first[0].compute_output_shape((None, None, None))
    width = (width[0] if first[0].return_state else width)[-1] * (2 if joined else 1)
    taken = _width(second[0])
    return taken is None or bool(taken == width)


def _width(layer: Layer) -> int | None:
    """The width of what a recurrent layer takes in; None if it takes whatever comes, or if only
    a cell of the user's own knows."""
    cell = layer.cell
    first = cell.cells[0] if isinstance(cell, keras.layers.StackedRNNCells) else cell
    known = type(first) in TYPES and first.built
    return first.kernel.shape[0] if known else None


def _clash(item: RecurrentLayer, other: Layer, placement: Placement) -> str:
    return (
        f"{item.name} ({item.kind}) stands beside {other.name} ({type(other).__name__}, rate "
        f"{float(other.rate):g}): policy {placement.policy.name!r} would mask the same connection "
        f"a second time. Remove that layer, or set its rate to 0, first."
    )
