"""How a model is called with an example."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def as_function(model: nn.Module, example: Any) -> Callable[[], Any]:
    """Make a function that runs a model on an example.

    If the example is a function, it is returned. Otherwise the example is passed as one input, as
    several inputs or as keywords, depending on what the model's `forward` can take.
    """
    is_data = isinstance(example, Tensor | PackedSequence | Mapping | nn.Module)
    if callable(example) and not is_data:
        return example  # type: ignore[no-any-return]
    model = _unwrapped(model)
    if hasattr(example, "__next__"):
        example = next(example)
    many: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((example,), {})]
    if isinstance(example, tuple) and not hasattr(example, "_fields"):
        many.insert(0, (example, {}))
    elif isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        many.insert(0, ((), dict(example)))
    signature = inspect.signature(model.forward)
    args, kwargs = next((one for one in many if _binds(signature, *one)), many[0])
    return lambda: model(*args, **kwargs)


def _binds(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside DDP or DataParallel, whose call may wait for other processes."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model
