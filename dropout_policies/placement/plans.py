"""From a policy and the sizes of a call to the shape of each mask. Only here are shapes decided."""

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
    """Identifies a mask: the site, the layer and the direction.

    Args:
        site: the site.
        layer: the number of the layer, from 0.
        direction: 0 for forward, 1 for backward.
    """

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
        directions: the directions in which it runs: `(0,)`, `(1,)` or `(0, 1)`.
        batch: B. It may be a symbolic integer in a traced graph.
        steps: T, likewise.
        proj_size: P, the width of a projected h, or 0.
        cell: the kind of layer.
        input_positions: the number of positions on the spatial axes of x_t; D is then the number
            of channels.
        positions: the number of positions on the spatial axes of the state; H is then the number
            of channels.
        taps: the number of positions in a convolution's kernel.
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
        """The width of h_t in one direction."""
        return self.proj_size or self.hidden_size


@dataclass(frozen=True, slots=True)
class Placement:
    """A policy, and the position of a layer object in its stack.

    A stack is a series of recurrent layers, each of which feeds the next. It is one object
    (`num_layers=2`) or several. Only the first layer of the stack has the `input` connection, and
    only the last has the `output` connection, so that L layers have L+1 vertical connections.

    Args:
        policy: the policy.
        layer: the number of the object's first layer, which is part of the keys of its masks.
        first: whether the stack begins with this object.
        last: whether the stack ends with this object.
        depth: the number of the object's first layer in its stack, from 0. It selects the rates
            that are given layer by layer.
    """

    policy: Policy
    layer: int = 0
    first: bool = True
    last: bool = True
    depth: int = 0

    def vertical(self, layers: int) -> tuple[tuple[Site, int], ...]:
        """The vertical connections, as pairs (site, layer), of an object with `layers` layers."""
        entry = Site.INPUT if self.first else Site.BETWEEN
        into = [(entry if inner == 0 else Site.BETWEEN, inner) for inner in range(layers)]
        return (*into, (Site.OUTPUT, layers - 1)) if self.last else tuple(into)

    def masks_input(self, layers: int) -> bool:
        """Whether an object with `layers` layers masks its input."""
        return self.masks_site(self.vertical(layers)[0][0], 0)

    def masks_output(self, layers: int) -> bool:
        """Whether an object with `layers` layers masks its output.

        An output that another layer takes in is masked there, as the input of that layer.
        """
        return self.last and self.masks_site(Site.OUTPUT, layers - 1)

    def masks_site(self, site: Site, inner: int) -> bool:
        """Whether the object ever masks a site of its layer number `inner`, from 0."""
        return self.policy.masks(site) and self.policy[site].of_layer(self.depth + inner) != 0.0

    def check_rates(self, layers: int, layer_name: str) -> None:
        """Check that rates given layer by layer match the number of layers in the stack.

        Args:
            layers: how many layers the object holds.
            layer_name: the name that errors use for the object.

        Raises:
            PolicyError: they do not match.
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
        rule: the rule that it follows.
        rate: its rate: a number, or a `Schedule`.
        shape: `[T, B, F]`. T is 1 if the mask lasts longer than a step. If each gate has its own
            mask, F is G times as wide, gate after gate. For values with spatial axes, F holds all
            positions of the first channel, then of the next; or, by the rule, only the channels.
            The mask of a weight is `[1, G*H, D or P]`, with the positions of a convolution's kernel
            arranged likewise. The mask of word types is `[1, B or 1, V]`.
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
    """Check that a layer has every site that a policy masks.

    The site `embedding` is not checked, because embeddings are layers of their own.

    Args:
        policy: the policy.
        layer_name: the name that errors use for the layer.
        supported: the sites that the layer has.
        advice: what the error tells the user to do. Default: leave the sites out of the policy.
        untied_allowed: whether each gate can have a mask of its own.

    Raises:
        PolicyError: it does not. The message names the layer, the missing sites and the sites that
            it has.
    """
    untied = [s.value for s in policy if policy.masks(s) and policy[s].gates == "untied"]
    if untied and not untied_allowed:
        raise PolicyError(
            f"{layer_name} cannot be masked inside, so its gates cannot have masks of their own. "
            f"Received: gates='untied' at {', '.join(untied)} in policy {policy.name!r}; write: "
            "gates='tied'"
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
    """Plan every mask that one training call of a recurrent layer object needs.

    A rule with rate 0 needs no mask and gets none.

    Args:
        placement: the policy and the position of the object in its stack.
        geometry: the sizes of the call.

    Returns:
        The masks by slot.
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
    """Plan the mask that one training call of an embedding needs: one bit for each word type.

    Args:
        policy: the policy.
        number: the number of the embedding in the model, from 0.
        vocabulary: V, the number of rows in its matrix.
        batch: B.

    Returns:
        The mask by slot; empty if the policy does not mask embeddings.
    """
    if not policy.masks(Site.EMBEDDING):
        return {}
    rule = policy[Site.EMBEDDING]
    shared = rule.per == "call"
    shape = (1, 1 if shared else batch, vocabulary)
    mask = PlannedMask(rule, rule.of_layer(0), shape, not shared)
    return {Slot(Site.EMBEDDING, number, 0): mask}


def plan_at_call(plan: Plan, call: int) -> Plan:
    """Return the same plan with every rate as it is at one call."""
    return {slot: replace(mask, rate=rate_at(mask.rate, call)) for slot, mask in plan.items()}


def plan_in_evaluation(plan: Plan) -> Plan:
    """Return the masks that also matter in evaluation, which uses the mean of each."""
    return {s: mask for s, mask in plan.items() if not mask.rule.same_in_evaluation}


def masked_connections(placement: Placement, layers: int) -> int:
    """How many vertical connections of an object its policy masks."""
    return sum(placement.masks_site(site, inner) for site, inner in placement.vertical(layers))
