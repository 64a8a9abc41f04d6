"""Finding the recurrent layers of a Keras model, and putting a policy on them in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from dropout_policies.adapter import (
    Applied,
    Placement,
    Policy,
    PolicyError,
    RecurrentLayer,
    Site,
    Skipped,
    Touched,
    TouchedEmbedding,
    find_stacks,
    place_layers,
)

from .auditing.probe import Probe
from .embedding import Embedding, take_training
from .kernels.compiled import describe
from .layers import GRU, LSTM, RNN, SimpleRNN, check_cells, native_dropout
from .policy_layer import PolicyLayer
from .recurrence import cells_of, known_cells
from .swapped_layer import POLICY_ATTRIBUTES, RestorableLayer, Traces
from .wiring import Layer, Wiring, halves, layers_of, retrace

SWAPS: dict[type[Layer], Any] = {
    stock: ours
    for ours in (LSTM, GRU, SimpleRNN, RNN)
    for stock in (ours, getattr(keras.layers, ours.__name__))
}
"""Which class takes the place of which. Swapping an instance's `__class__` keeps the layer
object, its variables, their paths and the optimizer's slots what they are."""

EMBEDDINGS: dict[type[Layer], Any] = {keras.layers.Embedding: Embedding, Embedding: Embedding}
"""The same for embeddings, which a policy goes on if it has a rule for them."""

RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
"""The layers that are whole recurrent networks; what is inside them is theirs."""


class KerasAdapter:
    """The Keras side of `dropout_policies.apply`."""

    precedence = 10
    """Above PyTorch's: a Keras model on the torch backend is a `torch.nn.Module` too."""

    def owns(self, model: Any) -> bool:
        return isinstance(model, keras.layers.Layer)

    def apply(
        self,
        model: Layer,
        policy: Policy,
        seed: int | None,
        stacks: Sequence[Sequence[str]] | None,
    ) -> Applied:
        found, skipped = find_layers(model)
        check_layers(model, found, skipped, policy)
        wiring = Wiring(model, found)
        groups = find_stacks(found, wiring.uses(), wiring.unclear(), stacks)
        places = place_layers(policy, groups)
        wiring.check(places)
        skipped += [
            Skipped(
                layer.name, _kind(layer), f"rate={layer.rate:g}; only call knows what it falls on"
            )
            for layer in wiring.beside()
        ]
        embeddings = find_embeddings(model, policy)
        touched = [[_touched(member.item, places[member.item]) for member in row] for row in groups]
        pairs = [(item, half) for item in found for half in halves(item.layer)]
        pairs += [(item, item.layer) for item in embeddings]
        places |= {item: Placement(policy, number) for number, item in enumerate(embeddings)}
        swaps = SWAPS | EMBEDDINGS
        before = [RestorableLayer(item.name, layer, swaps[type(layer)]) for item, layer in pairs]
        for item, layer in pairs:
            put_under_policy(layer, places[item], seed)
        retrace(model)
        also = [TouchedEmbedding(item.name, item.kind) for item in embeddings]
        return Applied(policy, touched, skipped, [*before, Traces(model)], also)

    def under_policy(self, model: Layer) -> dict[str, PolicyLayer]:
        everything = list(dict.fromkeys(layers_of(model)))
        outer = {
            id(half): (layer, way)
            for layer in everything
            if isinstance(layer, keras.layers.Bidirectional)
            for half, way in zip(halves(layer), ("/forward", "/backward"), strict=True)
        }
        noisy = [x for x in everything if isinstance(x, PolicyLayer) and x.placement is not None]
        ends = [outer.get(id(layer), (layer, "")) for layer in noisy]
        whole = list(dict.fromkeys(layer for layer, _ in ends))
        apart = _named_apart([RecurrentLayer(x.name, x, "") for x in whole], everything)
        names = {id(item.layer): item.name for item in apart}
        return {
            f"{names[id(end)]}{way}": layer for layer, (end, way) in zip(noisy, ends, strict=True)
        }

    def random_seed(self) -> int:
        # As every layer of Keras gets its own.
        return int(keras.ops.convert_to_numpy(keras.random.SeedGenerator(name="seed").state)[0])

    def changed(self, model: Layer) -> None:
        retrace(model)

    def probe(self, model: Layer) -> Probe:
        return Probe(model)

    def describe(self) -> dict[str, Any]:
        return describe()


def find_embeddings(model: Layer, policy: Policy) -> list[RecurrentLayer]:
    """The embeddings that a policy goes on: every one, if it has a rule for them."""
    if not policy.masks(Site.EMBEDDING):
        return []
    everything = list(dict.fromkeys(layers_of(model)))
    inside = _inside(everything)
    found = [x for x in everything if type(x) in EMBEDDINGS and id(x) not in inside]
    return _named_apart([RecurrentLayer(x.name, x, _kind(x)) for x in found], everything)


