"""Finding the recurrent layers of a Keras model, and putting a policy on them in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from dropout_policies.errors import PolicyError
from dropout_policies.plan import Placement, check_sites
from dropout_policies.policy import Policy
from dropout_policies.report import Applied, Skipped, Touched
from dropout_policies.stacks import Found, group, place

from .layers import LSTM, native_dropout
from .memory import OWN, Before, Traces
from .wiring import Layer, Wiring, halves, layers_of, retrace

SWAPS: dict[type[Layer], type[LSTM]] = {keras.layers.LSTM: LSTM, LSTM: LSTM}
"""Which class takes the place of which. Swapping an instance's `__class__` keeps the layer
object, its variables, their paths and the optimizer's slots what they are."""

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
        found, skipped = find(model)
        check(model, found, skipped, policy)
        wiring = Wiring(model, found)
        groups = group(found, wiring.uses(), wiring.unclear(), stacks)
        places = place(policy, groups)
        wiring.check(places)
        skipped += [
            Skipped(layer.name, _kind(layer), f"rate={layer.rate:g}; only call knows")
            for layer in wiring.beside()
        ]
        touched = [[_touched(member.item, places[member.item]) for member in row] for row in groups]
        pairs = [(item, half) for item in found for half in halves(item.layer)]
        before = [Before(item.name, half, SWAPS[type(half)]) for item, half in pairs]
        for item, half in pairs:
            settle(half, places[item], seed)
        retrace(model)
        return Applied(policy, touched, skipped, [*before, Traces(model)])


def find(model: Layer) -> tuple[list[Found], list[Skipped]]:
    """The recurrent layers that a policy can go on, and those that it cannot, with the reason."""
    found: list[Found] = []
    skipped: list[Skipped] = []
    everything = list(dict.fromkeys(layers_of(model)))
    inside = {
        id(inner)
        for outer in everything
        if isinstance(outer, (*RECURRENT, keras.layers.TimeDistributed))
        for inner in layers_of(outer)
        if inner is not outer
    }
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
            found.append(Found(layer.name, layer, _kind(layer)))
    return _named_apart(found, everything), skipped


def _named_apart(found: list[Found], everything: Sequence[Layer]) -> list[Found]:
    """Layers of one name in several models get their model's name before their own."""
    names = Counter(item.name for item in found)
    models = [layer for layer in everything if isinstance(layer, keras.Model)]

    def name(item: Found) -> str:
        holders = [m.name for m in models if any(item.layer is inner for inner in m.layers)]
        return "/".join([*holders[-1:], item.name]) if names[item.name] > 1 else item.name

    return [replace(item, name=name(item)) for item in found]


def _why_not(layer: Layer) -> str:
    """Why a policy cannot go on a recurrent layer, or ""."""
    kinds = [type(half) for half in halves(layer)]
    if all(kind in SWAPS for kind in kinds):
        return ""
    if any(issubclass(kind, keras.layers.LSTM) for kind in kinds):
        return "a subclass; derive it from dropout_policies_keras.LSTM instead"
    return "policies run on LSTM"


def check(model: Layer, found: Sequence[Found], skipped: Sequence[Skipped], policy: Policy) -> None:
    """Everything that can be wrong, before anything is changed."""
    if not found:
        others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
        raise PolicyError(
            f"{model.name} has no recurrent layer that policy {policy.name!r} can go on "
            f"(keras.layers.LSTM, alone or in Bidirectional). "
            f"{f'It has {others}.' if others else ''}"
        )
    for item in found:
        for half in halves(item.layer):
            placed = getattr(half, "placement", None)
            if placed is not None:
                raise PolicyError(
                    f"{item.name} ({item.kind}) is under policy {placed.policy.name!r} already. "
                    f"Call remove() on what apply returned, or make the layer without a policy, "
                    f"before applying {policy.name!r}."
                )
        check_sites(policy, f"{item.name} ({item.kind})")


def settle(layer: Layer, placement: Placement, seed: int | None) -> None:
    """Swap a layer's class, and put it under a policy."""
    for name in OWN:
        layer.__dict__.pop(name, None)
    layer.__class__ = SWAPS[type(layer)]
    layer.loops_generically = layer.cell.recurrent_dropout > 0.0
    layer.cell.dropout = layer.cell.recurrent_dropout = 0.0
    layer.settle(placement, seed)


def native(layer: Layer) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    taken = dict.fromkeys(native_dropout(half.cell) for half in halves(layer))
    return ", ".join(filter(None, taken))


def _touched(item: Found, placement: Placement) -> Touched:
    return Touched(item.name, item.kind, item.layers, placement, native(item.layer))


def _kind(layer: Layer) -> str:
    kind = type(layer)
    where = "keras.layers" if kind.__module__.startswith("keras.") else kind.__module__
    inner = f"({type(layer.forward_layer).__name__})" if len(halves(layer)) == 2 else ""
    return f"{where.removesuffix('.layers') if kind in SWAPS and kind is LSTM else where}." + (
        f"{kind.__qualname__}{inner}"
    )


ADAPTER = KerasAdapter()
