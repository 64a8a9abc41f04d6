"""Where a recurrent module masks, measured from outside: `dropout_policies.audit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import PolicyError
from ..pictures.diagram import Diagram
from ..pictures.grid import Row, corruptions, masks_passed
from ..placement.adapters import find_adapter
from ..policies import catalog
from ..policies.policy import Policy
from ..policies.sites import CARRIED, VERTICAL, Site
from .comparison import unlike
from .probing.evidence import UNKNOWN, Finding
from .probing.measure import measure
from .probing.probe import AuditableAdapter
from .probing.reading import Measured


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
        policy: the name of the policy that fits, or None; also where nothing can be told.
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
        """How many of the vertical connections are seen to be masked, and how many there are:
        L+1."""
        masked = self._are_masked()
        return sum(masked), len(masked)

    def corruptions(self, distance: int) -> int | None:
        """How many masks lie between x_s and y_t, for t − s = `distance`; None if that is
        undecided. Under `zaremba` L+1, whatever the distance (Zaremba et al. 2014, figure 3).

        The signal goes up at step s, through the last layer's h at every step until t, and out; of
        layers in both directions, through the first. A mask that it passes at several steps is
        counted at each; zoneout, which sets nothing to zero, and masks on weights are not.
        """
        return corruptions(self._rows(set()), distance)

    def _vertical(self) -> list[tuple[Site, int]]:
        into = [(Site.INPUT if n == 0 else Site.BETWEEN, n) for n in range(self.layers)]
        return [*into, (Site.OUTPUT, self.layers - 1)]

    def _are_masked(self) -> list[bool]:
        """Whether each vertical connection is, in all directions."""
        return [
            all(f.verdict == "masked" for f in self._of(site, layer))
            for site, layer in self._vertical()
        ]

    def _of(self, site: Site, layer: int) -> list[Finding]:
        return [f for f in self.findings if (f.site, f.layer) == (site, layer)]

    def against(self, policy: str | Policy) -> list[str]:
        """All that is otherwise than under a policy, or cannot be told; nothing where masks fall
        there and nowhere else.

        Args:
            policy: a name, for its placement at any rates; or a `Policy`, whose rates have to lie
                in the measured intervals too.

        Raises:
            PolicyError: no such policy.
        """
        wanted = catalog.resolve(policy)
        found = unlike(wanted, self.findings, isinstance(policy, Policy))
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
        """What was measured, on the unrolled network.

        Args:
            policy: what it is compared with; rows that are unlike it are marked. The policy that
                fits, or the nearest, if left out.
            steps: T.
            path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy, and to count
                the masks of.

        Raises:
            PolicyError: no such policy, no steps or more than 26, or no such path.
        """
        wanted = catalog.resolve(self.nearest if policy is None else policy)
        rates = isinstance(policy, Policy)
        wrong = {difference.finding for difference in unlike(wanted, self.findings, rates)}
        return Diagram(self.name, self._rows(wrong), steps, path, wanted.name)

    def _rows(self, wrong: Set[Finding]) -> list[Row]:
        """What was found, from the input up."""
        rows = []
        for layer in range(self.layers):
            into = [f for f in self.findings if f.site in (Site.INPUT, Site.BETWEEN)]
            words = [f for f in self.findings if f.site is Site.EMBEDDING and layer == 0]
            here = [f for f in self.findings if f.layer == layer and f.site not in VERTICAL]
            name = "between" if layer else "input"
            rows.append(_row(name, [f for f in into if f.layer == layer], words, wrong))
            carried = [f for f in here if f.site in CARRIED]
            inside = [f for f in here if f.site not in CARRIED]
            rows.append(_row(f"layer {layer + 1}", carried, inside, wrong))
        rows.append(_row("output", [f for f in self.findings if f.site is Site.OUTPUT], [], wrong))
        return rows

    def _repr_html_(self) -> str:
        """What a notebook shows: the measured network, and the report."""
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

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        masked, all_ = self.connections
        yield f"{self.name}: {self.verdict}"
        open_ = sum(
            not masked_ and any(f.verdict == "undecided" for f in self._of(site, layer))
            for (site, layer), masked_ in zip(self._vertical(), self._are_masked(), strict=True)
        )
        count = f"{masked} of {all_}" + f", and {open_} undecided," * bool(open_)
        yield f"  {count} vertical connections masked; evaluation: {self.evaluation}"
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
        nothing_told = len(self.undecided) == len(self.findings)
        if nothing_told or (self.policy is None and not self.differences):
            return "undecided"
        if self.policy is not None:
            open_ = any(f.verdict == "masked" and f.per is None for f in self.findings)
            sure = ", as far as it can be seen" if self.undecided or open_ else ""
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
    adapter = find_adapter(model)
    if not isinstance(adapter, AuditableAdapter):
        raise PolicyError(
            f"{type(model).__name__} cannot be audited: its adapter, {type(adapter).__qualname__}, "
            f"has no method probe(model)."
        )
    try:
        with adapter.probe(model) as probe:
            found = measure(probe)
            name = probe.name
    except PolicyError:
        raise
    except Exception as error:  # whatever a module raises that cannot be run so
        raise PolicyError(
            f"{type(model).__name__} cannot be run as the audit runs it, on an input of three axes "
            f"alone, in training and in evaluation: {type(error).__name__}: {error}. Give the "
            f"audit the recurrent layer alone."
        ) from error
    return _audit(name, found)


def _audit(name: str, found: Measured) -> Audit:
    cells = found.network.cells
    layers = found.network.layers
    fits = [(unlike(catalog.resolve(n), found.findings), n) for n in catalog.names()]
    # A policy that masks nothing of what is masked here would be no comparison.
    masked = {f.site for f in found.findings if f.verdict == "masked"}
    near = [(texts, n) for texts, n in fits if any(map(catalog.resolve(n).masks, masked))]
    fits = near or [fit for fit in fits if not catalog.resolve(fit[1]).active]
    unlikes, nearest = min(fits, key=lambda fit: len(fit[0]))
    differences = list(dict.fromkeys(map(str, unlikes)))
    evaluation = catalog.resolve(nearest).evaluation
    if found.evaluation not in (evaluation, "undecided"):
        differences.append(f"evaluation is {found.evaluation}, not {evaluation}")
    differences += found.notes
    told = not found.torn and any(f.verdict != "undecided" for f in found.findings)
    told = told and not any(f.note in UNKNOWN for f in found.findings)
    return Audit(
        name,
        layers,
        1 + any((layer, 1) in cells and (layer, 0) in cells for layer in range(layers)),
        tuple(found.findings),
        found.evaluation,
        tuple(found.notes),
        None if differences or not told else nearest,
        nearest,
        tuple(differences),
    )


def _row(name: str, line: Sequence[Finding], beside: Sequence[Finding], wrong: Set[Finding]) -> Row:
    """What was found on a row's connections, and beside them."""
    masked = [f for f in line if f.verdict == "masked"]
    unknown = not masked and any(f.verdict == "undecided" for f in line)
    lives = {f.per for f in masked}
    notes: list[str] = []
    for found in (*line, *beside):
        short = "" if found.site in VERTICAL else f"{found.site.value} "
        if found.verdict == "masked":
            notes.append(f"{'backward ' * found.direction}{short}{found.text()}")
        elif found in wrong:
            notes.append(f"{short}whole")
    open_ = [f.site.value for f in (*line, *beside) if f.verdict == "undecided"]
    notes += [f"undecided: {', '.join(dict.fromkeys(open_))}"] if open_ else []
    passed, onward = _passed([f for f in (*line, *beside) if f.site is not Site.EMBEDDING])
    return Row(
        name,
        "; ".join(dict.fromkeys(notes)),
        None if unknown else bool(masked),
        lives.pop() if len(lives) == 1 else None,
        any(f.verdict == "masked" and f.site is not Site.EMBEDDING for f in beside),
        any(f in wrong for f in (*line, *beside)),
        passed,
        onward,
    )


def _passed(found: Sequence[Finding]) -> tuple[int | None, ...]:
    """The masks on a row that a signal passes, in its first direction."""
    first = min((f.direction for f in found), default=0)
    sites = {
        verdict: {f.site for f in found if (f.direction, f.verdict) == (first, verdict)}
        for verdict in ("masked", "undecided")
    }
    return masks_passed(sites["masked"], sites["undecided"])