def find_layers(model: Layer) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """The recurrent layers that a policy can go on, and those that it cannot, with the reason."""
    found: list[RecurrentLayer] = []
    skipped: list[Skipped] = []
    everything = list(dict.fromkeys(layers_of(model)))
    inside = _inside(everything)
    for layer in everything:
        why = _why_not(layer)
        if isinstance(layer, keras.layers.TimeDistributed):
            if any(isinstance(inner, RECURRENT) for inner in layers_of(layer)):
                why = "a recurrent layer inside TimeDistributed runs once for every step of another"
                skipped.append(Skipped(layer.name, _kind(layer), why))
        elif id(layer) in inside or not isinstance(layer, RECURRENT):
            continue
        elif why:
            skipped.append(Skipped(layer.name, _kind(layer), why))
        else:
            count = len(cells_of(halves(layer)[0]))
            found.append(RecurrentLayer(layer.name, layer, _kind(layer), count))
    return _named_apart(found, everything), skipped


def _inside(everything: Sequence[Layer]) -> set[int]:
    """What belongs to a recurrent layer, and is not looked at on its own."""
    return {
        id(inner)
        for outer in everything
        if isinstance(outer, (*RECURRENT, keras.layers.TimeDistributed))
        for inner in layers_of(outer)
        if inner is not outer
    }


def _named_apart(found: list[RecurrentLayer], everything: Sequence[Layer]) -> list[RecurrentLayer]:
    """Layers of one name in several models get their model's name before their own."""
    names = Counter(item.name for item in found)
    models = [layer for layer in everything if isinstance(layer, keras.Model)]

    def name(item: RecurrentLayer) -> str:
        holders = [m.name for m in models if any(item.layer is inner for inner in m.layers)]
        return "/".join([*holders[-1:], item.name]) if names[item.name] > 1 else item.name

    return [replace(item, name=name(item)) for item in found]


def _why_not(layer: Layer) -> str:
    """Why a policy cannot go on a recurrent layer, or ""."""
    kinds = [type(half) for half in halves(layer)]
    if all(kind in SWAPS for kind in kinds):
        return ""
    theirs = [kind for kind in kinds if not kind.__module__.startswith("keras.")]
    if any(issubclass(kind, tuple(SWAPS)) for kind in theirs):
        return "a subclass; derive it from dropout_policies_keras's instead"
    return "policies run on LSTM, GRU, SimpleRNN and RNN"


def check_layers(
    model: Layer, found: Sequence[RecurrentLayer], skipped: Sequence[Skipped], policy: Policy
) -> None:
    """Everything that can be wrong, before anything is changed."""
    if not found:
        others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
        raise PolicyError(
            f"{model.name} has no recurrent layer that policy {policy.name!r} can go on "
            f"(keras.layers' LSTM, GRU, SimpleRNN and RNN, alone or in Bidirectional). "
            f"{f'It has {others}.' if others else ''}"
        )
    for layer in dict.fromkeys(layers_of(model)):
        placed = layer.placement if isinstance(layer, PolicyLayer) else None
        if placed is None or (isinstance(layer, Embedding) and not policy.masks(Site.EMBEDDING)):
            continue
        raise PolicyError(
            f"{layer.name} ({_kind(layer)}) is under policy {placed.policy.name!r} already. "
            f"Call remove() on what apply returned, or make the layer without a policy, "
            f"before applying {policy.name!r}."
        )
    for item in found:
        for half in halves(item.layer):
            check_cells(half, policy, f"{item.name} ({item.kind})")


def put_under_policy(layer: Layer, placement: Placement, seed: int | None) -> None:
    """Swap a layer's class, and put it under a policy."""
    for name in POLICY_ATTRIBUTES:
        layer.__dict__.pop(name, None)
    layer.__class__ = (SWAPS | EMBEDDINGS)[type(layer)]
    if isinstance(layer, Embedding):
        take_training(layer)
    known = known_cells(layer)
    generically = any(cell.recurrent_dropout > 0.0 for cell in known)
    for cell in known:
        cell.dropout = cell.recurrent_dropout = 0.0
    layer.set_placement(placement, seed)
    if generically:
        layer.loops_generically = True


def native(layer: Layer) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    taken = dict.fromkeys(native_dropout(half) for half in halves(layer))
    return ", ".join(filter(None, taken))


def _touched(item: RecurrentLayer, placement: Placement) -> Touched:
    return Touched(item.name, item.kind, item.layers, placement, native(item.layer))


def _kind(layer: Layer) -> str:
    kind = type(layer)
    package, _, _ = kind.__module__.partition(".")
    where = {"keras": "keras.layers", __package__: package}.get(package, kind.__module__)
    inner = f"({type(layer.forward_layer).__name__})" if len(halves(layer)) == 2 else ""
    return f"{where}.{kind.__qualname__}{inner}"


ADAPTER = KerasAdapter()
