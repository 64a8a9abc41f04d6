"""Which recurrent layer objects of a model form one stack, and each one's place in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import PolicyError
from .plan import Placement
from .policy import Policy


@dataclass(frozen=True, eq=False)
class Found:
    """A recurrent layer object that an adapter found in a model.

    Args:
        name: its name in the model, as a user writes it in `stacks=`.
        layer: the object itself.
        kind: its class, as a user writes it.
        layers: how many layers it holds.
    """

    name: str
    layer: Any
    kind: str
    layers: int = 1


def group(
    found: Sequence[Found],
    linked: Iterable[tuple[Found, Found]],
    unclear: Iterable[tuple[Found, Found]],
    stacks: Sequence[Sequence[str]] | None,
) -> list[list[Found]]:
    """The stacks of a model.

    Args:
        found: the recurrent layer objects, in the model's order.
        linked: pairs (a, b) of which the adapter knows that a feeds b.
        unclear: pairs of which it cannot know: both orders of reading the model make sense.
        stacks: the user's word: names of layers, stack by stack, in order; it settles the
            layers that it names.

    Raises:
        PolicyError: `stacks` names a layer that is not there or names one twice, or a pair stays
            unclear; the message shows both ways of settling it.
    """
    by_name = {item.name: item for item in found}
    said: list[list[Found]] = []
    settled: set[str] = set()
    for names in stacks or ():
        for name in names:
            if name not in by_name:
                raise PolicyError(
                    f"stacks names {name!r}, and there is no such recurrent layer. "
                    f"There are: {', '.join(map(repr, by_name))}."
                )
            if name in settled:
                raise PolicyError(f"stacks names {name!r} twice. Received: stacks={stacks!r}")
            settled.add(name)
        said.append([by_name[name] for name in names])

    for a, b in unclear:
        if a.name not in settled and b.name not in settled:
            raise PolicyError(
                f"{a.name!r} may feed {b.name!r}: the code that joins them cannot be seen from "
                f"outside, and one connection must not be masked twice. Say which it is: "
                f"stacks=[[{a.name!r}, {b.name!r}]] if {a.name!r} feeds {b.name!r}, "
                f"stacks=[[{a.name!r}], [{b.name!r}]] if it does not."
            )

    follows = {a.name: b for a, b in linked if a.name not in settled and b.name not in settled}
    fed = {b.name for b in follows.values()}
    chains = list(said)
    for item in found:
        if item.name in settled or item.name in fed:
            continue
        chain = [item]
        while chain[-1].name in follows:
            chain.append(follows[chain[-1].name])
        chains.append(chain)
    order = {item.name: place for place, item in enumerate(found)}
    return sorted(chains, key=lambda chain: order[chain[0].name])


def place(policy: Policy, groups: Sequence[Sequence[Found]]) -> list[list[Placement]]:
    """Each object's placement; layers are numbered over all stacks, so that no two share a key."""
    placements, number = [], 0
    for members in groups:
        row = []
        for index, item in enumerate(members):
            row.append(Placement(policy, number, index == 0, index == len(members) - 1))
            number += item.layers
        placements.append(row)
    return placements


def stack_placement(policy: Policy, stack: object, layers: int, layer_name: str) -> Placement:
    """The placement of a layer object whose place in its stack the user gave.

    Args:
        policy: what falls where.
        stack: `None` for an object that is a stack of its own, or `(first layer, L)`: the
            number of its first layer, from 0, in a stack of L layers.
        layers: how many layers the object holds.
        layer_name: how errors call it.

    Raises:
        PolicyError: `stack` is not such a pair, or the object does not fit into its stack.
    """
    if stack is None:
        return Placement(policy)
    match stack:
        case (int(first), int(total)) if not isinstance(first, bool):
            pass
        case _:
            raise PolicyError(
                f"{layer_name}: stack must be (number of the first layer, layers of the whole "
                f"stack), for instance stack=(0, 2). Received: stack={stack!r}"
            )
    if not 0 <= first <= total - layers:
        raise PolicyError(
            f"{layer_name}: {layers} layer(s) from number {first} on do not fit into a stack "
            f"of {total}. Received: stack={stack!r}"
        )
    return Placement(policy, first, first == 0, first + layers == total)
