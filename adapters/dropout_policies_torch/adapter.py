"""Finding the recurrent layers of a `torch.nn.Module`, and putting a policy on them in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from dropout_policies_kernels.cells import CELL_TYPES
from dropout_policies_kernels.compiled import describe
from torch import nn

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
    check_sites,
    find_stacks,
    notes_on_wiring,
    number_text,
    place_layers,
    plan_existing_dropout,
)

from .auditing.parts import find_parts
from .auditing.probe import Probe
from .custom_cell import Unrolled, check_custom_cell
from .embedding import Embedding
from .found_layers import find_embeddings, find_layers, how_compiled, kind_of
from .model_wiring.existing_dropout import SwitchedOffDropout, find_dropouts, restore_rate
from .model_wiring.observation import observe_runs, observe_wiring
from .model_wiring.structure import read_wiring
from .policy_classes import swapped_class
from .policy_layer import POLICY_ATTRIBUTES, PolicyLayer
from .recurrent_cell import check_step_rules, mode_of
from .swapped_layer import RestorableLayer, saved_attributes, take_off


class TorchAdapter:
    """The PyTorch side of `dropout_policies.apply`."""

    precedence = 0

    def owns(self, model: Any) -> bool:
        return isinstance(model, nn.Module)

    def apply(self, model: nn.Module, request: ApplyRequest) -> Applied:
        found, skipped = find_layers(model)
        embeddings, others = find_embeddings(model)
        check_is_free(model, request.policies)
        if not found:
            raise PolicyError(nothing_found(model, request.policies, skipped))
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
        in_batch_first = batch_first(found, selection.embeddings)
        touched = [[_touched(member.item, places[member.item]) for member in row] for row in groups]
        words = [TouchedEmbedding(i.name, i.kind, p) for i, p in selection.embeddings.items()]
        swapped = [
            RestorableLayer(item.name, item.layer, swapped_class(item.layer) or type(item.layer))
            for item in (*selection.layers, *selection.embeddings)
        ]
        switched_off = [SwitchedOffDropout(one.layer) for one in existing.taken_over]
        for item in selection.layers:
            put_under_policy(item.layer, places[item], request.seed)
        for number, (item, policy) in enumerate(selection.embeddings.items()):
            put_under_policy(item.layer, Placement(policy, number), request.seed)
            item.layer.batch_first = in_batch_first
        for dropout in switched_off:
            dropout.switch_off()
        return Applied(
            request.policies,
            touched,
            skipped,
            [*swapped, *switched_off],
            words,
            notes,
            existing.reported(),
        )

    def wiring(self, model: nn.Module, example: Any) -> Wiring:
        found, skipped = find_layers(model)
        if not found:
            raise PolicyError(nothing_found(model, [], skipped))
        return see_wiring(model, found, example)

    def remove(self, model: nn.Module) -> None:
        for layer in self.under_policy(model).values():
            take_off(layer)
        for module in model.modules():
            restore_rate(module)

    def under_policy(self, model: nn.Module) -> dict[str, PolicyLayer]:
        return {
            name or "model": module
            for name, module in model.named_modules()
            if isinstance(module, PolicyLayer) and module.placement is not None
        }

    def random_seed(self) -> int:
        return int(torch.randint(2**32, ()))

    def changed(self, model: nn.Module) -> None:
        """Do nothing: torch.compile looks at attributes itself."""

    def probe(self, model: nn.Module) -> Probe:
        return Probe(model)

    def parts(self, model: nn.Module, example: Any) -> list[ModelPart]:
        found, skipped = find_layers(model)
        if not found:
            raise PolicyError(nothing_found(model, [], skipped))
        seen, trained, _ = observe_runs(model, found, find_dropouts(model, found), example)
        return find_parts(trained or seen)

    def describe(self) -> dict[str, Any]:
        return describe()


def see_wiring(model: nn.Module, found: Sequence[RecurrentLayer], example: Any) -> Wiring:
    """Find how the layers are connected.

    With an example, this observes a run on it. Without one, it reads the model's structure.
    """
    if example is None:
        return read_wiring(model, found)
    return observe_wiring(model, found, example)


def batch_first(
    found: Sequence[RecurrentLayer], embeddings: Mapping[RecurrentLayer, Policy]
) -> bool:
    """Whether the model's tokens come as `[B, T]`, like the input of its recurrent layers.

    Raises:
        PolicyError: they do not agree, and the policy of an embedding depends on it.
    """
    given = {item.layer.batch_first for item in found if hasattr(item.layer, "batch_first")}
    if len(given) == 1:
        return bool(given.pop())
    for item, policy in embeddings.items():
        if policy[Site.EMBEDDING].per == "sequence":
            raise PolicyError(
                f"{item.name} ({item.kind}): some recurrent layers take [T, B] and some [B, T], "
                "so the layout of the tokens is unclear. Make it a "
                "dropout_policies_torch.Embedding(..., batch_first=...) with the policy, and "
                f"leave the embedding out here: rate={{'embedding': 0}}."
            )
    return False


def check_is_free(model: nn.Module, policies: Sequence[Policy]) -> None:
    """Make sure that no layer of the model is under a policy yet.

    An embedding under a policy is allowed if no new policy masks embeddings.

    Raises:
        PolicyError: a layer is under a policy.
    """
    for name, module in model.named_modules():
        placement = module.placement if isinstance(module, PolicyLayer) else None
        if placement is None:
            continue
        if isinstance(module, Embedding) and not any(p.masks(Site.EMBEDDING) for p in policies):
            continue
        raise PolicyError(
            f"{name or 'model'} ({kind_of(module)}) is under policy {placement.policy.name!r} "
            f"already. Call remove() on what apply returned, or dropout_policies.remove(model), "
            f"before applying {_names(policies)}."
        )


def nothing_found(model: nn.Module, policies: Sequence[Policy], skipped: Sequence[Skipped]) -> str:
    name = getattr(model, "original_name", type(model).__name__)
    compiled = how_compiled(model)
    if compiled:
        done, function = compiled
        return (
            f"{name} is {done}, and so not Python any more: {_names(policies)} cannot go inside. "
            f"Put the policy on the Python model first, and then call {function}."
        )
    others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
    return (
        f"{name} has no recurrent layer that {_names(policies)} can go on"
        f" (torch.nn's LSTM, GRU and RNN, and their cells)."
        f"{f' It has {others}.' if others else ''}"
    )


def _names(policies: Sequence[Policy]) -> str:
    names = ", ".join(dict.fromkeys(repr(policy.name) for policy in policies))
    if not names:
        return "a policy"
    return f"{'policy' if len(policies) == 1 else 'policies'} {names}"


def sites_of(item: RecurrentLayer) -> frozenset[Site]:
    """Return the sites that a recurrent layer has."""
    if isinstance(item.layer, Unrolled):
        return item.layer.sites
    cell = isinstance(item.layer, nn.RNNCellBase)
    return CELL_TYPES[mode_of(item.layer) if cell else item.layer.mode].sites


def check_layers(policies: Mapping[RecurrentLayer, Policy]) -> None:
    """Make sure that each layer has every site of its policy.

    Raises:
        PolicyError: a layer lacks a site.
    """
    for item, policy in policies.items():
        name = f"{item.name} ({item.kind})"
        if isinstance(item.layer, nn.RNNCellBase):
            name = f"{item.name} ({item.kind}, whose h is both output and carried state)"
            check_step_rules(item.layer, policy, name, without=Site.OUTPUT)
        elif isinstance(item.layer, Unrolled):
            check_custom_cell(item.layer, policy, name)
        else:
            check_sites(policy, name, sites_of(item))


def put_under_policy(module: Any, placement: Placement, seed: int | None) -> None:
    """Swap the class of a module and put the module under a policy."""
    before = saved_attributes(module)
    for name in POLICY_ATTRIBUTES:
        vars(module).pop(name, None)
    module.__class__ = swapped_class(module)
    if isinstance(module, nn.RNNBase):
        module.dropout = 0.0
    module.set_placement(placement, seed)
    module.before_policy = before


def native_dropout(module: nn.Module) -> str:
    """Return the layer's own dropout as its constructor takes it, or "" if it has none."""
    dropout = getattr(module, "dropout", 0.0)
    return f"dropout={number_text(dropout)}" if dropout else ""


def _touched(item: RecurrentLayer, placement: Placement) -> Touched:
    return Touched(item.name, item.kind, item.layers, placement, native_dropout(item.layer))


ADAPTER = TorchAdapter()
