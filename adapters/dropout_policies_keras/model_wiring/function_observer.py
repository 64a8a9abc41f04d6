"""The functions of a model's code that are watched in a run, where that code finds them: those that
are dropout, and those that draw random numbers."""

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
"""The functions that are dropout."""

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
"""The functions that draw random numbers of which masks are made; with the argument that says how
often a 1 is drawn, where there is one. Those that end in "_" write into their first argument."""

FRAMEWORKS = tuple(
    str(Path(package).parent)
    for name in ("keras", "tensorflow", "torch", "jax")
    if (package := getattr(sys.modules.get(name), "__file__", None))
)


@contextmanager
def functions_watched(watch: Callable[[str, Function], Function]) -> Iterator[None]:
    """While it is entered, code finds watched functions in the place of these.

    Args:
        watch: makes the watched function, of a function's full name and the function.
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
            else:  # a method that it inherits
                stack.callback(delattr, holder, name)
            setattr(holder, name, watch(title, function))
        yield


def is_certain(title: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a draw gives the same always, as that of a mask at rate 0.

    Args:
        title: the function's full name.
        args: its arguments.
        kwargs: its arguments by keyword.
    """
    argument = DRAWS[title]
    if argument is None:
        return False
    position, name = argument
    often = args[position] if len(args) > position else kwargs.get(name, 0.5)
    often = np.asarray(ops.convert_to_numpy(often) if ops.is_tensor(often) else often)
    return bool(np.isin(often.astype("float32"), (0.0, 1.0)).all())


def caller() -> tuple[str, int]:
    """The file and line of the model's code that called a function of a framework."""
    frame = sys._getframe(1)
    own = str(Path(__file__).parent)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((*FRAMEWORKS, own)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _find(name: str) -> Any:
    """A module that is loaded, such as `tensorflow.nn`, or a class in one; None if it is not."""
    package, *parts = name.split(".")
    module = sys.modules.get(package)
    for part in parts:
        module = getattr(module, part, None)
    return module
