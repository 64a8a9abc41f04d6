"""What happens to the dropout that a model already has, so that no connection is masked twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..argument_checks import short_repr
from ..errors import PolicyError
from ..policies.sites import Site
from .connections import DropoutUse, ExistingDropout, RecurrentLayer
from .plans import Placement
from .report import Skipped, TakenOver
from .wirings import Wiring

Existing = Literal["take over", "keep", "refuse"]
"""What `apply` does with a dropout on a connection that the policy masks too: switch it off, leave
it on, or refuse the model."""

STATE_SITES = (Site.HIDDEN, Site.STATE, Site.CELL)
"""The sites where a policy drops what a layer carries from step to step."""

ZONEOUT_SITES = (*STATE_SITES, Site.HIDDEN_UPDATE, Site.CELL_UPDATE)
"""The sites where a policy changes the carried state at random, by dropping or by zoneout."""


@dataclass(frozen=True)
class ExistingDropoutPlan:
    """What happens to a model's own dropouts.

    Args:
        taken_over: the dropouts to switch off, with the connection that each is on.
        kept: the dropouts that stay on, with the reason.
    """

    taken_over: dict[ExistingDropout, str] = field(default_factory=dict)
    kept: list[Skipped] = field(default_factory=list)

    def reported(self) -> list[TakenOver]:
        """The entries of the report for the dropouts that are switched off."""
        return [TakenOver(d.name, d.kind, d.rate, at) for d, at in self.taken_over.items()]


def check_existing(existing: object) -> Existing:
    """Check the argument `existing` of `apply`.

    Raises:
        PolicyError: it is not one of the three words.
    """
    for word in get_args(Existing):
        if existing == word:
            return word  # type: ignore[no-any-return]
    raise PolicyError(
        f"existing must be 'take over' (switch dropout off where the policy masks), 'keep' or "
        f"'refuse'. Received: existing={short_repr(existing)}"
    )


def plan_existing_dropout(
    wiring: Wiring, placements: Mapping[RecurrentLayer, Placement], existing: Existing
) -> ExistingDropoutPlan:
    """Decide what happens to each dropout that a model has.

    Args:
        wiring: how the model's layers are connected, and where its dropouts are.
        placements: the placement of each layer that gets a policy.
        existing: what the user wants for dropouts where the policy masks too.

    Raises:
        PolicyError: the user refuses such dropouts, or one cannot be switched off, or one is also
            needed elsewhere. One error names all of them.
    """
    plan = ExistingDropoutPlan()
    has_choice = any(use.is_choice for use in wiring.dropouts)
    sites = ZONEOUT_SITES if has_choice else STATE_SITES
    if not any(
        p.masks_input(i.layers) or p.masks_output(i.layers) or _masks_any(p, sites)
        for i, p in placements.items()
    ):
        return plan
    problems: list[str] = []
    by_dropout: dict[ExistingDropout, list[DropoutUse]] = {}
    for use in wiring.dropouts:
        by_dropout.setdefault(use.dropout, []).append(use)
    for dropout, uses in by_dropout.items():
        masked = {use: list(_masked_places(use, placements)) for use in uses}
        places = " and ".join(dict.fromkeys(place for p in masked.values() for place in p))
        if not places:
            plan.kept.append(_kept(dropout, f"it is {_where(uses)}, which no mask falls on"))
        elif existing == "keep":
            plan.kept.append(_kept(dropout, f"kept, and it masks {places} a second time"))
        elif existing == "refuse":
            problems.append(f"{dropout} masks {places}")
        elif not dropout.can_switch_off:
            problems.append(f"{dropout} masks {places} and cannot be switched off from outside")
        elif any(_is_missed(use, masked[use], placements) for use in uses):
            elsewhere = "it is also used where the policy does not mask"
            problems.append(f"{dropout} masks {places}, and {elsewhere}")
        else:
            plan.taken_over[dropout] = places
    if problems:
        raise PolicyError(_refusal(problems, placements, existing))
    why = (
        "still on; it did not run on the example"
        if wiring.observed
        else "still on, and it may mask a connection a second time; with example= apply sees where "
        "it falls"
    )
    plan.kept.extend(_kept(dropout, why) for dropout in wiring.unplaced_dropouts)
    return plan


def _masked_places(
    use: DropoutUse, placements: Mapping[RecurrentLayer, Placement]
) -> Iterator[str]:
    """The connections of a dropout that a policy masks."""
    for item in use.inputs_of:
        if item in placements and placements[item].masks_input(item.layers):
            before = [repr(source.name) for source in use.outputs_of]
            if before:
                yield f"what goes from {' and '.join(before)} into {item.name!r}"
            else:
                yield f"the input of {item.name!r}"
    for item in use.outputs_of:
        if item in placements and placements[item].masks_output(item.layers):
            yield f"the output of {item.name!r}"
    for item in use.initial_states_of:
        sites = ZONEOUT_SITES if use.is_choice else STATE_SITES
        if item in placements and _masks_any(placements[item], sites):
            yield f"the state of {item.name!r}"


def _masks_any(placement: Placement, sites: Sequence[Site]) -> bool:
    """Whether a policy masks any of these sites."""
    return any(placement.policy.masks(site) for site in sites)


def _is_missed(
    use: DropoutUse, masked: Sequence[str], placements: Mapping[RecurrentLayer, Placement]
) -> bool:
    """Whether something that has this dropout would have none if it were switched off."""
    if not masked:  # nothing may be taken from the last step of a loop
        return bool(use.goes_elsewhere or use.inputs_of or use.initial_states_of)
    if any(i in placements and placements[i].masks_output(i.layers) for i in use.outputs_of):
        return bool(use.states_of)
    inputs = [i in placements and placements[i].masks_input(i.layers) for i in use.inputs_of]
    states = [
        i in placements and _masks_any(placements[i], STATE_SITES) for i in use.initial_states_of
    ]
    return use.goes_elsewhere or not all(inputs) or not all(states)


def _where(uses: Sequence[DropoutUse]) -> str:
    """Where a dropout is, for the report."""
    starts = dict.fromkeys(repr(item.name) for use in uses for item in use.initial_states_of)
    states = dict.fromkeys(repr(item.name) for use in uses for item in use.states_of)
    into = dict.fromkeys(repr(item.name) for use in uses for item in use.inputs_of)
    after = dict.fromkeys(repr(item.name) for use in uses for item in use.outputs_of)
    if starts:
        return f"on the state that {' and '.join(starts)} starts from"
    if states:
        return f"on the last state of {' and '.join(states)}"
    if into:
        return f"on the input of {' and '.join(into)}"
    if after:
        return f"on the output of {' and '.join(after)}"
    return "on a connection between other layers"


def _kept(dropout: ExistingDropout, why: str) -> Skipped:
    return Skipped(dropout.name, dropout.kind, f"{dropout.rate}; {why}")


def _refusal(
    problems: Sequence[str], placements: Mapping[RecurrentLayer, Placement], existing: Existing
) -> str:
    names = " and ".join(dict.fromkeys(repr(p.policy.name) for p in placements.values()))
    ways = (
        "write existing='take over' to switch it off"
        if existing == "refuse"
        else "delete it from the model's code or set its rate to 0 there, give the policy's site "
        "the rate 0, or write existing='keep' to have both"
    )
    return (
        f"The model has dropout on connections that policy {names} masks too: "
        f"{'; '.join(problems)}. One connection must not be masked twice: {ways}."
    )
