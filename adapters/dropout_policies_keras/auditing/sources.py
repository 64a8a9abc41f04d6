"""What the noise of a layer's next call depends on: noted, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops


def note(variables: Iterable[keras.Variable]) -> Any:
    """Everything that the noise of a layer's next call depends on: these variables, seed
    generators' among them, and generators that no layer holds."""
    return [(v, ops.convert_to_numpy(v.value).copy()) for v in variables], _generators()


def put_back(noise: Any) -> None:
    """Have the next call draw the same noise as the call that came after `note`."""
    values, (python, array, own) = noise
    for variable, value in values:
        variable.assign(value)
    random.setstate(python)
    np.random.set_state(array)
    if own is not None:
        import torch

        torch.set_rng_state(own)


def _generators() -> tuple[Any, Any, Any]:
    """On the torch backend, Keras's dropout without a seed draws from PyTorch's generator, to which
    Keras itself gives no access."""
    own = None
    if keras.backend.backend() == "torch":
        import torch

        own = torch.get_rng_state()
    return random.getstate(), np.random.get_state(), own
