"""The result of `apply`: what it changed, what it skipped, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Any

from ..errors import PolicyError
from ..pictures.diagram import Diagram
from ..pictures.grid import Row
from ..policies.policy import Policy
from ..policies.rules import Rule
from ..policies.sites import VERTICAL, Site
from .plans import Placement, masked_connections
from .swapped_layer import Restorable


def rules_text(policy: Mapping[Site, Rule], sites: frozenset[Site]) -> str:
    """The rules of a policy at some sites, as text."""
    places: dict[Rule, list[str]] = {}
    for site, rule in policy.items():
        if site in sites and rule.active:
            places.setdefault(rule, []).append(site.value)
    rules = [f"{', '.join(names)} {rule.text()}" for rule, names in places.items()]
    return "; ".join(rules) or "no masks"


@dataclass(frozen=True, slots=True)
class Touched:
    """A recurrent layer object that now runs under the policy.

    Args:
        name: its name in the model.
        kind: its class before, as a user writes it.
        layers: how many layers it holds.
        placement: its policy and its position in the stack.
        native: the framework's own dropout that was taken over, as the user wrote it, or "".
    """

    name: str
    kind: str
    layers: int
    placement: Placement
    native: str = ""

    @property
    def masked(self) -> int:
        """How many vertical connections of this object are masked."""
        return masked_connections(self.placement, self.layers)

    def rows(self) -> Iterator[Row]:
        """Its rows of a diagram: the input of each layer, and the layer.

        If the stack ends here, the output is the last row.
        """
        here = self.placement

        def rule(site: Site, inner: int) -> Rule | None:
            masks_site = here.masks_site(site, inner)
            return here.policy[site].of_layers(here.depth + inner, 1) if masks_site else None

        for number, (site, inner) in enumerate(here.vertical(self.layers)):
            yield Row.connection(site.value, rule(site, inner))
            if number == self.layers:
                return
            name = self.name if self.layers == 1 else f"{self.name}, layer {inner + 1}"
            inside = [s for s in Site if s not in VERTICAL | {Site.EMBEDDING}]
            rules = {s: made for s in inside if (made := rule(s, inner)) is not None}
            yield Row.layer(name, rules)

    def sites(self) -> str:
        """The rules that run on this object, as text."""
        own = {site for site, _ in self.placement.vertical(self.layers)}
        others = VERTICAL - own | {Site.EMBEDDING}
        here = self.placement
        own_rules = {
            site: rule.of_layers(here.depth, self.layers)
            for site, rule in here.policy.items()
            if site not in others
        }
        if Site.OUTPUT in own and Site.OUTPUT in here.policy:
            last = here.policy[Site.OUTPUT].of_layers(here.depth + self.layers - 1, 1)
            own_rules[Site.OUTPUT] = last
        return rules_text(own_rules, frozenset(Site))


@dataclass(frozen=True, slots=True)
class TouchedEmbedding:
    """An embedding that now drops word types under the policy.

    Args:
        name: its name in the model.
        kind: its class before, as a user writes it.
        policy: the policy whose rule it follows.
    """

    name: str
    kind: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Skipped:
    """A layer or dropout that was left as it is, and why.

    Args:
        name: its name in the model.
        kind: its class, as a user writes it.
        why: the reason.
    """

    name: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A dropout of the model that was switched off, because a policy masks the same place.

    Args:
        name: its name in the model.
        kind: its class, as a user writes it.
        rate: its rate as it was written, such as `p=0.5`.
        place: the connection that it was on.
    """

    name: str
    kind: str
    rate: str
    place: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A series of recurrent layers, each of which feeds the next.

    Args:
        members: its layer objects.
    """

    members: tuple[Touched, ...]

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return sum(member.layers for member in self.members)

    @property
    def connections(self) -> int:
        """The number of vertical connections: L+1 in a chain of L layers."""
        return sum(len(m.placement.vertical(m.layers)) for m in self.members)

    @property
    def forked(self) -> bool:
        """Whether it begins or ends at several layers, so that it is not a chain."""
        places = [member.placement for member in self.members]
        return [sum(p.first for p in places), sum(p.last for p in places)] != [1, 1]

    @property
    def masked(self) -> int:
        """How many of its vertical connections are masked."""
        return sum(member.masked for member in self.members)


class Applied:
    """A policy on a model: what was changed, what was skipped, and how to undo it.

    `dropout_policies.apply` returns it. `print` shows it as text. As a context manager, it removes
    the policy at the end of the block.

    Attributes:
        policies: the policies.
        stacks: the stacks, each with the layers that now run under a policy.
        embeddings: the embeddings that now run under a policy.
        skipped: the layers and dropouts that were left as they are, and why.
        taken_over: the dropouts of the model that were switched off.
        notes: other observations, one sentence each.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        stacks: Sequence[Sequence[Touched]],
        skipped: Sequence[Skipped],
        before: Sequence[Restorable],
        embeddings: Sequence[TouchedEmbedding] = (),
        notes: Sequence[str] = (),
        taken_over: Sequence[TakenOver] = (),
    ) -> None:
        self._adapter: Any = None
        self._model: Any = None
        self.policies = tuple(policies)
        self.taken_over = tuple(taken_over)
        self.notes = tuple(notes)
        self.stacks = tuple(Stack(tuple(members)) for members in stacks)
        self.skipped = tuple(skipped)
        self.embeddings = tuple(embeddings)
        self._before: Sequence[Restorable] | None = before

    @property
    def policy(self) -> Policy:
        """The policy; the first one if there are several."""
        return self.policies[0]

    @property
    def touched(self) -> tuple[Touched, ...]:
        """All layer objects under the policy, in stack order."""
        return tuple(member for stack in self.stacks for member in stack.members)

    def diagrams(self, steps: int = 4, path: tuple[int, int] | None = None) -> tuple[Diagram, ...]:
        """Draw each stack on the unrolled network. If layers fork or join, draw each by itself.

        Args:
            steps: T, from 1 to 26.
            path: `(s, t)`, counted from 1: draw the path from x_s to y_t heavy and count the masks
                on it. None: no path.

        Returns:
            The diagrams, in the order of the stacks.

        Raises:
            PolicyError: `steps` is out of range, or there is no such path.
        """
        drawn = []
        for stack in self.stacks:
            parts = [[m] for m in stack.members] if stack.forked else [list(stack.members)]
            for part in parts:
                policies = " and ".join(dict.fromkeys(m.placement.policy.name for m in part))
                title = f"{policies} on {' and '.join(member.name for member in part)}"
                rows = _with_output_row([row for member in part for row in member.rows()])
                drawn.append(Diagram(title, rows, steps, path))
        return tuple(drawn)

    def _repr_html_(self) -> str:
        """The diagrams and the report that a notebook shows."""
        return "".join(d.svg() for d in self.diagrams()) + f"<pre>{escape(str(self))}</pre>"

    @property
    def active(self) -> bool:
        """Whether the policy is still on the model."""
        return self._before is not None

    def changes(self) -> list[str]:
        """Recurrent layers that were added without a policy since, or that the model lost."""
        if self._model is None or not self.active:
            return []
        try:
            now = [item.name for item in self._adapter.wiring(self._model, None).layers]
        except PolicyError:  # no recurrent layer is left
            now = []
        masked = [f"{name}/" for name in self._adapter.under_policy(self._model)]
        skipped = {layer.name for layer in self.skipped}
        is_masked = {name: any(one.startswith(f"{name}/") for one in masked) for name in now}
        added = [name for name in now if not is_masked[name] and name not in skipped]
        gone = [layer.name for layer in self.touched if layer.name not in now]
        return [
            *(f"added since, without a policy: {name}" for name in added),
            *(f"no longer in the model: {name}" for name in gone),
        ]

    def watch(self, adapter: Any, model: Any) -> None:
        """Make the report tell what changes in the model from now on.

        Args:
            adapter: the adapter that applied the policy.
            model: the model.
        """
        self._adapter, self._model = adapter, model

    def remove(self) -> None:
        """Restore every layer exactly as it was before. A second call does nothing.

        Raises:
            PolicyError: the class of a layer was changed since. Nothing is removed then.
        """
        if self._before is not None:
            for item in self._before:
                item.check()
            for item in self._before:
                item.restore()
            self._before = None

    def __enter__(self) -> Applied:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __str__(self) -> str:
        state = "" if self.active else " (removed)"
        names = ", ".join(dict.fromkeys(policy.name for policy in self.policies))
        rules = ", ".join(dict.fromkeys(policy.evaluation for policy in self.policies))
        count, number = len(self.touched), len(self.stacks)
        lines = [
            f"{'policy' if len(self.policies) == 1 else 'policies'} {names}{state}: "
            f"{count} recurrent layer{'s' * (count != 1)} "
            f"in {number} stack{'s' * (number != 1)}; evaluation: {rules}"
        ]
        for index, stack in enumerate(self.stacks, 1):
            lines.append(
                f"  stack {index}: L = {stack.layers}, {stack.masked} of "
                f"{stack.connections} vertical connections masked"
            )
            for member in stack.members:
                times = f" x{member.layers}" if member.layers > 1 else ""
                lines.append(f"    {member.name} ({member.kind}{times}): {member.sites()}")
                if member.native:
                    lines.append(f"      taken over, back on remove(): {member.native}")
        for words in self.embeddings:
            rule = rules_text(words.policy, frozenset({Site.EMBEDDING}))
            lines.append(f"  {words.name} ({words.kind}): {rule}")
        lines.extend(
            f"  taken over, back on remove(): {one.name} ({one.kind}, {one.rate}), which masked "
            f"{one.place}"
            for one in self.taken_over
        )
        lines.extend(f"  {note}" for note in self.notes)
        lines.extend(f"  {change}" for change in self.changes())
        lines.extend(f"  skipped {left.name} ({left.kind}): {left.why}" for left in self.skipped)
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line. `print` shows the whole report."""
        return f"<Applied {str(self).splitlines()[0]}>"


def _with_output_row(rows: list[Row]) -> list[Row]:
    """The rows, with a connection on top: an unmasked one if other layers take the output in,
    because it is masked where it enters those layers."""
    return rows if len(rows) % 2 else [*rows, Row("output", "masked where it is taken in")]
