"""Watches functions of a model's code: those that drop, and those that draw random numbers.

It replaces the functions in the place where the code finds them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

Function = Callable[..., Any]

DROPOUT_FUNCTIONS = ("keras.random.dropout", "tensorflow.nn.dropout", "torch.nn.functional.dropout")
"""The functions that perform dropout."""

DRAWS: dict[str, tuple[int, str] | None] = {
    "keras.random.uniform": None,
    "keras.random.binomial": (2, "probabilities"),
    "tensorflow.random.uniform": None,
    "tensorflow.random.stateless_uniform": None,
    "jax.random.uniform": None,
    "jax.random.bernoulli": (1, "p"),
    "torch.rand": None,
    "torch.rand_like": None,
    "torch.bernoulli": (0, "input"),
    "torch.Tensor.bernoulli": (0, "self"),
    "torch.Tensor.bernoulli_": (1, "p"),
    "torch.Tensor.uniform_": None,
}
"""The functions that draw random numbers for masks. The value is the position and name of the
argument with the probability of a 1, if there is one. A function whose name ends in "_" writes into
its first argument."""

FRAMEWORKS = tuple(
    str(Path(package).parent)
    for name in ("keras", "tensorflow", "torch", "jax")
    if (package := getattr(sys.modules.get(name), "__file__", None))
)


@contextmanager
def functions_watched(watch: Callable[[str, Function], Function]) -> Iterator[None]:
    """Make a context in which code finds watched functions instead of the original ones.

    Args:
        watch: makes the watched function from a function's full name and the function.
    """
    with ExitStack() as stack:
        for title in (*DROPOUT_FUNCTIONS, *DRAWS):
            package, _, name = title.rpartition(".")
            holder = _find(package)  # a module or a class
            function = getattr(holder, name, None)
            if function is None:
                continue
            if name in vars(holder):
                stack.callback(setattr, holder, name, function)
            else:  # an inherited method
                stack.callback(delattr, holder, name)
            setattr(holder, name, watch(title, function))
        yield


def is_certain(title: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a draw always gives the same, such as the mask of a dropout at rate 0.

    Args:
        title: the function's full name.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    argument = DRAWS[title]
    if argument is None:
        return False
    position, name = argument
    often = args[position] if len(args) > position else kwargs.get(name, 0.5)
    often = np.asarray(ops.convert_to_numpy(often) if ops.is_tensor(often) else often)
    return bool(np.isin(often.astype("float32"), (0.0, 1.0)).all())


def caller() -> tuple[str, int]:
    """Return the file and line of the model's code that called a function of a framework."""
    frame = sys._getframe(1)
    own = str(Path(__file__).parent)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((*FRAMEWORKS, own)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _find(name: str) -> Any:
    """Return a loaded module, such as `tensorflow.nn`, or a class in one. None if not found."""
    package, *parts = name.split(".")
    module = sys.modules.get(package)
    for part in parts:
        module = getattr(module, part, None)
    return module
