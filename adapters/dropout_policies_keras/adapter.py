"""Finding the recurrent layers of a Keras model, and putting a policy on them in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from dropout_policies.adapter import (
    Applied,
    ApplyRequest,
    Placement,
    Policy,
    PolicyError,
    RecurrentLayer,
    Site,
    Skipped,
    Touched,
    TouchedEmbedding,
    check_rates_are_used,
    find_stacks,
    place_layers,
)

from .auditing.probe import Probe
from .embedding import Embedding, update_call_signature
from .kernels.compiled import describe
from .layer_cells import cells_of, check_cells, keras_cells, native_dropout, sites_of_cells
from .layers import GRU, LSTM, RNN, SimpleRNN
from .policy_layer import PolicyLayer
from .structure import Layer, Wiring, directions_of, layers_of, retrace
from .swapped_layer import POLICY_ATTRIBUTES, RestorableLayer, TracedFunctions, take_off

SWAPS: dict[type[Layer], Any] = {
    stock: ours
    for ours in (LSTM, GRU, SimpleRNN, RNN)
    for stock in (ours, getattr(keras.layers, ours.__name__))
}
"""Which class takes the place of which. Swapping an instance's `__class__` keeps the layer
object, its variables, their paths and the optimizer's slots what they are."""

EMBEDDINGS: dict[type[Layer], Any] = {keras.layers.Embedding: Embedding, Embedding: Embedding}
"""The same for embeddings, which a policy goes on if it has a rule for them."""

RECURRENT_LAYERS = (keras.layers.RNN, keras.layers.Bidirectional)
"""The layers that are whole recurrent networks; the layers inside them are their own."""


