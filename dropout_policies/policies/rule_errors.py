"""What an error says about the rules of a policy: what was received, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ..argument_checks import short_repr
from .rates import Schedule, rate_to_write
from .rules import Rule
from .sites import Site


def describe_wrong_rules(given: Sequence[object]) -> str:
    """Return the text of the error for arguments that `Policy` received without a site's name.

    Args:
        given: the arguments.
    """
    first, example = given[0], "input=dp.drop(0.5)"
    if isinstance(first, str) and not isinstance(first, Site):
        how = (
            f"write: dp.Policy({example}, name={short_repr(first)}). A published policy has a "
            f"function, such as dp.zaremba(0.5)."
        )
    elif is_saved(first):
        how = "to read a saved policy, write: dp.Policy.from_dict(...)"
    elif isinstance(first, Mapping) and first and all(map(is_site, first)):
        has_rules = all(isinstance(rule, Rule) for rule in first.values())
        how = f"write: dp.Policy({'**rules' if has_rules else rules_text(first)})"
    else:
        how = f"write: dp.Policy(input={rule_text(first)})"
    received = ", ".join(map(short_repr, given))
    return f"Policy takes each rule by the name of its site. Received: {received}; {how}"


def is_site(name: object) -> bool:
    """Whether something is a site or the name of one."""
    return isinstance(name, str) and str.__str__(name) in {site.value for site in Site}


def is_rate_or_rule(value: object) -> bool:
    """Whether something seems to be meant as a rule, or as its rate."""
    return value is None or isinstance(value, Rule | Schedule | Real | list | tuple)


def is_saved(value: object) -> bool:
    """Whether something is what `Policy.to_dict` returns."""
    return isinstance(value, Mapping) and "rules" in value and "version" in value


def rules_text(rules: Mapping[Any, object]) -> str:
    """The keywords of `Policy` for rules or rates by site."""
    return ", ".join(f"{str.__str__(site)}={rule_text(rule)}" for site, rule in rules.items())


def rule_text(rule: object) -> str:
    """The rule to write for a rate; an example if it is none."""
    if isinstance(rule, Rule):
        return "..."
    return f"dp.drop({'0.5' if isinstance(rule, Mapping) else rate_to_write(rule)})"
