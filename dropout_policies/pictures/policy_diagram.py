"""A policy on the unrolled network."""

from __future__ import annotations

from collections.abc import Mapping

from ..argument_checks import check_integer
from ..policies.policy import Policy
from ..policies.rules import Rule
from ..policies.sites import VERTICAL, Site
from .diagram import Diagram
from .grid import Row

MAX_LAYERS = 1000
"""The largest number of layers for which a policy can be drawn."""


def draw_policy(
    policy: Policy,
    layers: int = 2,
    steps: int = 4,
    path: tuple[int, int] | None = None,
) -> Diagram:
    """Draw a policy on the unrolled network.

    Args:
        policy: the policy to draw.
        layers: L, from 1 to 1,000.
        steps: T, from 1 to 26.
        path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy.

    Raises:
        PolicyError: layers or steps are out of range, the path does not exist, or the policy has
            rates for fewer layers.
    """
    layers = check_integer(layers, "layers", 1, MAX_LAYERS)
    return Diagram(policy.name, policy_rows(policy, layers), steps, path)


def layers_with_rates(policy: Policy) -> int:
    """Return the number of layers for which the policy has rates, at most `MAX_LAYERS`.

    It is 2 if the policy has one rate for all layers.
    """
    given = [len(rule.rate) for rule in policy.values() if isinstance(rule.rate, tuple)]
    return min([*given, MAX_LAYERS]) if given else 2


def policy_rows(rules: Mapping[Site, Rule], layers: int) -> tuple[Row, ...]:
    """Make the rows of L layers under the rules of a policy."""

    def rule(site: Site, depth: int) -> Rule | None:
        here = rules[site].of_layers(depth, 1) if site in rules else None
        return here if here is not None and here.active else None

    inside = [site for site in Site if site not in VERTICAL | {Site.EMBEDDING}]
    found = [Row.connection("input", rule(Site.INPUT, 0), rule(Site.EMBEDDING, 0))]
    for depth in range(layers):
        here = {site: made for site in inside if (made := rule(site, depth)) is not None}
        found.append(Row.layer(f"layer {depth + 1}", here))
        if depth + 1 < layers:
            found.append(Row.connection("between", rule(Site.BETWEEN, depth + 1)))
    return (*found, Row.connection("output", rule(Site.OUTPUT, layers - 1)))
