"""What an error says about a policy that is none: what was received, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from types import ModuleType
from typing import Any

from ..argument_checks import short_repr
from .policy import Policy
from .rate_errors import similar_rate
from .rates import Schedule
from .rule_errors import is_rate_or_rule, is_saved, is_site, rules_text
from .rules import Rule
from .sites import Site

RULE = "policy=dp.Policy(input=dp.drop(0.5))"


def describe_wrong_policy(policy: object, names: Sequence[str], argument: str = "policy") -> str:
    """Return the text of the error for a value that is neither a policy nor the name of one.

    Args:
        policy: the value.
        names: the names of all policies.
        argument: what the error calls the value.
    """
    if isinstance(policy, str) and not isinstance(policy, Site):
        return _describe_text(str.__str__(policy), names)
    received = short_repr(policy)
    for kind, advise in _ADVICE.items():
        if isinstance(policy, kind):
            return (
                f"{argument} must be a name or a Policy. Received: {argument}={received}; "
                f"{advise(policy, names)}"
            )
    raise AssertionError("every value is an object")


def is_mapping_of_rules(policy: object) -> bool:
    """Whether a mapping seems to hold rules or rates by site, or a saved policy.

    `apply` takes mappings from layers' names to policies. This is none of them.
    """
    if not isinstance(policy, Mapping) or isinstance(policy, Policy):
        return False
    by_site = bool(policy) and all(is_site(name) for name in policy)
    return is_saved(policy) or (
        by_site and all(is_rate_or_rule(value) for value in policy.values())
    )


def _describe_text(text: str, names: Sequence[str]) -> str:
    """The text of the error for a text that is no name."""
    parts = {part.strip(): _known(part, names) for part in re.split(r"[|+,&]", text)}
    if len([part for part in parts if part]) > 1 and any(parts.values()):
        if unknown := [part for part, known in parts.items() if known is None and part]:
            return f"In {short_repr(text)}: {_describe_text(unknown[0], names)}"
        calls = [_call(name) for name in parts.values() if name]
        return (
            f"There is no policy {short_repr(text)}. To combine policies, write: "
            f"policy={' | '.join(calls)}"
        )
    if text.lstrip().startswith("{"):
        hint = "To read a policy from JSON, write: policy=dp.Policy.from_json(text)."
    elif text.lower().endswith(".json"):
        hint = (
            f"To read a policy from a file, write: "
            f"policy=dp.Policy.from_json(pathlib.Path({short_repr(text)}).read_text())."
        )
    else:
        known = _known(text, names)
        near = [known] if known else difflib.get_close_matches(text.lower(), names, 3, 0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See dp.names()."
    return f"There is no policy {short_repr(text)}. {hint} The names are: {', '.join(names)}."


def _known(text: str, names: Sequence[str]) -> str | None:
    """The name that a text means: in capitals, with spaces around or with hyphens inside."""
    plain = re.sub(r"[\s-]+", "_", text.strip().lower())
    return next((name for name in names if plain in (name, name.lower())), None)


def _call(name: str) -> str:
    return f"dp.{name}()" if name.isidentifier() else f"dp.resolve({name!r})"


def _advise_nothing(_: object, names: Sequence[str]) -> str:
    return f"write: policy={names[1]!r}, for example, or policy='none' for no masks."


def _advise_module(_: object, names: Sequence[str]) -> str:
    return f"this is a module; write: policy={names[1]!r} or policy=dp.{names[1]}()"


def _advise_function(function: Any, names: Sequence[str]) -> str:
    named = getattr(function, "func", function)  # of a functools.partial
    name = getattr(named, "__name__", "")
    if not name:  # an object with a method __call__
        return f"write: policy={names[1]!r}, or {RULE}"
    if name in names and named is function:
        return f"call it: policy=dp.{name}(), or write its name: policy={name!r}"
    if isinstance(function, type):
        return f"this is a class; write: policy={names[1]!r}, or {RULE}"
    return "if it returns a policy, call it: policy=make_policy()"


def _advise_list(policies: Iterable[object], names: Sequence[str]) -> str:
    found = list(policies)
    known = [_known(each, names) if isinstance(each, str) else None for each in found]
    if len(found) == 1 and known[0]:
        return f"write: policy={known[0]!r}"
    calls = " | ".join(_call(name) if name else "..." for name in known)
    if not any(known) or len(known) > 5:
        calls = "dp.zaremba() | dp.zoneout()"
    return (
        f"to combine policies on each layer, write: policy={calls}; for layers with policies of "
        f"their own, dp.apply takes a mapping: policy={{'encoder.*': 'zaremba'}}"
    )


def _advise_mapping(policy: Mapping[Any, object], _: Sequence[str]) -> str:
    if is_saved(policy):
        return "to read a saved policy, write: policy=dp.Policy.from_dict(...)"
    if policy and all(map(is_site, policy)):
        return f"for rules by site, write: policy=dp.Policy({rules_text(policy)})"
    return (
        "a layer has one policy: policy='zaremba'. dp.apply takes a mapping, from names or "
        "patterns of layers to policies."
    )


def _advise_number(number: Any, names: Sequence[str]) -> str:
    return f"a rate goes with a policy: policy={names[1]!r}, rate={similar_rate(number) or 0.5}"


def _advise_bytes(data: bytes, names: Sequence[str]) -> str:
    name = _known(data.decode(errors="replace"), names)
    return f"write a text: policy={(name or names[1])!r}"


_ADVICE: dict[Any, Callable[[Any, Sequence[str]], str]] = {
    type(None): _advise_nothing,
    ModuleType: _advise_module,
    Site: lambda site, _: f"this is a site; write: policy=dp.Policy({site.value}=dp.drop(0.5))",
    Rule: lambda *_: f"a rule belongs to a site: {RULE}",
    Schedule: lambda _, names: f"this is a rate; write: policy={names[1]!r}, rate=...",
    Real: _advise_number,
    Mapping: _advise_mapping,
    bytes: _advise_bytes,
    list | tuple | set | frozenset: _advise_list,
    Callable: _advise_function,
    object: lambda _, names: f"write: policy={names[1]!r}, or {RULE}",
}
"""What to write instead, by the type of what was received. The first type that fits counts."""
