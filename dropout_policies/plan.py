"""Policy × geometry → the shape of every mask. The one place where shapes are decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import PolicyError
from .policy import Policy, Rule
from .sites import RUNNABLE, VERTICAL, Site


class Slot(NamedTuple):
    """Which mask: the site, the layer (from 0) and the direction (0 forward, 1 backward)."""

    site: Site
    layer: int
    direction: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of one call of one recurrent layer object.

    Args:
        input_size: D, the width of x_t.
        output_size: the width of one direction's h_t: H, or the projection's size.
        layers: how many layers the object holds (`num_layers`).
        directions: which directions it runs: `(0,)`, `(1,)` or `(0, 1)`.
        batch: B; in a traced graph it may be a symbolic integer.
        steps: T, likewise.
    """

    input_size: int
    output_size: int
    layers: int = 1
    directions: tuple[int, ...] = (0,)
    batch: Any = 1
    steps: Any = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """A policy and the place of a layer object in its stack.

    A stack is consecutive recurrent layers, one feeding the next. It may be one object
    (`num_layers=2`) or several; only its first layer has the `input` connection, only its last
    one the `output` connection, so that L layers have L+1 vertical connections.

    Args:
        policy: what falls where.
        layer: the number of the object's first layer, one word of its masks' keys.
        first: the stack begins here.
        last: the stack ends here.
    """

    policy: Policy
    layer: int = 0
    first: bool = True
    last: bool = True

    def vertical(self, layers: int) -> tuple[tuple[Site, int], ...]:
        """The vertical connections (site, layer) that belong to an object of `layers` layers."""
        entry = Site.INPUT if self.first else Site.BETWEEN
        into = [(entry if inner == 0 else Site.BETWEEN, inner) for inner in range(layers)]
        return (*into, (Site.OUTPUT, layers - 1)) if self.last else tuple(into)

    def masks(self, layers: int, leaving: bool) -> bool:
        """Whether an object of `layers` layers masks what leaves it, or what comes into it."""
        site = self.vertical(layers)[-1 if leaving else 0][0]
        if leaving and site is not Site.OUTPUT:
            return False  # that is masked at the next layer's door
        rule = self.policy.get(site)
        return rule is not None and rule.rate > 0.0


@dataclass(frozen=True, slots=True)
class PlannedMask:
    """One mask of a call: its rule and its shape `[T, B, F]`; T is 1 if it lives per sequence."""

    rule: Rule
    shape: tuple[Any, Any, int]


Plan = dict[Slot, PlannedMask]


def check_sites(
    policy: Policy, layer_name: str, supported: frozenset[Site] = RUNNABLE, way_out: str = ""
) -> None:
    """Make sure that a layer can have every site of a policy.

    Raises:
        PolicyError: it cannot; the message names the layer, the site and the sites it has.
    """
    foreign = [site.value for site in policy if site not in supported]
    if foreign:
        has = ", ".join(site.value for site in Site if site in supported)
        raise PolicyError(
            f"{layer_name} has no site {', '.join(map(repr, foreign))} for policy "
            f"{policy.name!r}. It has: {has}. {way_out or 'Leave the others out of the policy.'}"
        )


def plan(placement: Placement, geometry: Geometry) -> Plan:
    """Every mask that one training call needs, in the order in which the keys are numbered.

    Rules with rate 0 need no mask and get none.
    """
    policy, wanted = placement.policy, Plan()

    def want(site: Site, inner: int, width: int) -> None:
        rule = policy.get(site)
        if rule is None or rule.rate == 0.0:
            return
        steps = geometry.steps if rule.per == "step" else 1
        for direction in geometry.directions:
            slot = Slot(site, placement.layer + inner, direction)
            wanted[slot] = PlannedMask(rule, (steps, geometry.batch, width))

    between = geometry.output_size * len(geometry.directions)
    for site, inner in placement.vertical(geometry.layers):
        if site is Site.OUTPUT:
            want(site, inner, geometry.output_size)
        else:
            want(site, inner, geometry.input_size if inner == 0 else between)
    for inner in range(geometry.layers):
        want(Site.HIDDEN, inner, geometry.output_size)
    return wanted


def masked_connections(placement: Placement, layers: int) -> int:
    """How many of an object's vertical connections its policy masks."""
    policy = placement.policy
    return sum(
        site in VERTICAL and site in policy and policy[site].rate > 0.0
        for site, _ in placement.vertical(layers)
    )
