"""Which recurrent layer objects of a model form a stack, and the position of each in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..argument_checks import short_repr
from ..errors import PolicyError
from ..policies.policy import Policy
from ..policies.sites import VERTICAL, Site
from .connections import LayerUse, RecurrentLayer
from .plans import Placement


class Member(NamedTuple):
    """A layer object in a stack.

    Args:
        item: the layer object.
        first: whether the stack begins with it.
        last: whether the stack ends with it.
    """

    item: RecurrentLayer
    first: bool
    last: bool


def find_stacks(
    policies: Mapping[RecurrentLayer, Policy],
    uses: Iterable[LayerUse],
    ambiguous_pairs: Iterable[tuple[RecurrentLayer, RecurrentLayer]],
    stacks: Sequence[Sequence[str]] | None,
) -> list[list[Member]]:
    """Find the stacks of a model. In a stack, each layer comes after the layers that feed it.

    Usually a stack is a chain. If one layer feeds several, or several feed one, every connection is
    still masked only once: by the layer that receives it.

    Args:
        policies: the recurrent layer objects, in the model's order, with their policies.
        uses: where they run, as far as the adapter can see.
        ambiguous_pairs: pairs for which the adapter cannot know whether the first feeds the second.
        stacks: the user's answer: a list of stacks, each a list of names of layers in order. It
            decides for the layers that it names.

    Raises:
        PolicyError: `stacks` is not a list of lists of names, names an unknown layer, names a layer
            twice, or contradicts the model. Or it is still unclear whether one layer feeds another
            and this matters to a policy. Or a layer is used in several places that need different
            masks. Or layers feed one another in a circle. The message says what to do.
    """
    found = list(policies)
    uses = list(uses)
    named = _parse_stacks(found, stacks)
    _check_stacks_agree(named, uses)
    named_layers = {item for names in named for item in names}
    pairs = [(a, b) for a, b in ambiguous_pairs if _matters(policies[a], policies[b])]
    unnamed = [item for item in found if item not in named_layers]
    _check_pairs_are_decided(pairs, named, _chains_seen(unnamed, uses), found)
    groups = [
        [Member(item, item is names[0], item is names[-1]) for item in names] for names in named
    ]
    groups = [*groups, *_stacks_from_uses(unnamed, uses)]
    return _in_model_order(_keep_states_whole(groups, uses, policies), found)


def _matters(first: Policy, second: Policy) -> bool:
    """Whether it matters if a layer under one policy feeds a layer under another.

    Under the same policy, it matters if connections are masked or rates are given layer by layer.
    Two different policies make two stacks. Then it matters if both would mask the connection.
    """
    if first == second:
        by_layer = any(isinstance(rule.rate, tuple) for rule in first.values())
        return by_layer or any(first.masks(site) for site in VERTICAL)
    return first.masks(Site.OUTPUT) and second.masks(Site.INPUT)


def _check_pairs_are_decided(
    pairs: Sequence[tuple[RecurrentLayer, RecurrentLayer]],
    named: Sequence[Sequence[RecurrentLayer]],
    seen: Sequence[Sequence[RecurrentLayer]],
    found: Sequence[RecurrentLayer],
) -> None:
    """Check that the user has said for each pair whether the first layer feeds the second.

    Args:
        pairs: the pairs.
        named: the stacks that the user named.
        seen: the chains that can be seen. The answers that the message suggests contain them.
        found: all layers.

    Raises:
        PolicyError: some pairs are still open. One message lists all, with both possible answers.
    """
    open_pairs = [pair for pair in pairs if _is_open(*pair, named)]
    if not open_pairs:
        return
    known = [*map(list, named), *map(list, seen)]
    together = [*known]
    for a, b in open_pairs:
        before = next((names for names in together if a in names), [a])
        after = next((names for names in together if b in names), [b])
        if before is after or before[-1] is not a or after[0] is not b:
            continue  # already in the chain, or a branch of it
        together = [names for names in together if names is not before and names is not after]
        together.append([*before, *after])
    in_pairs = {item for pair in open_pairs for item in pair}
    together, apart = (
        [names for names in each if names in named or in_pairs & {*names}]
        for each in (together, [*known, *([x] for x in found if not _names(x, known))])
    )
    chain, alone = ([[item.name for item in names] for names in each] for each in (together, apart))
    if len({frozenset(pair) for pair in open_pairs}) == 1:
        a, b = open_pairs[0]
        raise PolicyError(
            f"{a.name!r} may feed {b.name!r}: the code that joins them cannot be seen from "
            f"outside, and one connection must not be masked twice. Say which it is: "
            f"stacks={chain!r} if {a.name!r} feeds {b.name!r}, stacks={alone!r} if it does not; or "
            f"give apply an input of the model, and it sees for itself: example=batch."
        )
    listed = dict.fromkeys(f"{a.name!r} into {b.name!r}" for a, b in open_pairs)
    raise PolicyError(
        "Some layers may feed one another: the code that joins them cannot be seen from outside, "
        f"and one connection must not be masked twice. Say how they are joined: stacks={chain!r} "
        f"if each feeds the next in this order, stacks={alone!r} if none feeds another, or name "
        "each stack. Or give apply an input of the model, and it sees for itself: example=batch. "
        f"These pairs are open: {', '.join(listed)}."
    )


def _check_stacks_agree(
    named: Sequence[Sequence[RecurrentLayer]], uses: Sequence[LayerUse]
) -> None:
    """Check that the user's stacks do not contradict a connection that can be seen.

    Raises:
        PolicyError: they do.
    """
    counts = Counter(use.item for use in uses)
    for use in uses:
        after = next((names for names in named if use.item in names), None)
        for source in dict.fromkeys(source.item for source in use.fed_by):
            before = next((names for names in named if source in names), None)
            runs_once = counts[source] == counts[use.item] == 1  # or only the user can say
            if not runs_once or (before is None and after is None):
                continue
            is_said = before is after is not None and (
                before.index(source) < before.index(use.item)  # type: ignore[union-attr]
            )
            if not is_said:
                names = [[item.name for item in stack] for stack in named]
                raise PolicyError(
                    f"stacks={names!r} contradicts the model: {source.name!r} feeds "
                    f"{use.item.name!r}, so a stack must name {source.name!r} before "
                    f"{use.item.name!r}, or stacks must name neither."
                )


def _keep_states_whole(
    groups: list[list[Member]], uses: Sequence[LayerUse], policies: Mapping[RecurrentLayer, Policy]
) -> list[list[Member]]:
    """The same stacks, in which a layer whose output is used only as a state does not mask it.

    Raises:
        PolicyError: the output of a layer is masked, and is used both as a state and otherwise.
    """
    goes: dict[RecurrentLayer, set[str]] = {}
    for use in uses:
        goes.setdefault(use.item, set()).update(use.output_goes)
    for item in (member.item for members in groups for member in members if member.last):
        others = goes.get(item, set()) - {"state"}
        if policies[item].masks(Site.OUTPUT) and others and "state" in goes[item]:
            raise PolicyError(
                f"The output of {item.name!r} is used as an initial state and in another place "
                f"too, and policy {policies[item].name!r} would mask the state too. Take the "
                f"state from what {item.name!r} returns as its last state, or do not mask its "
                f"output: rate={{'output': 0}}."
            )
    return [
        [m._replace(last=m.last and goes.get(m.item) != {"state"}) for m in members]
        for members in groups
    ]


def _chains_seen(
    unnamed: Sequence[RecurrentLayer], uses: Sequence[LayerUse]
) -> list[list[RecurrentLayer]]:
    """The chains of layers that can be seen; none if a layer is used in several places, because
    that has an error of its own."""
    try:
        groups = _stacks_from_uses(unnamed, uses)
    except PolicyError:
        return []
    return [[member.item for member in members] for members in groups if len(members) > 1]


def _names(item: RecurrentLayer, named: Sequence[Sequence[RecurrentLayer]]) -> bool:
    return any(item in names for names in named)


def _is_open(
    a: RecurrentLayer, b: RecurrentLayer, named: Sequence[Sequence[RecurrentLayer]]
) -> bool:
    """Whether the user's stacks do not decide if a feeds b."""
    before = next((names for names in named if a in names), [a])
    after = next((names for names in named if b in names), [b])
    can_follow = before[-1] is a and after[0] is b and before is not after
    return can_follow and not (before in named and after in named)


