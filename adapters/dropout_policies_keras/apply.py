"""Finding the recurrent layers of a Keras model, and putting a policy on them in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import keras

from dropout_policies.errors import PolicyError
from dropout_policies.plan import check_sites
from dropout_policies.policy import Policy
from dropout_policies.report import Applied, Skipped, Touched
from dropout_policies.sites import VERTICAL
from dropout_policies.stacks import Found, group, place

from .layers import LSTM, native_dropout
from .memory import Before, Traces
from .wiring import Layer, drops, feeders, layers_of, retrace, way_up

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
        groups = group(found, linked(model, found), unclear(model, found), stacks)
        placements = place(policy, groups)
        touched = []
        before: list[Before | Traces] = [
            Before(item.name, half, SWAPS[type(half)])
            for item in found
            for half in halves(item.layer)
        ]
        for members, row in zip(groups, placements, strict=True):
            report = []
            for item, placement in zip(members, row, strict=True):
                report.append(Touched(item.name, item.kind, 1, placement, native(item.layer)))
                for half in halves(item.layer):
                    half.__class__ = SWAPS[type(half)]
                    half.loops_generically = half.cell.recurrent_dropout > 0.0
                    half.cell.dropout = half.cell.recurrent_dropout = 0.0
                    half.settle(placement, seed)
            touched.append(report)
        retrace(model)
        return Applied(policy, touched, skipped, [*before, Traces(model)])


def native(layer: Layer) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    taken = dict.fromkeys(native_dropout(half.cell) for half in halves(layer))
    return ", ".join(filter(None, taken))


def halves(layer: Layer) -> list[Layer]:
    """The layer itself, or both directions of a `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


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
                why = "a recurrent layer inside TimeDistributed would draw one mask for all steps"
                skipped.append(Skipped(layer.name, _kind(layer), why))
        elif id(layer) in inside or not isinstance(layer, RECURRENT):
            continue
        elif why:
            skipped.append(Skipped(layer.name, _kind(layer), why))
        else:
            found.append(Found(layer.name, layer, _kind(layer)))
    return found, skipped


def _why_not(layer: Layer) -> str:
    """Why a policy cannot go on a recurrent layer, or ""."""
    kinds = [type(half) for half in halves(layer)]
    if all(kind in SWAPS for kind in kinds):
        return ""
    if any(issubclass(kind, keras.layers.LSTM) for kind in kinds):
        return "a subclass with code of its own, which a policy would replace"
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
                    f"Call remove() on what apply returned before applying {policy.name!r}."
                )
        check_sites(policy, f"{item.name} ({item.kind})")
    if any(site in VERTICAL and rule.rate > 0.0 for site, rule in policy.items()):
        _check_neighbours(model, found, policy)


def _check_neighbours(model: Layer, found: Sequence[Found], policy: Policy) -> None:
    """A vertical policy must not meet a dropout layer on the same connection."""
    by_name = {item.name: item for item in found}
    for _, fed, layers in _graphs(model):
        for name, layer in layers.items():
            passed, source = way_up(name, fed, layers, set(by_name))
            if name in by_name:
                clashes = [(by_name[name], other) for other in passed if drops(other)]
            else:
                clashes = [(by_name[source], layer)] if source and drops(layer) else []
            for item, other in clashes:
                raise PolicyError(
                    f"{item.name} ({item.kind}) stands beside {other.name} "
                    f"({type(other).__name__}, rate {float(other.rate):g}): policy "
                    f"{policy.name!r} would mask the same connection a second time. Remove that "
                    f"layer, or set its rate to 0, first."
                )


def linked(model: Layer, found: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Pairs of which the first feeds the second, in sequential and functional models."""
    by_name = {item.name: item for item in found}
    for _, fed, layers in _graphs(model):
        for name in layers.keys() & by_name.keys():
            _, source = way_up(name, fed, layers, set(by_name))
            if source is not None and by_name[source].layer is layers[source]:
                yield by_name[source], by_name[name]


def unclear(model: Layer, found: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Neighbouring layers of a model with a `call` of its own, the first giving sequences."""
    by_id = {id(item.layer): item for item in found}
    for parent in layers_of(model):
        if id(parent) in by_id or isinstance(parent, keras.layers.RNN):
            continue
        if feeders(parent) is None:
            inner = layers_of(parent, recursive=False)
            children = [by_id[id(child)] for child in inner if id(child) in by_id]
            yield from (pair for pair in pairwise(children) if _fits(*pair))


def _graphs(model: Layer) -> Iterator[tuple[Layer, dict[str, str | None], dict[str, Layer]]]:
    """Every model in a model whose wiring can be seen, with its wiring and its layers."""
    for inner in layers_of(model):
        fed = feeders(inner)
        if fed is not None:
            yield inner, fed, {layer.name: layer for layer in inner.layers}


def _fits(a: Found, b: Found) -> bool:
    first, second = halves(a.layer), halves(b.layer)
    if not first[0].return_sequences:
        return False
    joined = len(first) == 2 and a.layer.merge_mode == "concat"
    width = first[0].units * (2 if joined else 1)
    # A layer that is not built yet takes whatever width comes.
    return not second[0].built or bool(second[0].cell.kernel.shape[0] == width)


def _kind(layer: Layer) -> str:
    kind = type(layer)
    where = "keras.layers" if kind.__module__.startswith("keras.") else kind.__module__
    inner = f"({type(layer.forward_layer).__name__})" if len(halves(layer)) == 2 else ""
    return f"{where.removesuffix('.layers') if kind in SWAPS and kind is LSTM else where}." + (
        f"{kind.__qualname__}{inner}"
    )


ADAPTER = KerasAdapter()
