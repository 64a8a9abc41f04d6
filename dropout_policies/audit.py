"""Where a recurrent module masks, measured from outside: `dropout_policies.audit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import catalog
from .dispatch import adapter_for
from .policy import Policy
from .probing.evidence import Finding
from .probing.measure import measure
from .probing.reading import Measured
from .probing.resting import wide
from .rule import Rule
from .sites import CARRIED, VERTICAL, Site


@dataclass(frozen=True)
class Audit:
    """Where a module masks.

    Args:
        name: the module.
        layers: L.
        directions: 1, or 2 for a bidirectional one.
        findings: for every site of every layer and direction, in that order.
        evaluation: `"identity"`, `"mean of the masks"`, `"undecided"`, or that it is neither.
        notes: which sites have one mask in common, as no policy has it.
        policy: the name of the policy that fits, or None.
        nearest: the name of the policy that fits best.
        differences: what is otherwise than under that one; nothing if it fits.
    """

    name: str
    layers: int
    directions: int
    findings: tuple[Finding, ...]
    evaluation: str
    notes: tuple[str, ...]
    policy: str | None
    nearest: str
    differences: tuple[str, ...]

    def at(self, site: str | Site, layer: int = 0, direction: int = 0) -> Finding:
        """What was found at a site of a layer, from 0.

        Raises:
            KeyError: the layer has no such site.
        """
        for found in self.findings:
            if (found.site, found.layer, found.direction) == (Site.of(site), layer, direction):
                return found
        raise KeyError(f"{self.name} has no site {site!r} in layer {layer}, direction {direction}")

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """The sites of which nothing can be said."""
        return tuple(found for found in self.findings if found.verdict == "undecided")

    @property
    def connections(self) -> tuple[int, int]:
        """How many of the vertical connections are masked, and how many there are: L+1."""
        masked = [
            all(f.verdict == "masked" for f in self._of(site, layer))
            for site, layer in self._vertical()
        ]
        return sum(masked), len(masked)

    def corruptions(self, distance: int) -> int | None:
        """How many masks lie between x_s and y_t, for t − s = `distance`; None if that is
        undecided. Under `zaremba` L+1, whatever the distance (Zaremba et al. 2014, figure 3).

        The path goes up at step s, along the last layer, and out.
        """
        along = [f for f in self._of_layer(self.layers - 1) if f.site in CARRIED]
        up = [f for site, layer in self._vertical() for f in self._of(site, layer)]
        forward = [f for f in up if f.direction == 0 or self.directions == 1]
        if any(f.verdict == "undecided" for f in (*along, *forward)):
            return None
        here = sum(f.verdict == "masked" for f in forward)
        return here + distance * sum(f.verdict == "masked" for f in along)

    def _vertical(self) -> list[tuple[Site, int]]:
        into = [(Site.INPUT if n == 0 else Site.BETWEEN, n) for n in range(self.layers)]
        return [*into, (Site.OUTPUT, self.layers - 1)]

    def _of(self, site: Site, layer: int) -> list[Finding]:
        return [f for f in self.findings if (f.site, f.layer) == (site, layer)]

    def _of_layer(self, layer: int) -> list[Finding]:
        """Its findings in one direction."""
        found = [f for f in self.findings if f.layer == layer]
        first = min((f.direction for f in found), default=0)
        return [f for f in found if f.direction == first]

    def measured(self) -> Policy | None:
        """A policy with the rules that were measured; None where the layers do not agree."""
        rules: dict[str, Rule] = {}
        for site in Site:
            here = [f for f in self.findings if f.site is site]
            if any(f.verdict == "undecided" for f in here):
                return None
            masked = [f for f in here if f.verdict == "masked"]
            if not masked:
                continue
            if len(masked) != len(here) or any(f.per is None for f in masked):
                return None
            rule = _rule(masked)
            if rule is None:
                return None
            rules[site.value] = rule
        return Policy(**rules, name=self.policy or f"like {self.nearest}")  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain JSON values."""
        return {
            "name": self.name,
            "layers": self.layers,
            "directions": self.directions,
            "policy": self.policy,
            "nearest": self.nearest,
            "differences": list(self.differences),
            "evaluation": self.evaluation,
            "notes": list(self.notes),
            "corruptions": [self.corruptions(distance) for distance in range(5)],
            "findings": [
                {
                    "site": f.site.value,
                    "layer": f.layer,
                    "direction": f.direction,
                    "verdict": f.verdict,
                    "kind": f.kind,
                    "rate": f.rate,
                    "interval": list(f.interval),
                    "elements": f.elements,
                    "per": f.per,
                    "shared": f.shared,
                    "alike": f.alike,
                    "gates": f.gates,
                    "scaled": f.scaled,
                    "frozen": f.frozen,
                    "note": f.note,
                }
                for f in self.findings
            ],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        masked, all_ = self.connections
        yield f"{self.name}: {self.verdict}"
        yield f"  {masked} of {all_} vertical connections masked; evaluation: {self.evaluation}"
        counts = [self.corruptions(distance) for distance in range(4)]
        if None not in counts:
            numbers = ", ".join(map(str, counts))
            yield f"  masks between x_s and y_t, for t - s = 0, 1, 2, 3: {numbers}"
        for f in self.findings:
            if f.verdict == "whole" and f.site not in VERTICAL | {Site.HIDDEN}:
                continue
            place = "" if f.layer < 0 else f"layer {f.layer + 1} "
            place += "backward " * (f.direction == 1)
            yield f"    {place}{f.site.value}: {f.text()}"
        yield from (f"  unlike {self.nearest}: {text}" for text in self.differences)

    @property
    def verdict(self) -> str:
        """The policy that fits, or the nearest, in a few words."""
        if self.policy is not None:
            sure = "" if not self.undecided else ", as far as it can be seen"
            return f"{self.policy}{sure}"
        return f"no policy of the catalogue; nearest: {self.nearest}"


def audit(model: Any) -> Audit:
    """Measure where a recurrent layer or model masks, whoever wrote it.

    The module is run on weights and inputs of the audit's choice, in training and in evaluation,
    and is put back bit for bit, its random state and that of the framework too. What cannot be
    told is said to be undecided.

    Args:
        model: a `torch.nn.Module` or a `keras.layers.Layer` that runs LSTM, GRU or simple recurrent
            cells over a sequence and gives an output for every step.

    Returns:
        What was found at each site: whether masks fall there, at which rate, how long they live,
        who shares them, and the policy that this is, or the nearest one and what is otherwise.

    Raises:
        PolicyError: no adapter owns the model, the audit cannot see into it, or its noise cannot
            be played again.
    """
    with adapter_for(model).probe(model) as probe:
        found = measure(probe)
        name = probe.name
    return _audit(name, found)


def _audit(name: str, found: Measured) -> Audit:
    cells = found.network.cells
    layers = found.network.layers
    fits = [(unlike(catalog.resolve(n), found.findings), n) for n in catalog.names()]
    # A policy that masks nothing of what is masked here would be no comparison.
    masked = {f.site for f in found.findings if f.verdict == "masked"}
    near = [(texts, n) for texts, n in fits if any(map(catalog.resolve(n).masks, masked))]
    fits = near or [fit for fit in fits if not catalog.resolve(fit[1]).active]
    differences, nearest = min(fits, key=lambda fit: len(fit[0]))
    evaluation = catalog.resolve(nearest).evaluation
    if found.evaluation not in (evaluation, "undecided"):
        differences = [*differences, f"evaluation is {found.evaluation}, not {evaluation}"]
    differences = [*differences, *found.notes]
    return Audit(
        name,
        layers,
        1 + any((layer, 1) in cells and (layer, 0) in cells for layer in range(layers)),
        tuple(found.findings),
        found.evaluation,
        tuple(found.notes),
        None if differences else nearest,
        nearest,
        tuple(differences),
    )


def unlike(policy: Policy, findings: Sequence[Finding], rates: bool = False) -> list[str]:
    """What is otherwise than under a policy, as text.

    Args:
        policy: what is compared with.
        findings: what was found; what is undecided is not compared.
        rates: whether rates count too.
    """
    texts: list[str] = []
    for found in findings:
        rule = policy.get(found.site)
        rule = rule if rule is not None and rule.active else None
        where = f"{found.site.value} of layer {found.layer + 1}{' backward' * found.direction}"
        where = found.site.value if found.layer < 0 or found.site is Site.INPUT else where
        if found.verdict == "undecided":
            continue
        if rule is None and found.verdict == "masked":
            texts.append(f"{where} is masked ({found.text()})")
        elif rule is not None and found.verdict == "whole":
            texts.append(f"{where} is whole")
        elif rule is not None:
            texts += [f"{where} {text}" for text in _unlike(rule, found)]
            rate = rule.of_layer(max(found.layer, 0))
            low, high = wide(found)
            if rates and isinstance(rate, float) and not low <= rate <= high:
                texts.append(f"{where} has rate {found.rate:.3g}, not {rate:g}")
    return texts


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
        yield f": {found.note}"
    if found.frozen:
        yield "has the same mask at every call"


def _rule(masked: Sequence[Finding]) -> Rule | None:
    """The rule that all of some findings are, at their common rate; None if they are not one."""
    first = masked[0]
    kinds = {(f.per, f.gates or "tied", f.scaled) for f in masked}
    if len(kinds) > 1:
        return None
    assert first.per is not None
    rate = sum(f.rate * f.elements for f in masked) / sum(f.elements for f in masked)
    return Rule(
        round(rate, 3), first.per, first.kind, first.gates or "tied", first.scaled is not False
    )
