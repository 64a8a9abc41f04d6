"""Everything that the noise of a layer's next call depends on: captured, and restored."""

from __future__ import annotations

import random
from collections.abc import Iterable
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


def _global_generators() -> tuple[Any, Any, Any]:
    """The states of Python's and NumPy's generators, and of PyTorch's on the torch backend.

    There Keras's dropout without a seed draws from it, and Keras gives no access to it.
    """
    backend = None
    if keras.backend.backend() == "torch":
        import torch

        backend = torch.get_rng_state()
    return random.getstate(), np.random.get_state(), backend
