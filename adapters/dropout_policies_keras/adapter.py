"""Finding the recurrent layers of a Keras model, and putting a policy on them in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from dropout_policies.adapter import (
    Applied,
    ApplyRequest,
    ModelPart,
    Placement,
    Policy,
    PolicyError,
    RecurrentLayer,
    Site,
    Skipped,
    Touched,
    TouchedEmbedding,
    Wiring,
    check_rates_are_used,
    find_stacks,
    notes_on_wiring,
    place_layers,
    plan_existing_dropout,
)

from .auditing.parts import find_parts
from .auditing.probe import Probe
from .embedding import Embedding, update_call_signature
from .found_layers import find_embeddings, find_layers
from .kernels.compiled import describe
from .layer_cells import check_cells, keras_cells, native_dropout, sites_of_cells
from .model_layers import (
    Layer,
    directions_of,
    kind_of,
    layers_of,
    unique_names,
)
from .model_wiring.existing_dropout import (
    SwitchedOffDropout,
    dropouts_by_name,
    rate_attribute,
    restore_rate,
)
from .model_wiring.observation import observe_wiring
from .model_wiring.structure import is_fully_read, read_wiring
from .policy_classes import swapped_class
from .policy_layer import PolicyLayer
from .swapped_layer import (
    POLICY_ATTRIBUTES,
    ModelsToUpdate,
    RestorableLayer,
    take_off,
    update_models,
)
from .time_distributed import SwappedTimeDistributed, unwrap, wrappers_of


class KerasAdapter:
    """The Keras side of `dropout_policies.apply`."""

    precedence = 10
    """Higher than PyTorch's, because a Keras model on torch is also a `torch.nn.Module`."""

    def owns(self, model: Any) -> bool:
        return isinstance(model, keras.layers.Layer)

    def apply(self, model: Layer, request: ApplyRequest) -> Applied:
        found, skipped = find_layers(model)
        embeddings, others = find_embeddings(model)
        check_is_free(model, request.policies)
        if not found:
            raise PolicyError(_nothing_found(model, request.policies, skipped))
        selection = request.select(found, embeddings, sites_of)
        check_layers(selection.layers)
        wiring = see_wiring(model, found, request.example)
        asked = wiring.pairs_among(list(selection.layers))
        groups = find_stacks(selection.layers, wiring.uses, asked, request.stacks)
        places = place_layers(selection.layers, groups)
        existing = plan_existing_dropout(wiring, places, request.existing)
        skipped += [*selection.skipped, *existing.kept]
        skipped += others if any(p.masks(Site.EMBEDDING) for p in request.policies) else []
        sizes = [(places[item], item.layers) for item in places]
        notes = check_rates_are_used(request, sizes, bool(selection.embeddings))
        notes += notes_on_wiring(wiring, places, request.stacks)
        touched = [[_touched(member.item, places[member.item]) for member in row] for row in groups]
        words = [TouchedEmbedding(i.name, i.kind, p) for i, p in selection.embeddings.items()]
        switched_off = [
            SwitchedOffDropout(dropout, list(_neighbours(wiring, dropout, places)))
            for dropout in existing.taken_over
        ]
        pairs = [(item, layer) for item in selection.layers for layer in directions_of(item.layer)]
        pairs += [(item, item.layer) for item in selection.embeddings]
        places |= {
            item: Placement(policy, number)
            for number, (item, policy) in enumerate(selection.embeddings.items())
        }
        swapped = [
            RestorableLayer(item.name, layer, swapped_class(layer) or type(layer))
            for item, layer in pairs
        ]
        for (item, layer), before in zip(pairs, swapped, strict=True):
            put_under_policy(layer, places[item], request.seed)
            layer.__dict__["_before_policy"] = before
        words_inside = [item.layer for item in selection.embeddings]
        wrappers = list(map(SwappedTimeDistributed, wrappers_of(words_inside, layers_of(model))))
        for wrapper in wrappers:
            wrapper.swap()
        for dropout in switched_off:
            dropout.switch_off()
        update_models(model)
        return Applied(
            request.policies,
            touched,
            skipped,
            [*swapped, *wrappers, *switched_off, ModelsToUpdate(model)],
            words,
            notes,
            existing.reported(),
        )

    def wiring(self, model: Layer, example: Any) -> Wiring:
        found, skipped = find_layers(model)
        if not found:
            raise PolicyError(_nothing_found(model, [], skipped))
        return see_wiring(model, found, example)

    def remove(self, model: Layer) -> None:
        taken_over: dict[str, Sequence[Any]] = {}
        for layer in self.under_policy(model).values():
            taken_over |= layer.dropouts_taken_over  # a loaded dropout does not know its old rate
            take_off(layer)
        for layer in layers_of(model):
            unwrap(layer)
        for name, layer in dropouts_by_name(model):
            is_off = getattr(layer, rate_attribute(layer) or "", None) == 0.0
            restore_rate(layer, taken_over.get(name) if is_off else None)
        update_models(model)

    def under_policy(self, model: Layer) -> dict[str, PolicyLayer]:
        all_layers = layers_of(model)
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
        unique = unique_names(distinct, all_layers)
        names = {id(x): name for x, name in zip(distinct, unique, strict=True)}
        return {
            f"{names[id(whole)]}{suffix}": layer
            for layer, (whole, suffix) in zip(policy_layers, outer, strict=True)
        }

    def random_seed(self) -> int:
        # Every layer of Keras gets its own seed in this way.
        return int(keras.ops.convert_to_numpy(keras.random.SeedGenerator(name="seed").state)[0])

    def changed(self, model: Layer) -> None:
        update_models(model)

    def probe(self, model: Layer) -> Probe:
        return Probe(model)

    def parts(self, model: Layer, example: Any) -> list[ModelPart]:
        return find_parts(self.wiring(model, example))

    def describe(self) -> dict[str, Any]:
        return describe()


