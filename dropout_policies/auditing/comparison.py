"""What was measured, held against a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..policies.policy import Policy
from ..policies.rules import Rule
from ..policies.sites import Site
from .probing.evidence import MORE, Finding
from .probing.resting import wide


class Difference(NamedTuple):
    """What is otherwise at one site than under a policy: where, and in words."""

    finding: Finding
    text: str

    def __str__(self) -> str:
        found = self.finding
        whole = found.layer < 0 or found.site is Site.INPUT
        where = "" if whole else f" of layer {found.layer + 1}{' backward' * found.direction}"
        return f"{found.site.value}{where} {self.text}"


def unlike(policy: Policy, findings: Sequence[Finding], rates: bool = False) -> list[Difference]:
    """What is otherwise than under a policy.

    Args:
        policy: what is compared with.
        findings: what was found; what is undecided is not compared, but for what no policy does.
        rates: whether rates count too.
    """
    return [
        Difference(found, text)
        for found in findings
        if found.verdict != "undecided" or found.note == MORE
        for text in _texts(policy, found, rates)
    ]


def _texts(policy: Policy, found: Finding, rates: bool) -> Iterator[str]:
    rule = policy[found.site] if policy.masks(found.site) else None
    if found.verdict == "undecided":
        yield f"is otherwise: {found.note}"
        return
    if rule is None:
        if found.verdict == "masked":
            yield f"is masked ({found.text()})"
        return
    if found.verdict == "whole":
        yield "is whole"
        return
    yield from _unlike(rule, found)
    rate = rule.of_layer(max(found.layer, 0))
    low, high = wide(found)
    if rates and isinstance(rate, float) and not low <= rate <= high:
        yield f"has rate {found.rate:.3g}, not {rate:g}"


def _unlike(rule: Rule, found: Finding) -> Iterator[str]:
    """How a mask differs from a rule."""
    if found.per is not None and found.per != rule.per:
        yield f"has a mask per {found.per}, not per {rule.per}"
    elif found.shared and rule.per != "call":
        yield "has one mask for all samples of a batch"
    if found.alike:
        yield "has one mask for all units"
    if found.gates is not None and found.gates != rule.gates:
        yield f"has {found.gates} masks for its gates, not {rule.gates} ones"
    if found.scaled is not None and rule.kind == "drop" and found.scaled != rule.scaled:
        yield "is scaled" if found.scaled else "is not scaled"
    elif found.note:
        yield f"is otherwise: {found.note}"
    if found.frozen:
        yield "has the same mask at every call"
