"""Captures and restores all that a layer's next call depends on and that a call may change."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def capture_state(variables: Iterable[keras.Variable]) -> Any:
    """Capture everything that the noise of a layer's next call depends on.

    This is the value of these variables, which include those of seed generators, and the state of
    the global generators.
    """
    values = [(v, ops.convert_to_numpy(v.value).copy()) for v in variables]
    return values, _global_generators()


def restore_state(noise: Any) -> None:
    """Make the next call draw the same noise as the call that followed `capture_state`."""
    values, (python, numpy, backend) = noise
    for variable, value in values:
        variable.assign(value)
    random.setstate(python)
    np.random.set_state(numpy)
    if backend is not None:
        import torch

        torch.set_rng_state(backend)


def capture_attributes(layers: Iterable[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Capture the attributes of layers, and the contents of lists, dicts and sets among them."""
    return [
        (layer, {name: (value, _contents(value)) for name, value in vars(layer).items()})
        for layer in layers
    ]


def restore_attributes(captured: Sequence[tuple[Any, dict[str, Any]]]) -> None:
    """Give layers back the attributes that they had."""
    for layer, attributes in captured:
        now = vars(layer)
        for name in [name for name in now if name not in attributes]:
            del now[name]
        for name, (value, contents) in attributes.items():
            now[name] = value
            if contents is not None:
                _restore_contents(value, contents)


def _contents(value: Any) -> Any:
    """Copy a list, dict or set. None for anything else."""
    for kind in (list, dict, set):
        if isinstance(value, kind):
            return kind(value)
    return None


def _restore_contents(value: Any, contents: Any) -> None:
    """Restore the contents of a list, dict or set."""
    if _same(_contents(value), contents):
        return
    # This uses the methods of the plain types. Keras's own would track the restored contents, which
    # are tracked already. TensorFlow's types wrap others, which only their own methods reach.
    is_its_own = type(value).__module__.partition(".")[0] in ("builtins", "keras")
    kind = type(contents) if is_its_own else type(value)
    if isinstance(contents, list):
        kind.__setitem__(value, slice(None), contents)
    else:
        kind.clear(value)
        kind.update(value, contents)


def _same(first: Any, second: Any) -> bool:
    """Whether two lists, dicts or sets hold the same objects."""
    if isinstance(first, dict):
        first, second = (
            [x for p in first.items() for x in p],
            [x for p in second.items() for x in p],
        )
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _global_generators() -> tuple[Any, Any, Any]:
    """Return the states of Python's and NumPy's generators, and of PyTorch's on the torch backend.

    On torch, Keras's dropout without a seed draws from PyTorch's, to which Keras gives no access.
    """
    backend = None
    if keras.backend.backend() == "torch":
        import torch

        backend = torch.get_rng_state()
    return random.getstate(), np.random.get_state(), backend
