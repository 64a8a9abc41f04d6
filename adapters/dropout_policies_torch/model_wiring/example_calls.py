"""What an example means: how a model is called with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def as_function(model: nn.Module, example: Any) -> Callable[[], Any]:
    """What runs a model on an example: the example itself if it is a function, or a call with it as
    one input, several, or keywords, as the model's `forward` can take it."""
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
    """The module inside of DDP or DataParallel, whose call may wait for other processes."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model
