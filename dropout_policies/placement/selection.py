"""Which policy each layer of a model gets: by name, by pattern, and by `only=` and `skip=`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..argument_checks import short_repr
from ..errors import PolicyError
from ..policies.catalog import PolicyName, resolve_argument
from ..policies.policy import Policy
from ..policies.rates import Rates, rate_to_write
from ..policies.sites import CELL_STATE, VERTICAL, Site
from .connections import RecurrentLayer
from .existing_dropout import Existing
from .report import Skipped

Selector = str | Sequence[str] | Callable[[str, Any], bool]
"""Selects layers: a name, a pattern (`"encoder.*"`), a list of these, or a function of a layer's
name and the layer."""


@dataclass(frozen=True)
class Choice:
    """A policy, and how the user gave it.

    Args:
        policy: the policy.
        by_name: whether it was given by name, so that it adapts to the kind of layer.
        rated: the sites for which the user gave a rate by name.
    """

    policy: Policy
    by_name: bool = False
    rated: frozenset[Site] = frozenset()

    @staticmethod
    def of(
        policy: PolicyName | Policy, rate: Rates | None = None, argument: str = "policy"
    ) -> Choice:
        """Return the choice for a name and a rate, or for a `Policy`.

        Args:
            policy: a name, or a `Policy`.
            rate: rates for a policy given by name, or None.
            argument: what errors call the policy.

        Raises:
            PolicyError: see `resolve`.
        """
        resolved = resolve_argument(argument, policy, rate)
        rated = frozenset(map(Site.of, rate)) if isinstance(rate, Mapping) else frozenset[Site]()
        return Choice(resolved, not isinstance(policy, Policy), rated)

    @staticmethod
    def of_layer(
        layer_name: str,
        policy: PolicyName | Policy | None,
        rate: Rates | None = None,
        **others: object,
    ) -> Choice | None:
        """Return the choice that the constructor of a layer received, or None.

        Args:
            layer_name: what an error calls the layer.
            policy: a name, a `Policy`, or None.
            rate: rates for a policy given by name, or None.
            **others: the other arguments that need a policy, such as `seed`.

        Raises:
            PolicyError: the policy is unknown, a rate is out of range, or an argument that needs a
                policy is given without one.
        """
        if policy is not None:
            return Choice.of(policy, rate)
        for argument, value in {"rate": rate, **others}.items():
            if value is not None:
                written = rate_to_write(value) if argument == "rate" else short_repr(value)
                raise PolicyError(
                    f"{layer_name}: {argument} goes with a policy. Received: "
                    f"{argument}={short_repr(value)}, policy=None; write: policy='zaremba', "
                    f"{argument}={written}"
                )
        return None

    def on(self, sites: frozenset[Site]) -> Policy:
        """The policy in the form that fits a layer with these sites.

        On a layer without a cell state, a policy given by name leaves out its rules for the cell
        state, if any other rule is left. An example is `zoneout` on a GRU.
        """
        absent = CELL_STATE - sites
        if not self.by_name or not absent & self.policy.keys():
            return self.policy
        rest = {site.value: rule for site, rule in self.policy.items() if site not in absent}
        adapted = Policy(name=self.policy.name, citation=self.policy.citation, **rest)
        return adapted if adapted.active else self.policy

    def on_one(self, sites: frozenset[Site]) -> Policy:
        """The same as `on`, for a layer that is created with the policy.

        If the user gave a rate for a site that the layer does not have, the rule stays, and
        `check_sites` raises an error.
        """
        return self.policy if self.rated & (CELL_STATE - sites) else self.on(sites)


@dataclass(frozen=True)
class Selection:
    """Which layers of a model get which policy.

    Args:
        layers: the recurrent layers that get a policy, in the model's order, with the policy.
        embeddings: the embeddings that drop word types, likewise.
        skipped: the layers that the user left out.
    """

    layers: dict[RecurrentLayer, Policy]
    embeddings: dict[RecurrentLayer, Policy]
    skipped: list[Skipped]


@dataclass(frozen=True)
class ApplyRequest:
    """The user's arguments to `apply`.

    Args:
        choices: a choice for each pattern, in order; `"*"` for one policy for all layers.
        seed: the seed of keyed masks, or None.
        stacks: which layers feed each other, or None.
        only: the layers that may get a policy. None: all.
        skip: the layers that get no policy, or None.
        example: what to run the model on to see how its layers are connected, or None.
        existing: what to do with the model's own dropout where the policies mask too.
    """

    choices: Mapping[str, Choice]
    seed: int | None = None
    stacks: Sequence[Sequence[str]] | None = None
    only: Selector | None = None
    skip: Selector | None = None
    example: Any = None
    existing: Existing = "take over"

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies, in order."""
        return tuple(choice.policy for choice in self.choices.values())

    def select(
        self,
        found: Sequence[RecurrentLayer],
        embeddings: Sequence[RecurrentLayer],
        sites_of: Callable[[RecurrentLayer], frozenset[Site]],
    ) -> Selection:
        """Choose a policy for each layer.

        Args:
            found: the recurrent layers of the model.
            embeddings: its embeddings.
            sites_of: a function that returns the sites of a recurrent layer.

        Raises:
            PolicyError: a name or pattern matches no layer, or no layer is left.
        """
        everything = [*found, *embeddings]
        self._check_patterns(everything)
        layers: dict[RecurrentLayer, Policy] = {}
        on_words: dict[RecurrentLayer, Policy] = {}
        skipped: list[Skipped] = []
        for item in everything:
            choice, why = self._choose(item)
            if choice is None:
                matters = item in found or any(p.masks(Site.EMBEDDING) for p in self.policies)
                skipped += [Skipped(item.name, item.kind, why)] if matters else []
            elif item in found:
                layers[item] = choice.on(sites_of(item))
            elif choice.policy.masks(Site.EMBEDDING):
                on_words[item] = choice.policy
        if found and not layers and not on_words:
            names = ", ".join(repr(item.name) for item in found)
            raise PolicyError(f"only= and skip= leave no layer. The recurrent layers are: {names}.")
        return Selection(layers, on_words, skipped)

    def _choose(self, item: RecurrentLayer) -> tuple[Choice | None, str]:
        """The choice for a layer; or None and the reason."""
        if self.only is not None and not _selects(self.only, item):
            return None, "not among only="
        if self.skip is not None and _selects(self.skip, item):
            return None, "left out by skip="
        for pattern, choice in self.choices.items():
            if _matches(pattern, item):
                return choice, ""
        return None, "no pattern of policy= matches it"

    def _check_patterns(self, items: Sequence[RecurrentLayer]) -> None:
        named = {"policy": [p for p in self.choices if p != "*"]}
        named |= {name: list(_patterns_of(name, getattr(self, name))) for name in ("only", "skip")}
        for argument, patterns in named.items():
            for pattern in patterns:
                if not any(_matches(pattern, item) for item in items):
                    raise PolicyError(_no_match(argument, pattern, items))


