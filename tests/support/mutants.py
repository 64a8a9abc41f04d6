"""Wrong placements, as changes to the masks that an adapter draws; every adapter takes them.

Each has the signature (masks by slot, the planned masks by slot) -> masks by slot, on arrays of
whatever framework, `[T, B, F]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dropout_policies.placement.plans import Plan, PlannedMask, Slot
from dropout_policies.policies.rates import rate_at
from dropout_policies.policies.sites import Site

Masks = dict[Slot, Any]
Mutant = Callable[[Masks, Plan], Masks]


def _without(site: Site) -> Mutant:
    return lambda masks, _: {slot: mask for slot, mask in masks.items() if slot.site is not site}


def _each(change: Callable[[Any, PlannedMask], Any]) -> Mutant:
    return lambda masks, plan: {slot: change(mask, plan[slot]) for slot, mask in masks.items()}


def _swapped(mask: Any, planned: PlannedMask) -> Any:
    return sum(planned.rule.values(_rate(planned))) - mask


def _rate(planned: PlannedMask) -> float:
    return rate_at(planned.rate, 0)


def _hidden_too(masks: Masks, _: Plan) -> Masks:
    """The output's mask falls on the hidden state as well."""
    found = dict(masks)
    for slot, mask in masks.items():
        if slot.site is Site.OUTPUT:
            found[slot._replace(site=Site.HIDDEN)] = mask
    return found


def _hidden_instead(masks: Masks, _: Plan) -> Masks:
    """The mask that belongs on the output falls on the hidden state."""
    return {
        slot._replace(site=Site.HIDDEN) if slot.site is Site.OUTPUT else slot: mask
        for slot, mask in masks.items()
    }


def _layers_share(masks: Masks, _: Plan) -> Masks:
    """A between connection gets the mask of the output, which is another layer's."""
    output = {slot.direction: mask for slot, mask in masks.items() if slot.site is Site.OUTPUT}
    return {
        slot: output.get(slot.direction, mask) if slot.site is Site.BETWEEN else mask
        for slot, mask in masks.items()
    }


def _sites_swapped(masks: Masks, _: Plan) -> Masks:
    """Between and output have changed places."""
    by_site = {slot.site: slot for slot in masks if slot.direction == 0}
    if Site.OUTPUT not in by_site or Site.BETWEEN not in by_site:
        return masks
    a, b = by_site[Site.OUTPUT], by_site[Site.BETWEEN]
    return masks | {a: masks[b], b: masks[a]} if masks[a].shape == masks[b].shape else masks


MASK_MUTANTS: dict[str, Mutant] = {
    "input site missing": _without(Site.INPUT),
    "between site missing": _without(Site.BETWEEN),
    "output site missing": _without(Site.OUTPUT),
    "no mask at all": lambda _masks, _plan: {},
    "hidden masked too": _hidden_too,
    "hidden masked instead of the output": _hidden_instead,
    "masks shared by two layers": _layers_share,
    "between and output swapped": _sites_swapped,
    "one mask reused over t": _each(lambda mask, _: mask[:1] + 0 * mask),
    "one mask shared by the batch": _each(lambda mask, _: mask[:, :1] + 0 * mask),
    "one mask bit shared by all units": _each(lambda mask, _: mask[:, :, :1] + 0 * mask),
    "unscaled": _each(lambda mask, planned: mask * (1.0 - _rate(planned))),
    "scaled twice": _each(lambda mask, planned: mask / (1.0 - _rate(planned))),
    "kept and dropped swapped": _each(_swapped),
    "weights not masked": _without(Site.RECURRENT_WEIGHT),
    "input weights not masked": _without(Site.INPUT_WEIGHT),
    "state not masked": _without(Site.STATE),
    "candidate not masked": _without(Site.CANDIDATE),
    "cell not masked": _without(Site.CELL),
    "cell not zoned": _without(Site.CELL_UPDATE),
    "hidden state not zoned": _without(Site.HIDDEN_UPDATE),
}


def _all_alike(masks: Masks, _: Plan) -> Masks:
    """Masks of equal shape are equal, as if each were drawn from the same random state."""
    first: dict[Any, Any] = {}
    return {slot: first.setdefault(tuple(mask.shape), mask) for slot, mask in masks.items()}


DRAW_MUTANTS = {
    name: MASK_MUTANTS[name]
    for name in (
        "no mask at all",
        "output site missing",
        "one mask reused over t",
        "one mask shared by the batch",
        "one mask bit shared by all units",
        "unscaled",
        "scaled twice",
    )
} | {"every slot drawn from the same state": _all_alike}
"""The wrong draws that only unseeded masks may have, where no oracle has the same bits."""


def mutated_masks(draw: Callable[..., Masks], mutant: Mutant) -> Callable[..., Masks]:
    """An adapter's `masks.draw`, with its masks changed; the plan is its first argument."""

    def changed(wanted: Plan, *arguments: Any, **named: Any) -> Masks:
        return mutant(draw(wanted, *arguments, **named), wanted)

    return changed


def plan_changed(masks: Any, change: Callable[[PlannedMask], PlannedMask]) -> Callable[..., None]:
    """An adapter whose module `masks` draws for another plan than the layer's."""

    def apply(patch: Any) -> None:
        original = masks.draw

        def draw(plan: Plan, *rest: Any) -> Masks:
            return original({slot: change(mask) for slot, mask in plan.items()}, *rest)

        patch.setattr(masks, "draw", draw)

    return apply
