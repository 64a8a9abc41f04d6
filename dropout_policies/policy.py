"""What a policy is: an immutable mapping from site to mask rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self

from .errors import PolicyError
from .sites import Site

FORMAT_VERSION = 1
"""The version written into a policy's JSON; a reader refuses a newer one."""

Lifetime = Literal["step", "sequence"]


def check_rate(rate: object, where: str = "rate") -> float:
    """`rate` as a float in [0, 1).

    Raises:
        PolicyError: it is no real number, is NaN, or lies outside [0, 1).
    """
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise PolicyError(f"{where} must be a number in [0, 1). Received: {where}={rate!r}")
    value = float(rate)
    if math.isnan(value) or not 0.0 <= value < 1.0:
        raise PolicyError(
            f"{where} is the probability of dropping and must lie in [0, 1). "
            f"Received: {where}={rate!r}"
        )
    return value


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a site: m ⊙ x / (1 − rate), with m ~ Bernoulli(1 − rate).

    Args:
        rate: the probability of dropping an element, in [0, 1).
        per: the mask's lifetime: `"step"` draws anew for every step, `"sequence"` holds one
            mask per sample through all steps of a call.

    Raises:
        PolicyError: the rate lies outside [0, 1), or the lifetime is unknown.
    """

    rate: float
    per: Lifetime = "step"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_rate(self.rate))
        if self.per not in ("step", "sequence"):
            raise PolicyError(f"per must be 'step' or 'sequence'. Received: per={self.per!r}")

    def __str__(self) -> str:
        return f"drop {self.rate:g} per {self.per}"


def drop(rate: float, *, per: Lifetime = "step") -> Rule:
    """A rule that drops elements with probability `rate` and scales the kept by 1/(1 − rate)."""
    return Rule(rate, per)


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
        PolicyError: an unknown site, or a value that is no `Rule`.
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
    def evaluation(self) -> Literal["identity"]:
        """What evaluation does: every rule there is today is the identity."""
        return "identity"

    @property
    def active(self) -> bool:
        """Whether any rule drops anything at all."""
        return any(rule.rate > 0.0 for rule in self._rules.values())

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

    def __reduce__(self) -> tuple[Any, ...]:
        return (Policy.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain JSON values; `from_dict` is its inverse."""
        return {
            "version": FORMAT_VERSION,
            "name": self.name,
            "citation": self.citation,
            "rules": {
                site.value: {"kind": "drop", "rate": rule.rate, "per": rule.per}
                for site, rule in self.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The policy that `to_dict` described.

        Raises:
            PolicyError: a newer format version, an unknown kind of rule, or a missing field.
        """
        try:
            version, rules = data["version"], dict(data["rules"])
            if version != FORMAT_VERSION:
                raise PolicyError(
                    f"This policy is in format version {version!r}; this release reads "
                    f"version {FORMAT_VERSION}. Upgrade dropout-policies to read it."
                )
            parsed = {}
            for site, rule in rules.items():
                if rule["kind"] != "drop":
                    raise PolicyError(f"Site {site!r}: unknown kind of rule {rule['kind']!r}.")
                parsed[site] = Rule(rule["rate"], rule["per"])
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
