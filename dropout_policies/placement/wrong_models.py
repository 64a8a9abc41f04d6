"""What an error says about a model that no adapter handles, and what to pass instead."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, ValuesView
from types import ModuleType
from typing import Any

from ..argument_checks import short_repr
from ..policies.catalog import names
from ..policies.policy import Policy

COMPILED = {
    "ScriptFunction": "torch.jit",
    "ScriptMethod": "torch.jit",
    "ExportedProgram": "torch.export",
    "ExportedModule": "torch.export",
}
"""What a model's code can be compiled into, by the name of the class, and what compiles it."""

WITHOUT_ADAPTER = ("flax", "equinox", "haiku", "mlx", "mxnet", "paddle", "tensorflow", "tf_keras")
"""Frameworks whose models look like models, and for which this project has no adapter."""


PLAIN: tuple[Any, ...] = (list, tuple, set, frozenset, Mapping, ValuesView, Iterator)
"""Collections and iterators."""

WEIGHTS = "if these are weights, load them into a model, and pass the model"

MODEL_CLASSES = ("Module", "Layer", "Model", "Block")
"""What frameworks call the class that models are derived from."""


def describe_wrong_model(model: object, frameworks: Sequence[str]) -> str:
    """Return the text of the error for a value that no adapter handles.

    Args:
        model: the value.
        frameworks: the frameworks that have an adapter.
    """
    known = ", ".join(frameworks) or "none, because no adapter is installed"
    received, advice = _describe(model, frameworks)
    return (
        f"A policy goes on a model of one of these frameworks: {known}. "
        f"Received: {received}{'; ' * bool(advice)}{advice}"
    )


def _describe(model: Any, frameworks: Sequence[str]) -> tuple[str, str]:
    """What was received, and what to do."""
    kind = type(model)
    if model is None:
        return (
            "model=None",
            "pass the model itself. If a function creates it, that function must return it.",
        )
    if isinstance(model, type):
        return (
            f"the class {model.__qualname__}",
            f"create the model first: model = {model.__name__}(...)",
        )
    if origin := COMPILED.get(kind.__name__):
        return (
            f"model of type {kind.__module__}.{kind.__qualname__}",
            f"this is what {origin} made of a model. Its code is compiled, and no policy can go "
            f"inside: put the policy on the Python model first, and then call {origin}.",
        )
    if isinstance(model, Policy):
        return f"model={model!r}", "the model comes before the policy: dp.apply(model, policy)"
    if isinstance(model, str | os.PathLike):
        return f"model={short_repr(model)}", _advise_on_text(model)
    if isinstance(model, ModuleType):
        return (
            f"the Python module {model.__name__}",
            f"pass a model that is created with it: model = {model.__name__}.SomeModel(...)",
        )
    if isinstance(model, Mapping) and model and not _holds_models(model.values()):
        return (
            f"model of type {kind.__module__}.{kind.__qualname__} with the keys "
            f"{', '.join(short_repr(key) for key in list(model)[:3])}",
            WEIGHTS,
        )
    if isinstance(model, Mapping | Iterable) and _is_collection(model):
        return _describe_collection(model)
    if callable(model):
        found = _describe_function(model)
        if found is not None:
            return found
    return _describe_object(model, frameworks)


def _advise_on_text(text: str | os.PathLike[str]) -> str:
    if isinstance(text, str) and str.__str__(text) in names():
        return f"the model comes before the policy: dp.apply(model, {short_repr(text)})"
    return "load the model first, and pass the model and not its path or name"


def _is_collection(model: object) -> bool:
    """Whether a value is a plain collection or an iterator, and no class with named fields."""
    return isinstance(model, PLAIN) and not hasattr(model, "_fields")


def _holds_models(values: Iterable[object]) -> bool:
    return any(
        any(map(callable, value)) if isinstance(value, list | tuple) else callable(value)
        for value in values
    )


def _describe_collection(models: Any) -> tuple[str, str]:
    """For several models at once."""
    kind = type(models).__name__
    if isinstance(models, Iterator):
        return (
            f"an iterator ({kind})",
            "pass one model at a time: for model in models: ...",
        )
    if not models:
        return f"an empty {kind}", "pass a model"
    values = models.values() if isinstance(models, Mapping) else models
    kinds = ", ".join(list(dict.fromkeys(type(each).__name__ for each in values))[:3])
    received = f"a {kind} of {len(models)} {'item' if len(models) == 1 else 'items'} ({kinds})"
    if not _holds_models(values):
        return received, WEIGHTS
    loop = "models.values()" if isinstance(models, Mapping) else "models"
    return (
        received,
        f"pass one model at a time: for model in {loop}: ... If they are parts of one model, pass "
        f"that model.",
    )


def _describe_function(function: Callable[..., Any]) -> tuple[str, str] | None:
    """For what can be called and has a name, or is a `functools.partial`. None: another object."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(function, functools.partial):
        made = getattr(function.func, "__name__", "")
        return (
            f"a functools.partial{f' of {made}' * bool(made)}",
            "call it to create the model, and pass the result: model = partial()",
        )
    if not name or not hasattr(function, "__qualname__"):
        return None
    if owner is not None and not isinstance(owner, type | ModuleType):
        return (
            f"the method {function.__qualname__}",
            f"pass the model itself, and not its method {name}",
        )
    called = name if name.isidentifier() else "make_model"
    return (
        f"the function {name}",
        f"call it if it creates the model, and pass the result: model = {called}()",
    )


def _describe_object(model: object, frameworks: Sequence[str]) -> tuple[str, str]:
    """For any other object."""
    kind = type(model)
    received = f"model of type {kind.__module__}.{kind.__qualname__}"
    if hasattr(model, "remove") and hasattr(model, "stacks"):
        return received, "this is the report of dp.apply; pass the model, or call report.remove()"
    is_model = any(base.__name__ in MODEL_CLASSES for base in kind.__mro__)
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__ if is_model}
    for framework in ("keras", "torch"):
        if framework in packages and framework not in frameworks:
            return received, f"install its adapter: pip install 'dropout-policies[{framework}]'"
    for framework in WITHOUT_ADAPTER:
        if framework in packages:
            return received, (
                f"no adapter for {framework} is installed. The guide 'Write an adapter' shows how "
                f"to make one."
            )
    return received, "pass the model itself"
