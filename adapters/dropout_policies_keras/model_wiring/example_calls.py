"""Running a model on an example from the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from dropout_policies.adapter import PolicyError

from ..model_layers import Layer, layers_of, variables_of
from ..tracing import values_only

SPECIAL_ARGUMENTS = ("training", "mask")
"""The arguments of `call` that are not inputs."""


def as_function(model: Layer, example: Any) -> Callable[[], Any]:
    """Make a function that runs a model on an example.

    If the example is a function, it is returned. Otherwise the example is passed as one input, as
    several inputs or as keywords, depending on what the model's `call` can take.

    Raises:
        PolicyError: the example is an iterator with nothing left.
    """
    if callable(example) and not isinstance(example, keras.layers.Layer | Mapping):
        return example  # type: ignore[no-any-return]
    if hasattr(example, "__next__"):
        example = next(example, None)
        if example is None:
            raise PolicyError("example is an iterator that has nothing left. Give it a new one.")
    parameters = inspect.signature(model.call).parameters.values()
    inputs = [p for p in parameters if p.name not in SPECIAL_ARGUMENTS]
    by_position = [p.name for p in inputs if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = [*by_position, *(p.name for p in inputs if p.kind is p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in inputs)
    if isinstance(example, tuple) and not hasattr(example, "_fields"):
        if takes_any or len(by_position) >= len(example) > 1:
            return lambda: model(*example)
        example = example[0] if len(example) == 1 else list(example)
    if isinstance(example, Mapping) and example and set(example) <= {*names, *SPECIAL_ARGUMENTS}:
        keywords = dict(example)
        first = keywords.pop(names[0]) if names and names[0] in keywords else None
        return lambda: model(**keywords) if first is None else model(first, **keywords)
    return lambda: model(example)


def build(model: Layer, run: Callable[[], Any]) -> None:
    """Run a model that is not built once to build it. Nothing else remains of the run."""
    unbuilt = [layer for layer in layers_of(model) if not layer.built]
    if not unbuilt:
        return
    # The global generators keep their new state, so another model gets other initial weights.
    values = [(v, ops.convert_to_numpy(v.value).copy()) for v in variables_of(model)]
    with name_errors(model), values_only():
        run()
    for variable, value in values:
        variable.assign(value)
    for layer in unbuilt:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()


@contextmanager
def name_errors(model: Layer) -> Iterator[None]:
    """Turn any error in a model's run into one that explains how to give an example."""
    try:
        yield
    except Exception as error:
        raise PolicyError(
            f"{type(model).__name__} does not run on the example: "
            f"{type(error).__name__}: {error}. Write example=x for one input, example=(x, y) "
            f"for several, example={{'name': x}} for keywords or a dictionary, or "
            f"example=lambda: model(...) for any call."
        ) from error
