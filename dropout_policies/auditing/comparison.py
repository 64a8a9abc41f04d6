"""Compares the findings of an audit with a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..argument_checks import number_text
from ..policies import catalog
from ..policies.policy import Policy
from ..policies.rules import Rule
from ..policies.sites import Site
from .probing.findings import SEVERAL_SCALES, Finding, site_name, widened_interval


class Difference(NamedTuple):
    """A difference from a policy at one site: the finding, and the difference in words."""

    finding: Finding
    text: str

    def __str__(self) -> str:
        found = self.finding
        name = site_name(found.site, found.layer, found.direction)
        # Every module has one input.
        return f"{'input' if found.site is Site.INPUT else name} {self.text}"


def find_differences(
    policy: Policy, findings: Sequence[Finding], compare_rates: bool = False
) -> list[Difference]:
    """Find all differences between a policy and the findings.

    Args:
        policy: the policy.
        findings: the findings. Undecided sites are not compared, except for noise that no policy
            has.
        compare_rates: whether to compare rates too.
    """
    return [
        Difference(found, text)
        for found in findings
        if found.verdict != "undecided" or found.note == SEVERAL_SCALES
        for text in _site_differences(policy, found, compare_rates)
    ]


def find_nearest_policy(findings: Sequence[Finding]) -> tuple[str, list[Difference]]:
    """Find the policy in the catalogue with the fewest differences.

    Returns:
        Its name, and the differences.
    """
    candidates = [(name, catalog.resolve(name)) for name in catalog.names()]
    masked = {found.site for found in findings if found.verdict == "masked"}
    # A policy that masks none of the sites that are masked here would be no useful comparison.
    related = [(name, policy) for name, policy in candidates if any(map(policy.masks, masked))]
    related = related or [(name, policy) for name, policy in candidates if not policy.active]
    compared = [(name, find_differences(policy, findings)) for name, policy in related]
    return min(compared, key=lambda one: len(one[1]))


def _site_differences(policy: Policy, found: Finding, compare_rates: bool) -> Iterator[str]:
    """Yield the differences at one site, in words."""
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
    yield from _rule_differences(rule, found)
    rate = rule.of_layer(max(found.layer, 0))
    low, high = widened_interval(found)
    if compare_rates and isinstance(rate, float) and not low <= rate <= high:
        yield f"has rate {found.rate:.3g}, not {number_text(rate)}"


def _rule_differences(rule: Rule, found: Finding) -> Iterator[str]:
    """Yield the differences between a mask and a rule, in words."""
    if found.per is not None and found.per != rule.per:
        yield f"has a mask per {found.per}, not per {rule.per}"
    elif found.shared and rule.per != "call":
        yield "has one mask for all samples of a batch"
    if found.alike:
        yield "has one mask for all units"
    if found.gates is not None and found.gates != rule.gates:
        yield f"has {found.gates} masks for its gates, not {rule.gates} masks"
    if found.scaled is not None and rule.kind == "drop" and found.scaled != rule.scaled:
        yield "is scaled" if found.scaled else "is not scaled"
    elif found.note:
        yield f"is otherwise: {found.note}"
    if found.frozen:
        yield "has the same mask at every call"
