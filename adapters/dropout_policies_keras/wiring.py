"""What can be seen of how a Keras model's recurrent layers feed one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import keras

from dropout_policies.errors import PolicyError
from dropout_policies.plan import Placement
from dropout_policies.stacks import Found, Use

from .graph import Frame, Ref, frames, graph_of

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

    def __init__(self, model: Layer, found: Sequence[Found]) -> None:
        self.model = model
        self.by_id = {id(item.layer): item for item in found}
        self.frames = list(frames(list(dict.fromkeys(layers_of(model)))))

    def uses(self) -> list[Use]:
        """Where layers run in sequential and functional models, and what comes into them there,
        through layers without weights."""
        made: dict[tuple[Frame, Ref], Use] = {}

        def use(frame: Frame, ref: Ref) -> Use:
            if (frame, ref) not in made:
                reached, _ = self._up(frame, ref)
                item = self.by_id[id(frame.graph.layers[ref.name])]
                made[frame, ref] = Use(item, [use(*source) for source in reached])
            return made[frame, ref]

        for frame in self.frames:
            for ref in frame.graph.sources:
                if id(frame.graph.layers.get(ref.name)) in self.by_id:
                    use(frame, ref)
        return list(made.values())

    def unclear(self) -> Iterator[tuple[Found, Found]]:
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

    def check(self, places: Mapping[Found, Placement]) -> None:
        """A policy must not meet a dropout layer on a connection that it masks.

        Raises:
            PolicyError: it does; the message names both layers.
        """
        for frame in self.frames:
            for ref in frame.graph.sources:
                layer = frame.graph.layers.get(ref.name)
                reached, passed = self._up(frame, ref)
                item = self.by_id.get(id(layer))
                if item is not None and passed and places[item].masks(1, leaving=False):
                    raise PolicyError(_clash(item, passed[0], places[item]))
                for source, name in reached if drops(layer) else ():
                    item = self.by_id[id(source.graph.layers[name.name])]
                    if places[item].masks(1, leaving=True):
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

    def _ends(self, layer: Layer) -> tuple[Found, Found] | None:
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


def _fits(a: Found, b: Found) -> bool:
    first, second = halves(a.layer), halves(b.layer)
    if not first[0].return_sequences:
        return False
    joined = len(first) == 2 and a.layer.merge_mode == "concat"
    width = first[0].units * (2 if joined else 1)
    # A layer that is not built yet takes whatever width comes.
    return not second[0].built or bool(second[0].cell.kernel.shape[0] == width)


def _clash(item: Found, other: Layer, placement: Placement) -> str:
    return (
        f"{item.name} ({item.kind}) stands beside {other.name} ({type(other).__name__}, rate "
        f"{float(other.rate):g}): policy {placement.policy.name!r} would mask the same connection "
        f"a second time. Remove that layer, or set its rate to 0, first."
    )
