"""Policy × geometry → the shape of every mask. The one place where shapes are decided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import PolicyError
from ..policies.cell_types import LSTM, CellType
from ..policies.policy import Policy
from ..policies.rates import Rate, rate_at
from ..policies.rules import Rule
from ..policies.sites import WEIGHTS, Site


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
        hidden_size: H, the width of the state in one direction.
        layers: how many layers the object holds (`num_layers`).
        directions: which directions it runs: `(0,)`, `(1,)` or `(0, 1)`.
        batch: B; in a traced graph it may be a symbolic integer.
        steps: T, likewise.
        proj_size: P, the width of a projected h, or 0.
        cell: the kind of layer.
        input_positions: how many positions the spatial axes of x_t have, where D is its channels.
        positions: how many those of the state have, where H is its channels.
        taps: how many positions a convolution's kernel has.
    """

    input_size: int
    hidden_size: int
    layers: int = 1
    directions: tuple[int, ...] = (0,)
    batch: Any = 1
    steps: Any = 1
    proj_size: int = 0
    cell: CellType = LSTM
    input_positions: int = 1
    positions: int = 1
    taps: int = 1

    @property
    def output_size(self) -> int:
        """The width of one direction's h_t."""
        return self.proj_size or self.hidden_size


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
        depth: the number of the object's first layer in its stack, from 0, where rates are given
            layer by layer.
    """

    policy: Policy
    layer: int = 0
    first: bool = True
    last: bool = True
    depth: int = 0

    def vertical(self, layers: int) -> tuple[tuple[Site, int], ...]:
        """The vertical connections (site, layer) that belong to an object of `layers` layers."""
        entry = Site.INPUT if self.first else Site.BETWEEN
        into = [(entry if inner == 0 else Site.BETWEEN, inner) for inner in range(layers)]
        return (*into, (Site.OUTPUT, layers - 1)) if self.last else tuple(into)

    def masks_input(self, layers: int) -> bool:
        """Whether an object of `layers` layers masks what comes into it."""
        return self.masks_site(self.vertical(layers)[0][0], 0)

    def masks_output(self, layers: int) -> bool:
        """Whether an object of `layers` layers masks its output. (What another layer takes in is
        masked there, as that layer's input.)"""
        return self.last and self.masks_site(Site.OUTPUT, layers - 1)

    def masks_site(self, site: Site, inner: int) -> bool:
        """Whether a mask ever falls on a site of the object's layer number `inner`."""
        return self.policy.masks(site) and self.policy[site].of_layer(self.depth + inner) != 0.0

    def check_rates(self, layers: int, layer_name: str) -> None:
        """Make sure that rates given layer by layer are as many as the stack has layers.

        Raises:
            PolicyError: they are not.
        """
        for site, rule in self.policy.items():
            many = len(rule.rate) if isinstance(rule.rate, tuple) else 0
            end = self.depth + layers
            if many and (many < end or (self.last and many > end)):
                raise PolicyError(
                    f"{layer_name}: policy {self.policy.name!r} has rates for {many} layers at "
                    f"site {site.value!r}, and the stack has {'' if self.last else 'at least '}"
                    f"{end}. Received: {site.value}={rule}; write one rate for each layer."
                )


@dataclass(frozen=True, slots=True)
class PlannedMask:
    """One mask of a call.

    Args:
        rule: what it is.
        rate: its rate: a number, or one that changes with the number of the call.
        shape: `[T, B, F]`; T is 1 if it lives longer than a step. F is G·H where each gate has its
            own, gate after gate. Where values have spatial axes, F are all positions of the first
            channel, then of the next; or channels alone, by the rule. A weight's mask is
            `[1, G*H, D or P]`, with the positions of a convolution's kernel likewise, and a mask of
            word types `[1, B or 1, V]`.
        by_sample: whether its rows are the samples of the batch.
    """

    rule: Rule
    rate: Rate
    shape: tuple[Any, Any, int]
    by_sample: bool = True


Plan = dict[Slot, PlannedMask]


def check_sites(
    policy: Policy,
    layer_name: str,
    supported: frozenset[Site],
    advice: str = "",
    untied_allowed: bool = True,
) -> None:
    """Make sure that a layer can have every site of a policy on which masks fall.

    Embeddings are layers of their own; a recurrent layer leaves their site to them.

    Args:
        policy: what is to fall.
        layer_name: how errors call the layer.
        supported: the sites that it has.
        way_out: what to do instead, where that is not to leave the sites out.
        gates: whether its gates may have masks of their own.

    Raises:
        PolicyError: it cannot; the message names the layer, the site and the sites it has.
    """
    untied = [s.value for s in policy if policy.masks(s) and policy[s].gates == "untied"]
    if untied and not untied_allowed:
        raise PolicyError(
            f"{layer_name} is not seen into, and its gates cannot have masks of their own. "
            f"Received: gates='untied' at {', '.join(untied)} in policy {policy.name!r}; write: "
            f"gates='tied'"
        )
    known = supported | {Site.EMBEDDING}
    foreign = [site.value for site in policy if policy.masks(site) and site not in known]
    if foreign:
        has = ", ".join(site.value for site in Site if site in supported)
        rates = ", ".join(f"{name!r}: 0" for name in foreign)
        ways = f"Leave the others out of the policy, or set their rates to 0: rate={{{rates}}}."
        raise PolicyError(
            f"{layer_name} has no site {', '.join(map(repr, foreign))} for policy "
            f"{policy.name!r}. It has: {has}. {advice or ways}"
        )


def plan_masks(placement: Placement, geometry: Geometry) -> Plan:
    """Every mask that one training call of a recurrent layer object needs.

    Rules with rate 0 need no mask and get none.
    """
    plan: Plan = {}
    cell, policy = geometry.cell, placement.policy

    def add_mask(
        site: Site, inner: int, channels: int, positions: int, rows: int | None = None
    ) -> None:
        if not placement.masks_site(site, inner):
            return
        rule = policy[site]
        width = channels * (positions if rule.shape == "element" else 1)
        rate = rule.of_layer(placement.depth + inner)
        steps = geometry.steps if rule.per == "step" else 1
        if rule.gates == "untied":
            width *= cell.gates
        for direction in geometry.directions:
            plan[Slot(site, placement.layer + inner, direction)] = PlannedMask(
                rule, rate, (steps, geometry.batch if rows is None else rows, width), rows is None
            )

    between = geometry.output_size * len(geometry.directions)
    upper = geometry.layers - 1
    widths = [geometry.input_size] + [between] * upper
    positions = [geometry.input_positions] + [geometry.positions] * upper
    for site, inner in placement.vertical(geometry.layers):
        if site is Site.OUTPUT:
            add_mask(site, inner, geometry.output_size, geometry.positions)
        else:
            add_mask(site, inner, widths[inner], positions[inner])
    inner_widths = {
        Site.HIDDEN: geometry.output_size,
        Site.STATE: geometry.output_size,
        Site.CELL: geometry.hidden_size,
        Site.CANDIDATE: geometry.hidden_size,
        Site.HIDDEN_UPDATE: geometry.output_size,
        Site.CELL_UPDATE: geometry.hidden_size,
    }
    for inner in range(geometry.layers):
        for site, width in inner_widths.items():
            if site in cell.sites:
                add_mask(site, inner, width, geometry.positions)
        if cell.sites >= WEIGHTS:
            rows = cell.gates * geometry.hidden_size
            add_mask(Site.RECURRENT_WEIGHT, inner, geometry.output_size, geometry.taps, rows)
            add_mask(Site.INPUT_WEIGHT, inner, widths[inner], geometry.taps, rows)
    return plan


def plan_embedding(policy: Policy, number: int, vocabulary: int, batch: Any) -> Plan:
    """The mask that one training call of an embedding needs: one bit for each word type.

    Args:
        policy: what falls where.
        number: which embedding of the model it is, from 0.
        vocabulary: V, the rows of its matrix.
        batch: B.
    """
    if not policy.masks(Site.EMBEDDING):
        return {}
    rule = policy[Site.EMBEDDING]
    shared = rule.per == "call"
    shape = (1, 1 if shared else batch, vocabulary)
    mask = PlannedMask(rule, rule.of_layer(0), shape, not shared)
    return {Slot(Site.EMBEDDING, number, 0): mask}


def plan_at_call(plan: Plan, call: int) -> Plan:
    """The same masks with every rate as it is at one call, whatever schedule it follows."""
    return {slot: replace(mask, rate=rate_at(mask.rate, call)) for slot, mask in plan.items()}


def plan_in_evaluation(plan: Plan) -> Plan:
    """The masks that have a part in evaluation too, where each one's mean stands for it."""
    return {s: mask for s, mask in plan.items() if not mask.rule.same_in_evaluation}


def masked_connections(placement: Placement, layers: int) -> int:
    """How many of an object's vertical connections its policy masks."""
    return sum(placement.masks_site(site, inner) for site, inner in placement.vertical(layers))
