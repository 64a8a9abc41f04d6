"""What the words of a command mean: policies, rates, models and examples."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .argument_checks import short_repr
from .errors import PolicyError
from .policies.catalog import names, resolve, resolve_argument
from .policies.policy import Policy
from .policies.rates import Rates

FRAMEWORKS = ("torch", "keras", "tensorflow", "jax")

EXAMPLES = {
    "--args": "'[16, 16]'",
    "--kwargs": "'{\"num_layers\": 2}'",
    "--stacks": '\'[["low", "high"]]\'',
}
"""What a user may write for an option in JSON."""

FORMS = "a name, several names as zaremba+zoneout, or a JSON file that ends with .json"
"""How a policy is written on the command line."""


def find_policy(text: str, rate: str | None = None) -> Policy:
    """Return the policy that a user names.

    Args:
        text: a name, several names with `+` or `|` between them, or the path of a JSON file.
        rate: rates that replace the policy's, as text, or None.

    Raises:
        PolicyError: there is no such policy or file, two policies have a rule for one site, or the
            rate is no rate of the policy.
    """
    rates = None if rate is None else parse_rate(rate)
    if text in names():
        return resolve(text, rates)
    if is_file(text):
        policy = _read_policy(Path(text))
        return policy if rates is None else policy.with_rates(rates)
    first, *others = (part.strip() for part in re.split(r"[+|]", text))
    policy = resolve_argument("policy", first, None)
    for other in others:
        policy = policy | resolve(other)
    if rates is None:
        return policy
    if others and not isinstance(rates, dict):
        sites = ", ".join(f'"{site.value}": 0.5' for site in list(policy)[:2])
        raise PolicyError(
            f"One rate does not fit several policies. Received: {text} and --rate {rate}; write a "
            f"rate for each site: --rate '{{{sites}}}'"
        )
    return policy.with_rates(rates)


def is_file(text: str) -> bool:
    """Whether a policy is written as the path of a file."""
    return text.lower().endswith(".json") or "/" in text


def _read_policy(path: Path) -> Policy:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PolicyError(
            f"{path} cannot be read: {reason}. A policy is written as {FORMS}. "
            f"dp.Policy.to_json() makes the text of the file."
        ) from None
    try:
        return Policy.from_json(text)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def parse_rate(text: str) -> Rates:
    """Return the rates that a user writes: a number, or JSON as `Policy.with_rates` takes it.

    Raises:
        PolicyError: the text is neither.
    """
    try:
        return json.loads(text)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        pass
    try:
        return float(text)
    except ValueError:
        raise PolicyError(
            f"--rate takes a number, a list with one for each layer, or a JSON object with sites. "
            f"Received: {short_repr(text)}; write: --rate 0.5, --rate '[0.2, 0.5]' or "
            f"--rate '{{\"input\": 0.5}}'"
        ) from None


def find_example(target: str | None) -> Any:
    """Return the example that a user names: an object, or what a function returns."""
    if target is None:
        return None
    found = find_object(target)
    return found() if callable(found) else found


def find_object(target: str) -> Any:
    """Return the object that a user names as module:name. The current folder is searched first.

    Raises:
        PolicyError: there is none.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise PolicyError(f"Write module:name, such as torch.nn:LSTM. Received: {target}")
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")  # a user's own module is in the folder of the command
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise PolicyError(
            f"{target} cannot be imported: {describe_error(error)}. {_import_advice(error)}"
        ) from error


def _import_advice(error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in ("torch", "keras") and "pip install" not in str(error):
        return f"Install it: pip install 'dropout-policies[{missing}]'"
    if missing in FRAMEWORKS:
        return f"Install {missing}."
    return "Write module:name, such as torch.nn:LSTM."


def build_model(target: str, args: str, kwargs: str, features: int) -> Any:
    """Create the layer or model that a user names.

    Args:
        target: module:name of a class or a function.
        args: its positional arguments, as a JSON list.
        kwargs: its keyword arguments, as a JSON object.
        features: D, to build a Keras layer.

    Raises:
        PolicyError: it cannot be imported or created, or the arguments are not JSON.
    """
    given, named = parse_json("--args", args, list), parse_json("--kwargs", kwargs, dict)
    create: Callable[..., Any] = find_object(target)
    try:
        made = create(*given, **named)
        if hasattr(made, "built") and not made.built:
            made.build((None, None, features))
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise PolicyError(
            f"{target} cannot be created: {describe_error(error)}. Write module:name of a class or "
            f"function, such as torch.nn:LSTM, and its arguments with --args and --kwargs."
        ) from error
    return made


def parse_json(option: str, text: str, kind: type) -> Any:
    """Return what an option says in JSON.

    Raises:
        PolicyError: it is not JSON, or not of the kind.
    """
    example = EXAMPLES[option]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            f"{option} is not JSON ({error}). Received: {short_repr(text)}; write: "
            f"{option} {example}"
        ) from None
    if not isinstance(found, kind):
        what = "list" if kind is list else "object"
        raise PolicyError(
            f"{option} takes a JSON {what}. Received: {short_repr(text)}; write: {option} {example}"
        )
    return found


def describe_error(error: BaseException) -> str:
    """Return the type and the text of an error."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