class KerasAdapter:
    """The Keras side of `dropout_policies.apply`."""

    precedence = 10
    """Above PyTorch's: a Keras model on the torch backend is a `torch.nn.Module` too."""

    def owns(self, model: Any) -> bool:
        return isinstance(model, keras.layers.Layer)

    def apply(self, model: Layer, request: ApplyRequest) -> Applied:
        found, skipped = find_layers(model)
        check_is_free(model, request.policies)
        if not found:
            raise PolicyError(_nothing_found(model, request.policies, skipped))
        selection = request.select(found, find_embeddings(model), sites_of)
        check_layers(selection.layers)
        wiring = Wiring(model, found)
        ambiguous = [
            (a, b)
            for a, b in wiring.find_ambiguous_pairs()
            if a in selection.layers and b in selection.layers
        ]
        groups = find_stacks(selection.layers, wiring.find_uses(), ambiguous, request.stacks)
        placements = place_layers(selection.layers, groups)
        wiring.check_adjacent_dropouts(placements)
        skipped += selection.skipped
        skipped += [
            Skipped(
                layer.name, _kind(layer), f"rate={layer.rate:g}; only call knows what it falls on"
            )
            for layer in wiring.adjacent_dropouts()
        ]
        sizes = [(placements[item], item.layers) for item in placements]
        notes = check_rates_are_used(request, sizes, bool(selection.embeddings))
        touched = [
            [_touched(member.item, placements[member.item]) for member in members]
            for members in groups
        ]
        words = [TouchedEmbedding(i.name, i.kind, p) for i, p in selection.embeddings.items()]
        pairs = [(item, layer) for item in selection.layers for layer in directions_of(item.layer)]
        pairs += [(item, item.layer) for item in selection.embeddings]
        placements |= {
            item: Placement(policy, number)
            for number, (item, policy) in enumerate(selection.embeddings.items())
        }
        swaps = SWAPS | EMBEDDINGS
        restorable = [
            RestorableLayer(item.name, layer, swaps[type(layer)]) for item, layer in pairs
        ]
        for (item, layer), before in zip(pairs, restorable, strict=True):
            put_under_policy(layer, placements[item], request.seed)
            layer.__dict__["_before_policy"] = before
        retrace(model)
        traced = TracedFunctions(model)
        return Applied(request.policies, touched, skipped, [*restorable, traced], words, notes)

    def remove(self, model: Layer) -> None:
        for layer in self.under_policy(model).values():
            take_off(layer)
        retrace(model)

    def under_policy(self, model: Layer) -> dict[str, PolicyLayer]:
        all_layers = list(dict.fromkeys(layers_of(model)))
        bidirectional = {
            id(direction): (layer, suffix)
            for layer in all_layers
            if isinstance(layer, keras.layers.Bidirectional)
            for direction, suffix in zip(
                directions_of(layer), ("/forward", "/backward"), strict=True
            )
        }
        policy_layers = [
            x for x in all_layers if isinstance(x, PolicyLayer) and x.placement is not None
        ]
        outer = [bidirectional.get(id(layer), (layer, "")) for layer in policy_layers]
        distinct = list(dict.fromkeys(layer for layer, _ in outer))
        named = _with_unique_names([RecurrentLayer(x.name, x, "") for x in distinct], all_layers)
        names = {id(item.layer): item.name for item in named}
        return {
            f"{names[id(whole)]}{suffix}": layer
            for layer, (whole, suffix) in zip(policy_layers, outer, strict=True)
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


def find_embeddings(model: Layer) -> list[RecurrentLayer]:
    """The embeddings that a policy can go on."""
    all_layers = list(dict.fromkeys(layers_of(model)))
    inside = _ids_inside(all_layers)
    found = [x for x in all_layers if type(x) in EMBEDDINGS and id(x) not in inside]
    return _with_unique_names([RecurrentLayer(x.name, x, _kind(x)) for x in found], all_layers)


def find_layers(model: Layer) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """The recurrent layers that a policy can go on, and those that it cannot, with the reason."""
    found: list[RecurrentLayer] = []
    skipped: list[Skipped] = []
    all_layers = list(dict.fromkeys(layers_of(model)))
    inside = _ids_inside(all_layers)
    for layer in all_layers:
        reason = _skip_reason(layer)
        if isinstance(layer, keras.layers.TimeDistributed):
            if any(isinstance(inner, RECURRENT_LAYERS) for inner in layers_of(layer)):
                reason = (
                    "a recurrent layer inside TimeDistributed runs once for every step of another"
                )
                skipped.append(Skipped(layer.name, _kind(layer), reason))
        elif id(layer) in inside or not isinstance(layer, RECURRENT_LAYERS):
            continue
        elif reason:
            skipped.append(Skipped(layer.name, _kind(layer), reason))
        else:
            count = len(cells_of(directions_of(layer)[0]))
            found.append(RecurrentLayer(layer.name, layer, _kind(layer), count))
    return _with_unique_names(found, all_layers), skipped


def _ids_inside(all_layers: Sequence[Layer]) -> set[int]:
    """The ids of the layers inside a recurrent layer, which no policy goes on by themselves."""
    return {
        id(inner)
        for outer in all_layers
        if isinstance(outer, (*RECURRENT_LAYERS, keras.layers.TimeDistributed))
        for inner in layers_of(outer)
        if inner is not outer
    }


def _with_unique_names(
    found: list[RecurrentLayer], all_layers: Sequence[Layer]
) -> list[RecurrentLayer]:
    """The same layers; those of one name in several models get their model's name before it."""
    counts = Counter(item.name for item in found)
    models = [layer for layer in all_layers if isinstance(layer, keras.Model)]

    def name(item: RecurrentLayer) -> str:
        holders = [m.name for m in models if any(item.layer is inner for inner in m.layers)]
        return "/".join([*holders[-1:], item.name]) if counts[item.name] > 1 else item.name

    return [replace(item, name=name(item)) for item in found]


def _skip_reason(layer: Layer) -> str:
    """Why a policy cannot go on a recurrent layer, or ""."""
    kinds = [type(direction) for direction in directions_of(layer)]
    if all(kind in SWAPS for kind in kinds):
        return ""
    custom = [kind for kind in kinds if not kind.__module__.startswith("keras.")]
    if any(issubclass(kind, tuple(SWAPS)) for kind in custom):
        return "a subclass; derive it from dropout_policies_keras's instead"
    return "policies run on LSTM, GRU, SimpleRNN and RNN"


def check_is_free(model: Layer, policies: Sequence[Policy]) -> None:
    """Make sure that no layer of the model is under a policy.

    Raises:
        PolicyError: one is.
    """
    for layer in dict.fromkeys(layers_of(model)):
        placement = layer.placement if isinstance(layer, PolicyLayer) else None
        if placement is None:
            continue
        if isinstance(layer, Embedding) and not any(p.masks(Site.EMBEDDING) for p in policies):
            continue
        raise PolicyError(
            f"{layer.name} ({_kind(layer)}) is under policy {placement.policy.name!r} already. "
            f"Call remove() on what apply returned, or dropout_policies.remove(model), before "
            f"applying {_names(policies)}."
        )


def _nothing_found(model: Layer, policies: Sequence[Policy], skipped: Sequence[Skipped]) -> str:
    others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
    return (
        f"{model.name} has no recurrent layer that {_names(policies)} can go on "
        f"(keras.layers' LSTM, GRU, SimpleRNN and RNN, alone or in Bidirectional). "
        f"{f'It has {others}.' if others else ''}"
    )


def _names(policies: Sequence[Policy]) -> str:
    names = ", ".join(dict.fromkeys(repr(policy.name) for policy in policies))
    return f"{'policy' if len(policies) == 1 else 'policies'} {names}"


def sites_of(item: RecurrentLayer) -> frozenset[Site]:
    """The sites that a recurrent layer has: those of all its cells."""
    return frozenset().union(*(sites_of_cells(layer) for layer in directions_of(item.layer)))


def check_layers(policies: Mapping[RecurrentLayer, Policy]) -> None:
    """Make sure that each layer can have every site of its policy.

    Raises:
        PolicyError: one cannot.
    """
    for item, policy in policies.items():
        for layer in directions_of(item.layer):
            check_cells(layer, policy, f"{item.name} ({item.kind})")


def put_under_policy(layer: Layer, placement: Placement, seed: int | None) -> None:
    """Swap a layer's class, and put it under a policy.

    Args:
        layer: a recurrent layer or an embedding.
        placement: the policy, and the layer's place in its stack.
        seed: for keyed masks, or None.
    """
    for name in POLICY_ATTRIBUTES:
        layer.__dict__.pop(name, None)
    layer.__class__ = (SWAPS | EMBEDDINGS)[type(layer)]
    if isinstance(layer, Embedding):
        update_call_signature(layer)
    cells = keras_cells(layer)
    loops_generically = any(cell.recurrent_dropout > 0.0 for cell in cells)
    for cell in cells:
        cell.dropout = cell.recurrent_dropout = 0.0
    layer.set_placement(placement, seed)
    if loops_generically:
        layer.loops_generically = True


def _touched(item: RecurrentLayer, placement: Placement) -> Touched:
    native = dict.fromkeys(native_dropout(layer) for layer in directions_of(item.layer))
    return Touched(item.name, item.kind, item.layers, placement, ", ".join(filter(None, native)))


def _kind(layer: Layer) -> str:
    """A layer's class as a user writes it, such as "keras.layers.Bidirectional(LSTM)"."""
    kind = type(layer)
    package, _, _ = kind.__module__.partition(".")
    module = {"keras": "keras.layers", __package__: package}.get(package, kind.__module__)
    inner = f"({type(layer.forward_layer).__name__})" if len(directions_of(layer)) == 2 else ""
    return f"{module}.{kind.__qualname__}{inner}"


ADAPTER = KerasAdapter()
