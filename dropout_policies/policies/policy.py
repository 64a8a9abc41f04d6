"""`Policy`: an immutable mapping from sites to mask rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Never, Self

from ..argument_checks import as_integer, check_text, short_repr
from ..errors import MissingRuleError, PolicyError, WrongArgumentsError
from .rates import Rates, Schedule, parse_rates, rates_text
from .rule_errors import describe_wrong_rules, rule_text
from .rules import MaskShape, Rule
from .sites import MATRICES, Site

if TYPE_CHECKING:
    from ..pictures.diagram import Diagram

FORMAT_VERSION = 3
"""The version written into a policy's JSON. A reader refuses a newer one."""


class Policy(Mapping[Site, Rule]):
    """An immutable mapping from sites to rules, with a name and a citation.

    ```python
    Policy(input=drop(0.5), between=drop(0.5, per="sequence"), name="mine")
    ```

    `a | b` combines two policies that use different sites. Two rules for one site are an error.

    Args:
        *given: nothing; each rule is given by the name of its site.
        name: the name that reports show.
        citation: the publication that the policy comes from, if any.
        **rules: a rule for each site, by the site's name.

    Raises:
        PolicyError: a site is unknown, a value is not a `Rule`, a site does not accept its rule,
            the name or citation is not a string, or rules are given without a site's name.
    """

    __slots__ = ("_citation", "_name", "_rules")

    def __init__(
        self, *given: Never, name: str = "custom", citation: str = "", **rules: Rule
    ) -> None:
        if given:
            raise WrongArgumentsError(describe_wrong_rules(given))
        self._name = check_text(name, "name")
        self._citation = check_text(citation, "citation")
        checked: dict[Site, Rule] = {}
        for site_name, rule in rules.items():
            if site_name in ("rate", "rules"):  # nearly the names of sites
                raise WrongArgumentsError(describe_wrong_rules([rule]))
            site = Site.of(site_name)
            if not isinstance(rule, Rule):
                raise PolicyError(
                    f"Site {site_name!r} needs a rule. Received: {site_name}={short_repr(rule)}; "
                    f"write: {site_name}={rule_text(rule)}"
                )
            rule.check_at(site)
            checked[site] = rule
        self._rules = {site: checked[site] for site in Site if site in checked}

    @property
    def name(self) -> str:
        """The name that reports show."""
        return self._name

    @property
    def citation(self) -> str:
        """The publication that the policy comes from, or ""."""
        return self._citation

    @property
    def evaluation(self) -> Literal["identity", "mean of the masks"]:
        """What the masks become in evaluation: the identity, or the mean of each mask.

        It is the mean under zoneout, and for drops that are not scaled in training.
        """
        same = all(rule.same_in_evaluation for rule in self._rules.values() if rule.active)
        return "identity" if same else "mean of the masks"

    @property
    def active(self) -> bool:
        """Whether any rule ever drops anything."""
        return any(rule.active for rule in self._rules.values())

    def masks(self, site: Site) -> bool:
        """Whether the policy ever masks a site.

        Args:
            site: a site or its name.

        Raises:
            PolicyError: the site is unknown.
        """
        rule = self._rules.get(Site.of(site))
        return rule is not None and rule.active

    @property
    def scheduled(self) -> bool:
        """Whether any rate follows a `Schedule`, that is, changes with the number of the call."""
        rates = [rule.rate for rule in self._rules.values()]
        each = [r for rate in rates for r in (rate if isinstance(rate, tuple) else (rate,))]
        return any(isinstance(rate, Schedule) for rate in each)

    def with_rates(self, rate: Rates) -> Policy:
        """Return the same policy with other rates.

        Args:
            rate: for all sites: a number in [0, 1), a `Schedule`, or a list with one of these for
                each layer of the stack. Or a mapping from site names to such rates; the other
                sites keep theirs.

        Raises:
            PolicyError: the policy has no rule for a site, or a rate is out of range.
        """
        if not isinstance(rate, Mapping):
            rates = parse_rates(rate)
            changed = {site: rule.with_rate(rates) for site, rule in self.items()}
        else:
            changed = dict(self._rules)
            for name, value in rate.items():
                site = Site.of(name)
                rates_here = parse_rates(value, f"rate[{site.value!r}]")
                changed[site] = self[site].with_rate(rates_here)
        rules = {site.value: rule for site, rule in changed.items()}
        return Policy(name=self.name, citation=self.citation, **rules)

    def with_shape(self, shape: MaskShape) -> Policy:
        """Return the same policy with another mask shape, for values with spatial axes.

        Args:
            shape: `"element"`, or `"channel"` for whole feature maps. Masks of weights and of
                word types do not change.

        Raises:
            PolicyError: `shape` is another word.
        """
        rules = {
            site.value: rule if site in MATRICES else replace(rule, shape=shape)
            for site, rule in self.items()
        }
        return Policy(name=self.name, citation=self.citation, **rules)

    def __getitem__(self, site: Site | str) -> Rule:
        """The rule at a site, which is given as a `Site` or by name.

        Raises:
            KeyError: the policy has no rule there. The error is a `PolicyError` too.
        """
        try:
            return self._rules[Site.of(site)]
        except PolicyError as error:
            raise MissingRuleError(str(error)) from None
        except KeyError:
            has = ", ".join(map(repr, (s.value for s in self))) or "no site"
            raise MissingRuleError(
                f"Policy {self.name!r} has no rule at site {str(site)!r}. It has: {has}."
            ) from None

    def __iter__(self) -> Iterator[Site]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __eq__(self, other: object) -> bool:
        """Equal if the same sites have the same rules, whatever the names."""
        return isinstance(other, Policy) and self._rules == other._rules

    def __hash__(self) -> int:
        return hash(tuple(self._rules.items()))

    def __or__(self, other: Policy) -> Policy:
        if not isinstance(other, Policy):
            return self._refuse_to_combine(other)
        clash = [site.value for site in self if site in other]
        if clash:
            raise PolicyError(
                f"{self.name} and {other.name} both set a rule for "
                f"{', '.join(clash)}: leave it out of one of them."
            )
        rules = {site.value: rule for policy in (self, other) for site, rule in policy.items()}
        citations = "; ".join(c for c in (self.citation, other.citation) if c)
        return Policy(name=f"{self.name}|{other.name}", citation=citations, **rules)

    def _refuse_to_combine(self, other: object) -> Any:
        if isinstance(other, str) or callable(other):
            name = other if isinstance(other, str) else getattr(other, "__name__", "")
            raise WrongArgumentsError(
                f"Only policies can be combined with |. Received: {short_repr(other)}; write: "
                f"dp.{name if name.isidentifier() else 'zaremba'}()"
            )
        return NotImplemented

    __ror__ = _refuse_to_combine

    def __repr__(self) -> str:
        rules = ", ".join(f"{site.value}={rule}" for site, rule in self.items())
        return f"<policy {self.name}: {rules or 'no masks'}>"

    def as_arguments(self) -> str:
        """The policy as a layer's arguments, for its repr: `policy='zaremba', rate=0.5`."""
        rates = {site.value: rates_text(rule.rate) for site, rule in self.items()}
        if not rates:
            return f"policy={self.name!r}"
        by_site = ", ".join(f"{site!r}: {rate}" for site, rate in rates.items())
        rate = next(iter(rates.values())) if len(set(rates.values())) == 1 else f"{{{by_site}}}"
        has_channels = any(rule.shape == "channel" for rule in self.values())
        return f"policy={self.name!r}, rate={rate}" + ", shape='channel'" * has_channels

    def diagram(
        self, layers: int = 2, steps: int = 4, path: tuple[int, int] | None = None
    ) -> Diagram:
        """Draw the policy on the unrolled network.

        Args:
            layers: L, from 1 to 1,000.
            steps: T, from 1 to 26.
            path: `(s, t)`, counted from 1: draw the path from x_s to y_t heavy and count the masks
                on it. None: no path.

        Raises:
            PolicyError: `layers` or `steps` is out of range, there is no such path, or the policy
                has rates for fewer layers.
        """
        from ..pictures.policy_diagram import draw_policy  # only this method needs it

        return draw_policy(self, layers, steps, path)

    def _repr_html_(self) -> str:
        """The diagram that a notebook shows."""
        from ..pictures.policy_diagram import draw_policy, layers_with_rates

        return draw_policy(self, layers_with_rates(self)).svg()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Policy.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain JSON values. `from_dict` reads them back."""
        return {
            "version": FORMAT_VERSION,
            "name": self.name,
            "citation": self.citation,
            "rules": {site.value: rule.to_dict() for site, rule in self.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a policy from what `to_dict` returned.

        Args:
            data: plain JSON values.

        Raises:
            PolicyError: the format version is newer, a kind of rule is unknown, or a field is
                missing.
        """
        try:
            version, rules = as_integer(data["version"]), data["rules"]
            if version is None or not isinstance(rules, Mapping):
                raise TypeError("version must be an integer, and rules a mapping")
            if version not in range(1, FORMAT_VERSION + 1):
                raise PolicyError(
                    f"This policy is in format version {version!r}; this release reads "
                    f"versions up to {FORMAT_VERSION}. Upgrade dropout-policies to read it."
                )
            # Version 1 had only drops, tied and scaled. Version 2 had only masks of elements.
            absent: dict[str, Any] = {"gates": "tied", "scaled": True} if version == 1 else {}
            absent |= {"shape": "element"} if version < FORMAT_VERSION else {}
            parsed = {site: Rule.from_dict({**absent, **rule}) for site, rule in rules.items()}
            name, citation = data["name"], data["citation"]
            if not isinstance(name, str) or not isinstance(citation, str):
                raise TypeError("name and citation must be strings")
            return cls(name=name, citation=citation, **parsed)
        except PolicyError:
            raise
        except Exception as error:  # any value in `data` may fail in its own way
            raise PolicyError(
                f"This is not a saved policy ({short_repr(error)}). Received: {short_repr(data)}"
            ) from None

    def to_json(self) -> str:
        """The policy as JSON text. `from_json` reads it back."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a policy from the JSON that `to_json` wrote.

        Args:
            text: the JSON.

        Raises:
            PolicyError: the text is not a JSON object, or not a saved policy.
        """
        try:
            data = json.loads(text, object_pairs_hook=_object_without_duplicates)
        except (ValueError, TypeError, RecursionError) as error:
            raise PolicyError(f"This is not JSON ({error}). Received: {short_repr(text)}") from None
        return cls.from_dict(data)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Each name may occur only once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {short_repr(name)} is given twice")
        found[name] = value
    return found
