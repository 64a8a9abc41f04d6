"""What a policy is: an immutable mapping from site to mask rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from .diagram import Diagram
from .errors import PolicyError
from .grid import rows_under
from .rates import Schedule
from .rule import Rule
from .sites import Site

FORMAT_VERSION = 2
"""The version written into a policy's JSON; a reader refuses a newer one."""


class Policy(Mapping[Site, Rule]):
    """An immutable mapping from site to rule, with a name and a citation.

    ```python
    Policy(input=drop(0.5), between=drop(0.5, per="sequence"), name="mine")
    ```

    `a | b` joins two policies on different sites; a site that both name is an error.

    Args:
        name: how reports call it.
        citation: the publication it comes from, if any.
        rules: a rule for each site, by the site's name.

    Raises:
        PolicyError: an unknown site, a value that is no `Rule`, or a rule that cannot stand at
            its site.
    """

    __slots__ = ("_citation", "_name", "_rules")

    def __init__(self, *, name: str = "custom", citation: str = "", **rules: Rule) -> None:
        checked: dict[Site, Rule] = {}
        for site_name, rule in rules.items():
            site = Site.of(site_name)
            if not isinstance(rule, Rule):
                raise PolicyError(
                    f"Site {site_name!r} needs a rule. Received: {site_name}={rule!r}; "
                    f"write: {site_name}=dp.drop({rule!r})"
                )
            rule.check_at(site)
            checked[site] = rule
        self._rules = {site: checked[site] for site in Site if site in checked}
        self._name = name
        self._citation = citation

    @property
    def name(self) -> str:
        return self._name

    @property
    def citation(self) -> str:
        return self._citation

    @property
    def evaluation(self) -> Literal["identity", "mean of the masks"]:
        """What evaluation does: nothing, or each mask's mean in its place (zoneout, and drops
        that are not scaled in training)."""
        same = all(rule.same_in_evaluation for rule in self._rules.values() if rule.active)
        return "identity" if same else "mean of the masks"

    @property
    def active(self) -> bool:
        """Whether any rule drops anything at all."""
        return any(rule.active for rule in self._rules.values())

    def masks(self, site: Site) -> bool:
        """Whether a mask ever falls on a site."""
        return site in self._rules and self._rules[site].active

    @property
    def scheduled(self) -> bool:
        """Whether a rate changes with the number of the call."""
        rates = [rule.rate for rule in self._rules.values()]
        each = [r for rate in rates for r in (rate if isinstance(rate, tuple) else (rate,))]
        return any(isinstance(rate, Schedule) for rate in each)

    def with_rates(self, rate: object) -> Policy:
        """The same policy at other rates.

        Args:
            rate: for every site, a number, a `Schedule`, or a list of these, one for each layer
                of the stack; or a mapping from the names of some sites to such rates.

        Raises:
            PolicyError: a site that the policy has no rule for, or a rate out of range.
        """
        if not isinstance(rate, Mapping):
            changed = {site: rule.with_rate(rate) for site, rule in self.items()}
        else:
            changed = dict(self._rules)
            for name, value in rate.items():
                site = Site.of(name)
                if site not in changed:
                    has = ", ".join(map(repr, (s.value for s in self))) or "no site"
                    raise PolicyError(
                        f"Policy {self.name!r} has no rule at site {name!r}. It has: {has}."
                    )
                changed[site] = changed[site].with_rate(value)
        rules = {site.value: rule for site, rule in changed.items()}
        return Policy(name=self.name, citation=self.citation, **rules)

    def __getitem__(self, site: Site) -> Rule:
        return self._rules[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __eq__(self, other: object) -> bool:
        """Equal when the same rules fall on the same sites, whatever the names are."""
        return isinstance(other, Policy) and self._rules == other._rules

    def __hash__(self) -> int:
        return hash(tuple(self._rules.items()))

    def __or__(self, other: Policy) -> Policy:
        if not isinstance(other, Policy):
            return NotImplemented
        clash = [site.value for site in self if site in other]
        if clash:
            raise PolicyError(
                f"{self.name} and {other.name} both set a rule for "
                f"{', '.join(clash)}: leave it out of one of them."
            )
        rules = {site.value: rule for policy in (self, other) for site, rule in policy.items()}
        citations = "; ".join(c for c in (self.citation, other.citation) if c)
        return Policy(name=f"{self.name}|{other.name}", citation=citations, **rules)

    def __repr__(self) -> str:
        rules = ", ".join(f"{site.value}={rule}" for site, rule in self.items())
        return f"<policy {self.name}: {rules or 'no masks'}>"

    def diagram(
        self, layers: int = 2, steps: int = 4, path: tuple[int, int] | None = None
    ) -> Diagram:
        """The policy on the unrolled network.

        Args:
            layers: L.
            steps: T.
            path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy, and to count
                the masks of.

        Raises:
            PolicyError: there are no layers, no steps or more than 26, or no such path.
        """
        return Diagram(self.name, rows_under(self, layers), steps, path)

    def _repr_html_(self) -> str:
        """What a notebook shows: the policy on the unrolled network."""
        return self.diagram().svg()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Policy.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain JSON values; `from_dict` is its inverse."""
        return {
            "version": FORMAT_VERSION,
            "name": self.name,
            "citation": self.citation,
            "rules": {site.value: rule.to_dict() for site, rule in self.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The policy that `to_dict` described.

        Raises:
            PolicyError: a newer format version, an unknown kind of rule, or a missing field.
        """
        try:
            version, rules = data["version"], dict(data["rules"])
            if version not in (1, FORMAT_VERSION):
                raise PolicyError(
                    f"This policy is in format version {version!r}; this release reads "
                    f"versions up to {FORMAT_VERSION}. Upgrade dropout-policies to read it."
                )
            # Version 1 had drops alone, tied and scaled.
            absent = {"gates": "tied", "scaled": True} if version == 1 else {}
            parsed = {site: Rule.from_dict({**absent, **rule}) for site, rule in rules.items()}
            name, citation = data["name"], data["citation"]
            if not isinstance(name, str) or not isinstance(citation, str):
                raise TypeError("name and citation must be texts")
            return cls(name=name, citation=citation, **parsed)
        except PolicyError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PolicyError(f"This is no saved policy ({error!r}). Received: {data!r}") from None

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy that `to_json` wrote.

        Raises:
            PolicyError: the text is no JSON object, or no saved policy.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PolicyError(f"This is no JSON ({error}). Received: {text[:80]!r}") from None
        return cls.from_dict(data)
