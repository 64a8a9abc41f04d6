"""Modules with the masks that they have, which an audit must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dropout_policies as dp
from dropout_policies.auditing.audits import Audit
from dropout_policies.auditing.probing.findings import widened_interval
from dropout_policies.policies.rules import Rule
from dropout_policies.policies.sites import VERTICAL, WEIGHTS, Site

Key = tuple[Site, int, int]


@dataclass(frozen=True)
class Case:
    """A module that is audited.

    Args:
        name: what it is.
        make: makes it.
        rules: the rule at each site, layer and direction where masks fall.
        policy: the policy that it is; None for one that the catalogue does not have.
        evaluation: what evaluation does.
    """

    name: str
    make: Callable[[], Any]
    rules: dict[Key, Rule] = field(default_factory=dict)
    policy: str | None = None
    evaluation: str = "identity"


def case_of_policy(
    name: str,
    make: Callable[[], Any],
    policy: dp.Policy,
    layers: int = 1,
    directions: tuple[int, ...] = (0,),
    tokens: bool = False,
) -> Case:
    """A case of a module that is under a policy, as one stack."""
    rules: dict[Key, Rule] = {}
    for site, rule in policy.items():
        if not rule.active or (site is Site.EMBEDDING and not tokens):
            continue
        where = range(layers)
        if site in VERTICAL:
            where = {Site.INPUT: [0], Site.BETWEEN: where[1:], Site.OUTPUT: [layers - 1]}[site]
        if site is Site.EMBEDDING:
            rules[site, -1, 0] = rule
            continue
        rules |= {(site, n, d): rule.of_layers(n, 1) for n in where for d in directions}
    known = policy.name if policy.name in dp.names() else None
    return Case(name, make, rules, known, policy.evaluation)


def find_errors(case: Case, audit: Audit) -> list[str]:
    """What an audit says that is false, or what it misses."""
    wrong = [f"policy {audit.policy}, not {case.policy}"] * (audit.policy != case.policy)
    wrong += [f"evaluation {audit.evaluation}"] * (audit.evaluation != case.evaluation)
    for distance in (0, 3):
        counted, passed = audit.corruptions(distance), _count_masks(case, audit.layers, distance)
        wrong += [f"{counted} masks passed, not {passed}"] * (counted not in (None, passed))
    audited = {(f.site, f.layer, f.direction) for f in audit.findings}
    wrong += [f"{key} is not audited" for key in set(case.rules) - audited]
    for found in audit.findings:
        key = (found.site, found.layer, found.direction)
        rule = case.rules.get(key)
        where = f"{found.site.value} of layer {found.layer}, direction {found.direction}"
        if found.verdict != ("whole" if rule is None else "masked"):
            wrong.append(f"{where}: {found.text()}, and it is {rule}")
            continue
        if rule is None:
            continue
        low, high = widened_interval(found)
        answers: dict[str, tuple[Any, Any]] = {
            "per": (found.per, rule.per),
            "shared": (found.shared, rule.per == "call"),
            "frozen": (found.frozen, False),
        }
        follows_words = found.site is Site.INPUT and (Site.EMBEDDING, -1, 0) in case.rules
        if follows_words and found.scaled is None:
            pass  # the scale of words' dropout is in it too
        elif rule.kind == "drop" and found.site not in WEIGHTS | {Site.EMBEDDING}:
            answers["scaled"] = (found.scaled, rule.scaled)
        if found.gates is not None:
            answers["gates"] = (found.gates, rule.gates)
        wrong += [f"{where}: {word} {a}, not {b}" for word, (a, b) in answers.items() if a != b]
        if not low <= rule.rate <= high:
            wrong.append(f"{where}: {found.text()}, and the rate is {rule.rate}")
    return wrong


def _count_masks(case: Case, layers: int, distance: int) -> int:
    """The number of masks that a signal passes: up through every cell, then through the last h."""
    first = min((direction for _, _, direction in case.rules), default=0)
    here = [(site, layer) for site, layer, direction in case.rules if direction == first]
    once = {*VERTICAL, Site.CANDIDATE, Site.CELL, Site.STATE}
    again = {Site.CANDIDATE, Site.CELL, Site.STATE, Site.HIDDEN}
    repeated = sum(site in again and layer == layers - 1 for site, layer in here)
    return sum(site in once for site, _ in here) + distance * repeated
