"""Everything that a layer's next call depends on, and that a call may change: captured, and
restored."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def capture_state(variables: Iterable[keras.Variable]) -> Any:
    """Capture everything that the noise of a layer's next call depends on: these variables, among
    them those of seed generators, and the global generators."""
    values = [(v, ops.convert_to_numpy(v.value).copy()) for v in variables]
    return values, _global_generators()


def restore_state(noise: Any) -> None:
    """Have the next call draw the same noise as the call that came after `capture_state`."""
    values, (python, numpy, backend) = noise
    for variable, value in values:
        variable.assign(value)
    random.setstate(python)
    np.random.set_state(numpy)
    if backend is not None:
        import torch

        torch.set_rng_state(backend)


def capture_attributes(layers: Iterable[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Capture the attributes of layers, and what lists, dicts and sets among them hold."""
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
    """A copy of a list, dict or set; None of anything else."""
    for kind in (list, dict, set):
        if isinstance(value, kind):
            return kind(value)
    return None


def _restore_contents(value: Any, contents: Any) -> None:
    """Have a list, dict or set hold what it held."""
    if _same(_contents(value), contents):
        return
    # By the methods of the plain types: Keras's own would track what comes back, which they track
    # already. TensorFlow's stand for others, which their own methods reach.
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
    """The states of Python's and NumPy's generators, and of PyTorch's on the torch backend.

    There Keras's dropout without a seed draws from it, and Keras gives no access to it.
    """
    backend = None
    if keras.backend.backend() == "torch":
        import torch

        backend = torch.get_rng_state()
    return random.getstate(), np.random.get_state(), backend