def _stacks_from_uses(
    unnamed: Sequence[RecurrentLayer], uses: Sequence[LayerUse]
) -> list[list[Member]]:
    """The stacks of the layers that the user did not name, as they are used."""
    feeding = {source for use in uses if use.item in unnamed for source in use.fed_by}
    feeders: dict[RecurrentLayer, set[RecurrentLayer]] = {item: set() for item in unnamed}
    members: dict[RecurrentLayer, Member] = {}
    for use in uses:
        if use.item not in feeders:
            continue
        sources = {source.item for source in use.fed_by if source.item in feeders}
        member = Member(use.item, not sources, use not in feeding)
        if members.setdefault(use.item, member) != member or use.item in sources:
            raise PolicyError(
                f"{use.item.name!r} is in two places that need different masks, but it has one "
                f"policy. Say how to mask it: stacks=[[{use.item.name!r}]] for each time on its "
                "way in and on its way out, or the names of its stack in order."
            )
        feeders[use.item] |= sources
    stacks: list[list[RecurrentLayer]] = []
    for item in _feeders_first(unnamed, feeders):
        near = [stack for stack in stacks if feeders[item] & set(stack)]
        stacks = [stack for stack in stacks if stack not in near]
        stacks.append([*(other for stack in near for other in stack), item])
    return [[members.get(item, Member(item, True, True)) for item in stack] for stack in stacks]


