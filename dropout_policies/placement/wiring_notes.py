"""The notes in the report of `apply` on how a model calls its recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..policies.sites import VERTICAL, Site
from .connections import LayerUse, RecurrentLayer
from .plans import Placement
from .wirings import Wiring


def notes_on_wiring(
    wiring: Wiring,
    placements: Mapping[RecurrentLayer, Placement],
    stacks: Sequence[Sequence[str]] | None,
) -> list[str]:
    """What a user should know about how the layers are called and connected.

    Args:
        wiring: what was seen of the model.
        placements: the placement of each layer that gets a policy.
        stacks: the stacks that the user named. Their layers need no notes on separate layers.

    Returns:
        The notes, one sentence each.
    """
    uses: dict[RecurrentLayer, list[LayerUse]] = {}
    for use in wiring.uses:
        if use.item in placements:
            uses.setdefault(use.item, []).append(use)
    notes = [*wiring.notes]
    for item, places in uses.items():
        notes.extend(_notes_on_calls(item, places, placements[item]))
        notes.extend(_notes_on_states(item, places, placements[item]))
    if wiring.observed:
        notes.extend(
            f"{item.name} did not run on the example; it is treated as a stack of its own"
            for item in placements
            if item not in uses
        )
    return notes + _notes_on_separate_layers(wiring, placements, stacks)


def _notes_on_calls(
    item: RecurrentLayer, places: Sequence[LayerUse], placement: Placement
) -> Iterator[str]:
    calls = max(use.calls or 1 for use in places)
    if calls > 1:
        own = {site for site, _ in placement.vertical(item.layers)}
        others = (VERTICAL | {Site.EMBEDDING}) - own
        held = ", ".join(
            site.value
            for site, rule in placement.policy.items()
            if rule.active and rule.per != "step" and site not in others
        )
        how = f"{item.name} is called {calls} times over one sequence, "
        how += "each from the state that the call before left"
        if all(use.in_sequence for use in places if (use.calls or 1) > 1):
            how += ", inside dp.sequence"
        elif held:
            how += f"; what is held for a sequence or a call ({held}) is drawn anew each time, "
            how += "unless the calls are inside dp.sequence(model)"
        yield how
    if len(places) > 1 and places[0].calls is not None:
        yield f"{item.name} runs over {len(places)} sequences with the same weights"


def _notes_on_states(
    item: RecurrentLayer, places: Sequence[LayerUse], placement: Placement
) -> Iterator[str]:
    if all(use.output_goes == {"state"} for use in places):
        yield f"{item.name}: its output is used only as an initial state, and no mask falls on it"
    unused = all(not use.output_goes for use in places)
    if unused and placement.masks_output(item.layers) and any(u.state_is_used for u in places):
        yield (
            f"the output of {item.name} is masked and not used: what is used is its last state, "
            f"which no mask falls on"
        )
    sources = dict.fromkeys(source.item.name for use in places for source in use.initial_state_from)
    if sources:
        yield f"{item.name} starts from the state of {' and '.join(sources)}, which stays whole"


def _notes_on_separate_layers(
    wiring: Wiring,
    placements: Mapping[RecurrentLayer, Placement],
    stacks: Sequence[Sequence[str]] | None,
) -> list[str]:
    """Notes on pairs that are treated as separate. If they are not separate, they are masked
    twice."""
    named = {name for names in stacks or () for name in names}
    open_pairs = [
        f"{a.name!r} into {b.name!r}"
        for a, b in wiring.unlikely_pairs
        if a in placements and b in placements and not {a.name, b.name} & named
        if placements[a].masks_output(a.layers) and placements[b].masks_input(b.layers)
    ]
    if not open_pairs:
        return []
    return [
        f"taken for separate, since their widths differ: {', '.join(open_pairs)}. If one feeds "
        "the other, together with something else, its output is masked twice: example=batch "
        "shows it, or say so with stacks=."
    ]
