"""`Audit`: where a recurrent module masks, as measured by `dropout_policies.audit`."""

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
"""The longest name that `repr` shows in full."""


@dataclass(frozen=True, repr=False)
class Audit:
    """Where a module masks. `dropout_policies.audit` returns it.

    Args:
        name: the name of the module.
        layers: L, the number of layers.
        directions: 1, or 2 for a bidirectional module.
        findings: one for each site of each layer and direction, in that order.
        evaluation: `"identity"`, `"mean of the masks"`, `"undecided"`, or text that says that it is
            none of these.
        notes: which sites share one mask in a way that no policy does.
        policy: the name of the policy that fits. None: no policy fits, or it cannot be decided.
        nearest: the name of the policy that fits best.
        differences: what differs from the nearest policy; empty if it fits.
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
            layer: the number of the layer, from 0.
            direction: 0 for forward, 1 for backward.

        Raises:
            KeyError: the layer has no such site.
        """
        for found in self.findings:
            if (found.site, found.layer, found.direction) == (Site.of(site), layer, direction):
                return found
        raise KeyError(f"{self.name} has no site {site!r} in layer {layer}, direction {direction}")

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """The findings of the sites that the audit could not decide."""
        return tuple(found for found in self.findings if found.verdict == "undecided")

    @property
    def connections(self) -> tuple[int, int]:
        """How many of the vertical connections are masked, and how many there are (L+1)."""
        masked = [self._is_masked(site, layer) for site, layer in self._vertical_connections()]
        return sum(masked), len(masked)

    def corruptions(self, distance: int) -> int | None:
        """Count the masks between x_s and y_t, for t − s = `distance`.

        The signal goes up at step s, through the h of the last layer at every step until t, and
        then out. In bidirectional layers, it goes through the first direction. A mask that it
        passes at several steps counts at each. Zoneout does not count, because it sets nothing to
        zero; masks on weights do not count either.

        Under `zaremba` the result is L+1 at every distance (Zaremba et al. 2014, figure 3).

        Args:
            distance: t − s, from 0.

        Returns:
            The number of masks, or None if it cannot be decided.
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

    def against(self, policy: str | Policy, *, rates: bool | None = None) -> list[str]:
        """List everything that differs from a policy or cannot be decided.

        Args:
            policy: the name of a policy, to compare the placement at any rates. Or a `Policy`, to
                check also that its rates are in the measured intervals.
            rates: whether to check the rates. None: for a `Policy`, and not for a name.

        Returns:
            The differences as text; empty if the module masks where the policy does and nowhere
            else.

        Raises:
            PolicyError: there is no such policy.
        """
        wanted = catalog.resolve(policy)
        compares = isinstance(policy, Policy) if rates is None else rates
        found = find_differences(wanted, self.findings, compares)
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
        *,
        rates: bool | None = None,
    ) -> Diagram:
        """Draw what was measured on the unrolled network.

        Args:
            policy: the policy to compare with. Rows that differ from it are marked. None: the
                policy that fits, or the nearest one.
            steps: T, from 1 to 26.
            path: `(s, t)`, counted from 1: draw the path from x_s to y_t heavy and count the masks
                on it. None: no path.
            rates: whether rates that differ are marked. None: for a `Policy`, and not for a name.

        Raises:
            PolicyError: there is no such policy or path, or `steps` is out of range.
        """
        wanted = catalog.resolve(self.nearest if policy is None else policy)
        compares = isinstance(policy, Policy) if rates is None else rates
        found = find_differences(wanted, self.findings, compares)
        marked = {difference.finding for difference in found}
        rows = make_rows(self.findings, self.layers, marked)
        return Diagram(self.name, rows, steps, path, wanted.name)

    def _repr_html_(self) -> str:
        """The diagram and the report that a notebook shows."""
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
        """The policy that fits, or the nearest one, in a few words."""
        if self._is_unlike_all:
            return f"no policy of the catalogue; nearest: {self.nearest}"
        if self.policy is None or len(self.undecided) == len(self.findings):
            return "undecided"
        has_open_lifetime = any(f.verdict == "masked" and f.per is None for f in self.findings)
        is_certain = not self.undecided and not has_open_lifetime
        return self.policy + ", as far as it can be seen" * (not is_certain)

    @property
    def _is_unlike_all(self) -> bool:
        """Whether the findings certainly differ from every policy of the catalogue."""
        nothing_decided = len(self.undecided) == len(self.findings)
        return not nothing_decided and self.policy is None and bool(self.differences)