def _patterns_of(argument: str, selector: object) -> Iterator[str]:
    """The names and patterns of a selector.

    Raises:
        PolicyError: it is not a valid selector.
    """
    if selector is None or callable(selector):
        return
    patterns = [selector] if isinstance(selector, str) else selector
    if not isinstance(patterns, list | tuple) or not all(isinstance(p, str) for p in patterns):
        raise PolicyError(
            f"{argument} takes a name, a pattern, a list of them, or a function of a layer's name "
            f"and the layer: {argument}='encoder.*'. Received: {argument}={short_repr(selector)}"
        )
    yield from patterns


def _selects(selector: Selector, item: RecurrentLayer) -> bool:
    if callable(selector):
        return bool(selector(item.name, item.layer))
    return any(_matches(pattern, item) for pattern in _patterns_of("", selector))


def _matches(pattern: str, item: RecurrentLayer) -> bool:
    """Whether a pattern matches the name of a layer, or is the name of a module around it."""
    names = (item.name, *item.aliases)
    inside = (f"{pattern}.", f"{pattern}/")
    return any(fnmatchcase(name, pattern) or name.startswith(inside) for name in names)


def _no_match(argument: str, pattern: str, items: Iterable[RecurrentLayer]) -> str:
    names = [name for item in items for name in (item.name, *item.aliases)]
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return (
        f"{argument} names {pattern!r}, which matches no recurrent layer or embedding. "
        f"{hint}There are: {', '.join(map(repr, names)) or 'none'}."
    )


def check_rates_are_used(
    request: ApplyRequest, placements: Iterable[tuple[Any, int]], embeddings: bool
) -> list[str]:
    """Check that every rate that the user gave for a site is used.

    Args:
        request: the user's arguments.
        placements: the placement and the number of layers of each layer object.
        embeddings: whether any embedding drops word types.

    Returns:
        Notes for the report about sites of a named policy that the model does not have.

    Raises:
        PolicyError: a rate that the user gave is used nowhere.
    """
    used: set[Site] = set()
    for placement, layers in placements:
        vertical = {site for site, _ in placement.vertical(layers)}
        used |= {site for site in placement.policy if site in vertical or site not in VERTICAL}
    used = used | {Site.EMBEDDING} if embeddings else used - {Site.EMBEDDING}
    notes = []
    for choice in request.choices.values():
        nowhere = [s for s in Site if choice.policy.masks(s) and s not in used]
        given = [site.value for site in nowhere if site in choice.rated]
        if given:
            rates = ", ".join(f"{name!r}: 0" for name in given)
            raise PolicyError(
                f"The rate for {', '.join(map(repr, given))} of policy {choice.policy.name!r} is "
                "not used: the model has no such site. Leave it out, or set it to 0: "
                f"rate={{{rates}}}."
            )
        if Site.EMBEDDING in nowhere:
            notes.append(
                f"policy {choice.policy.name}: no embedding was found, so no word types are dropped"
            )
    return notes
