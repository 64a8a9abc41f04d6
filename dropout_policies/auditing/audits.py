"""An `Audit`: where a recurrent module masks, as `dropout_policies.audit` measured it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from ..pictures.diagram import Diagram
from ..pictures.grid import corruptions
from ..policies import catalog
from ..policies.policy import Policy
from ..policies.sites import VERTICAL, Site
from .audit_rows import make_rows
from .comparison import find_differences
from .probing.findings import Finding

MAX_NAME = 60
"""The longest name that `repr` shows whole."""


@dataclass(frozen=True, repr=False)
class Audit:
    """Where a module masks.

    Args:
        name: the module.
        layers: L.
        directions: 1, or 2 for a bidirectional one.
        findings: for every site of every layer and direction, in that order.
        evaluation: `"identity"`, `"mean of the masks"`, `"undecided"`, or that it is neither.
        notes: which sites have one mask in common, as no policy has it.
        policy: the name of the policy that fits; None if none does, or if nothing can be told.
        nearest: the name of the policy that fits best.
        differences: what differs from that one; empty if it fits.
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
        """The finding at a site.

        Args:
            site: a site or its name.
            layer: from 0.
            direction: 0 forward, 1 backward.

        Raises:
            KeyError: the layer has no such site.
        """
        for found in self.findings:
            if (found.site, found.layer, found.direction) == (Site.of(site), layer, direction):
                return found
        raise KeyError(f"{self.name} has no site {site!r} in layer {layer}, direction {direction}")

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """The findings of sites that the audit cannot decide."""
        return tuple(found for found in self.findings if found.verdict == "undecided")

    @property
    def connections(self) -> tuple[int, int]:
        """How many of the vertical connections are masked, and how many there are: L+1."""
        masked = [self._is_masked(site, layer) for site, layer in self._vertical_connections()]
        return sum(masked), len(masked)

    def corruptions(self, distance: int) -> int | None:
        """How many masks lie between x_s and y_t, for t − s = `distance`; None if that is
        undecided. Under `zaremba` L+1, whatever the distance (Zaremba et al. 2014, figure 3).

        The signal goes up at step s, through the last layer's h at every step until t, and out; of
        layers in both directions, through the first. A mask that it passes at several steps is
        counted at each; zoneout, which sets nothing to zero, and masks on weights are not.
        """
        return corruptions(make_rows(self.findings, self.layers, set()), distance)

    def _vertical_connections(self) -> list[tuple[Site, int]]:
        inputs = [(Site.INPUT if n == 0 else Site.BETWEEN, n) for n in range(self.layers)]
        return [*inputs, (Site.OUTPUT, self.layers - 1)]

    def _of_connection(self, site: Site, layer: int) -> list[Finding]:
        """The findings of a connection, in all directions."""
        return [f for f in self.findings if (f.site, f.layer) == (site, layer)]

    def _is_masked(self, site: Site, layer: int) -> bool:
        """Whether a connection is masked in all directions."""
        return all(f.verdict == "masked" for f in self._of_connection(site, layer))

    def _connections_text(self) -> str:
        """How many vertical connections are masked, in words."""
        masked, total = self.connections
        undecided = sum(
            not self._is_masked(site, layer)
            and any(f.verdict == "undecided" for f in self._of_connection(site, layer))
            for site, layer in self._vertical_connections()
        )
        count = f"{masked} of {total}" + f", and {undecided} undecided," * bool(undecided)
        return f"{count} vertical connections masked"

    def against(self, policy: str | Policy) -> list[str]:
        """All that differs from a policy, or cannot be told; empty if masks fall where the policy
        has them and nowhere else.

        Args:
            policy: a name, for its placement at any rates; or a `Policy`, whose rates have to lie
                in the measured intervals too.

        Raises:
            PolicyError: no such policy.
        """
        wanted = catalog.resolve(policy)
        found = find_differences(wanted, self.findings, isinstance(policy, Policy))
        texts = list(dict.fromkeys(map(str, found)))
        texts += [f"{f.site.value} of layer {f.layer + 1}: {f.text()}" for f in self.undecided]
        texts += self.notes
        if self.evaluation != wanted.evaluation:
            texts.append(f"evaluation is {self.evaluation}, not {wanted.evaluation}")
        return texts

    def diagram(
        self,
        policy: str | Policy | None = None,
        steps: int = 4,
        path: tuple[int, int] | None = None,
    ) -> Diagram:
        """A diagram of what was measured, on the unrolled network.

        Args:
            policy: the policy to compare with; rows that differ from it are marked. If left out,
                the policy that fits, or the nearest.
            steps: T.
            path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy, and to count
                the masks of.

        Raises:
            PolicyError: no such policy, no steps or more than 26, or no such path.
        """
        wanted = catalog.resolve(self.nearest if policy is None else policy)
        found = find_differences(wanted, self.findings, isinstance(policy, Policy))
        marked = {difference.finding for difference in found}
        rows = make_rows(self.findings, self.layers, marked)
        return Diagram(self.name, rows, steps, path, wanted.name)

    def _repr_html_(self) -> str:
        """What a notebook shows: the diagram and the report."""
        return f"{self.diagram().svg()}<pre>{escape(str(self))}</pre>"

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

    def __repr__(self) -> str:
        name = self.name if len(self.name) <= MAX_NAME else f"{self.name[: MAX_NAME - 1]}…"
        verdict = f"nearest {self.nearest}" if self._is_unlike_all else self.verdict
        return f"<Audit of {name}: {verdict}, {self._connections_text()}>"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.verdict}"
        yield f"  {self._connections_text()}; evaluation: {self.evaluation}"
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
        if self._is_unlike_all:
            return f"no policy of the catalogue; nearest: {self.nearest}"
        if self.policy is None or len(self.undecided) == len(self.findings):
            return "undecided"
        has_open_lifetime = any(f.verdict == "masked" and f.per is None for f in self.findings)
        is_certain = not self.undecided and not has_open_lifetime
        return self.policy + ", as far as it can be seen" * (not is_certain)

    @property
    def _is_unlike_all(self) -> bool:
        """Whether what was found is known to differ from every policy of the catalogue."""
        nothing_decided = len(self.undecided) == len(self.findings)
        return not nothing_decided and self.policy is None and bool(self.differences)