def see_wiring(model: Layer, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Find how the layers are connected.

    If the structure shows everything, or there is no example, this reads the structure. Otherwise
    it observes a run on the example.
    """
    is_built = all(layer.built for layer in layers_of(model))
    if example is None or (is_built and is_fully_read(model, found)):
        return read_wiring(model, found)
    return observe_wiring(model, found, example)


def _neighbours(
    wiring: Wiring, dropout: Any, places: Mapping[RecurrentLayer, Placement]
) -> Iterator[Layer]:
    """Yield the layers under a policy that are next to a dropout."""
    for use in wiring.dropouts:
        if use.dropout is dropout:
            for item in (*use.inputs_of, *use.outputs_of):
                yield from directions_of(item.layer) if item in places else ()


def check_is_free(model: Layer, policies: Sequence[Policy]) -> None:
    """Make sure that no layer of the model is under a policy yet.

    An embedding under a policy is allowed if no new policy masks embeddings.

    Raises:
        PolicyError: a layer is under a policy.
    """
    for layer in layers_of(model):
        placement = layer.placement if isinstance(layer, PolicyLayer) else None
        if placement is None:
            continue
        if isinstance(layer, Embedding) and not any(p.masks(Site.EMBEDDING) for p in policies):
            continue
        raise PolicyError(
            f"{layer.name} ({kind_of(layer)}) is under policy {placement.policy.name!r} already. "
            f"Call remove() on what apply returned, or dropout_policies.remove(model), before "
            f"applying {_names(policies)}."
        )


def _nothing_found(model: Layer, policies: Sequence[Policy], skipped: Sequence[Skipped]) -> str:
    others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
    return (
        f"{model.name} has no recurrent layer that {_names(policies)} can go on "
        f"(keras.layers' LSTM, GRU, SimpleRNN, ConvLSTM and RNN, alone or "
        f"in Bidirectional, and their cells). "
        f"{f'It has {others}.' if others else ''}"
    )


def _names(policies: Sequence[Policy]) -> str:
    names = ", ".join(dict.fromkeys(repr(policy.name) for policy in policies))
    if not names:
        return "a policy"
    return f"{'policy' if len(policies) == 1 else 'policies'} {names}"


def sites_of(item: RecurrentLayer) -> frozenset[Site]:
    """Return the sites that a recurrent layer has: those of all its cells."""
    return frozenset().union(*(sites_of_cells(layer) for layer in directions_of(item.layer)))


def check_layers(policies: Mapping[RecurrentLayer, Policy]) -> None:
    """Make sure that each layer has every site of its policy.

    Raises:
        PolicyError: a layer lacks a site.
    """
    for item, policy in policies.items():
        for layer in directions_of(item.layer):
            check_cells(layer, policy, f"{item.name} ({item.kind})")


def put_under_policy(layer: Layer, placement: Placement, seed: int | None) -> None:
    """Swap the class of a layer and put the layer under a policy.

    Args:
        layer: a recurrent layer or an embedding.
        placement: the policy, and the layer's place in its stack.
        seed: the seed of keyed masks, or None.
    """
    for name in POLICY_ATTRIBUTES:
        layer.__dict__.pop(name, None)
    layer.__class__ = swapped_class(layer)
    if isinstance(layer, Embedding):
        update_call_signature(layer)
    cells = keras_cells(layer)
    loops_generically = any(c.recurrent_dropout > 0.0 for c in cells if c is not layer)
    rates = [(cell.dropout, cell.recurrent_dropout) for cell in cells]
    for cell in cells:
        cell.dropout = cell.recurrent_dropout = 0.0
    layer.set_placement(placement, seed)
    if cells:
        layer.__dict__["native_rates"] = rates
    if loops_generically:
        layer.loops_generically = True


def _touched(item: RecurrentLayer, placement: Placement) -> Touched:
    native = dict.fromkeys(native_dropout(layer) for layer in directions_of(item.layer))
    return Touched(item.name, item.kind, item.layers, placement, ", ".join(filter(None, native)))


ADAPTER = KerasAdapter()