def _feeders_first(
    items: Sequence[RecurrentLayer], feeders: Mapping[RecurrentLayer, set[RecurrentLayer]]
) -> list[RecurrentLayer]:
    """Each item after those that feed it, and otherwise in the given order."""
    done: dict[RecurrentLayer, None] = {}
    while len(done) < len(items):
        ready = [item for item in items if item not in done and feeders[item] <= done.keys()]
        if not ready:
            names = ", ".join(repr(item.name) for item in items if item not in done)
            raise PolicyError(
                f"{names} feed one another in a circle. Say which layers form a stack, for "
                f"instance stacks={[[item.name] for item in items if item not in done]!r}."
            )
        done[ready[0]] = None
    return list(done)


def _in_model_order(
    groups: list[list[Member]], found: Sequence[RecurrentLayer]
) -> list[list[Member]]:
    order = {item: place for place, item in enumerate(found)}
    return sorted(groups, key=lambda members: order[members[0].item])


def _parse_stacks(found: Sequence[RecurrentLayer], stacks: object) -> list[list[RecurrentLayer]]:
    """The stacks that the user named."""
    if stacks is None:
        return []
    lists = isinstance(stacks, list | tuple) and all(isinstance(s, list | tuple) for s in stacks)
    if not lists or not all(names and all(isinstance(n, str) for n in names) for names in stacks):  # type: ignore[attr-defined]
        raise PolicyError(
            f"stacks must be a list of stacks, each a list of layers' names: "
            f"stacks=[['low', 'high']]. Received: stacks={short_repr(stacks)}"
        )
    by_name = {name: item for item in found for name in (item.name, *item.aliases)}
    named: list[list[RecurrentLayer]] = []
    seen: set[RecurrentLayer] = set()
    for names in stacks:  # type: ignore[attr-defined]
        for name in names:
            if name not in by_name:
                raise PolicyError(
                    f"stacks names {short_repr(name)}, and there is no such recurrent layer. "
                    f"There are: {', '.join(repr(item.name) for item in found)}."
                )
            if by_name[name] in seen:
                raise PolicyError(
                    f"stacks names {name!r} twice. Received: stacks={short_repr(stacks)}"
                )
            seen.add(by_name[name])
        named.append([by_name[name] for name in names])
    return named


def place_layers(
    policies: Mapping[RecurrentLayer, Policy], groups: Sequence[Sequence[Member]]
) -> dict[RecurrentLayer, Placement]:
    """Return the placement of each object. Layers are numbered over all stacks, so that no two
    layers share a key.

    Args:
        policies: the policy of each layer.
        groups: the stacks.

    Raises:
        PolicyError: rates that are given layer by layer do not match the layers of a stack.
    """
    placements, number = {}, 0
    for members in groups:
        depth = 0
        for item, first, last in members:
            placements[item] = Placement(policies[item], number, first, last, depth)
            number += item.layers
            depth += item.layers
    for members in groups:
        for item, *_ in members:
            placements[item].check_rates(item.layers, item.name)
    return placements


def stack_placement(policy: Policy, stack: object, layers: int, layer_name: str) -> Placement:
    """Return the placement of a layer object whose position in its stack the user gave.

    Args:
        policy: the policy.
        stack: None for an object that is a stack of its own. Or `(first, L)`: the number of its
            first layer, from 0, in a stack of L layers.
        layers: how many layers the object holds.
        layer_name: the name that errors use for it.

    Raises:
        PolicyError: `stack` is not such a pair, or the object does not fit into the stack.
    """
    if stack is None:
        return Placement(policy)
    match stack if isinstance(stack, (tuple, list)) else None:  # NumPy's arrays are sequences too
        case (int(first), int(total)) if not isinstance(first, bool) and total is not True:
            pass
        case _:
            raise PolicyError(
                f"{layer_name}: stack must be (number of the first layer, layers of the whole "
                f"stack), for instance stack=(0, 2). Received: stack={short_repr(stack)}"
            )
    if not 0 <= first <= total - layers:
        raise PolicyError(
            f"{layer_name}: {layers} layer(s), beginning with number {short_repr(first)}, do not "
            f"fit into a stack of {short_repr(total)}. Received: stack={short_repr(stack)}"
        )
    return Placement(policy, first, first == 0, first + layers == total, first)
