"""The class that a layer gets under a policy.

A stock layer gets our class of the same name. A layer of a user's derived class gets a class that
is made on the fly.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import CodeType
from typing import Any

import keras

from .conv_layers import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
from .embedding import EMBEDDINGS, Embedding
from .layers import GRU, LSTM, RNN, SimpleRNN
from .model_layers import Layer, takes_training
from .saving_warnings import warn_of_lost_policy
from .step_layers import GRUCell, LSTMCell, SimpleRNNCell

RECURRENT: tuple[type[Any], ...] = (
    *(LSTM, GRU, SimpleRNN, ConvLSTM1D, ConvLSTM2D, ConvLSTM3D),
    *(LSTMCell, GRUCell, SimpleRNNCell),
    RNN,
)
"""Our recurrent classes. Each replaces the `keras.layers` class of the same name. `RNN` comes last,
because Keras derives the other layers from it."""


def swapped_class(layer: Layer) -> type[Any] | None:
    """Return the class that a layer gets under a policy. None if `reason_to_skip` gives a reason.

    Swapping the `__class__` of an instance leaves the layer object, its variables, their paths and
    the optimizer's slots as they are.
    """
    kind: Any = type(layer)
    ours = _class_for(kind)
    if ours is None or reason_to_skip(layer):
        return None
    made: type[Any] = ours
    if kind not in (ours, _stock(ours)):
        made = kind if issubclass(kind, ours) else derived_class(kind, ours)
    return made


def reason_to_skip(layer: Layer) -> str:
    """Explain why a recurrent layer or an embedding can take no policy. "" if it can take one."""
    kind: Any = type(layer)
    ours = _class_for(kind)
    if ours is None:
        return "policies run on the recurrent layers and embeddings of keras.layers"
    for name in ("call", "inner_loop"):
        for code in _overridden(kind, ours, name):
            if not _calls_on(code, name, _stock(ours)):
                return (
                    f"its {name} does not call super().{name}(), and so a policy would not run; "
                    f"call that, or run a cell of your own with dropout_policies_keras.RNN"
                )
    is_embedding = issubclass(ours, Embedding)
    if is_embedding and has_own_call(layer) and not issubclass(kind, ours):
        name = ours.__name__
        return (
            f"its call cannot pass training on, which Keras's {name} does not take; derive it "
            f"from dropout_policies_keras.{name}"
        )
    if has_own_call(layer) and not takes_training(layer):
        return (
            "its call takes no training, and so a policy would never mask; write "
            "call(self, ..., training=False), and pass it on to super().call()"
        )
    return ""


def has_own_call(layer: Layer) -> bool:
    """Whether the class of a layer is a user's subclass of a stock class or ours with a `call`."""
    ours = _class_for(type(layer))
    return ours is not None and any(_overridden(type(layer), ours, "call"))


def _class_for(kind: type[Any]) -> Any:
    """Return our class for the stock class that a class derives from. None if there is none."""
    matching = (ours for ours in (*RECURRENT, *EMBEDDINGS) if issubclass(kind, _stock(ours)))
    return next(matching, None)


def _stock(ours: type[Any]) -> type[Any]:
    stock: type[Any] = getattr(keras.layers, ours.__name__)
    return stock


def _overridden(kind: type[Any], ours: type[Any], name: str) -> Iterator[CodeType]:
    """Yield the code of a method in each class of a user's that overrides it."""
    for derived in kind.__mro__[: kind.__mro__.index(_stock(ours))]:
        method = derived.__dict__.get(name)
        code = None if method is None else getattr(inspect.unwrap(method), "__code__", None)
        is_ours = derived.__module__.partition(".")[0] == __name__.partition(".")[0]
        if code is not None and not is_ours:
            yield code


def _calls_on(code: CodeType, name: str, stock: type[Any]) -> bool:
    """Whether a method calls the method that it overrides.

    For the `call` of a recurrent layer, calling `inner_loop` is enough, because policies run there.
    """
    names = {*code.co_names, *code.co_freevars}
    if {"super", name} <= names:
        return True
    by_class = {name, stock.__name__} <= names or "inner_loop" in names
    return name == "call" and by_class and issubclass(stock, keras.layers.RNN)


@cache
def derived_class(kind: Any, ours: Any) -> type[Any]:
    """Make a subclass of a user's class whose `super().call()` is ours.

    It has the name of the user's class, and is saved as a layer of that class, without the policy.
    """

    def get_config(self: Any) -> dict[str, Any]:
        config: dict[str, Any] = super(made, self).get_config()
        if config.pop("placement", None) is not None:
            warn_of_lost_policy(f"{self.name} ({kind.__name__})", self.placement.policy.name)
        return config

    def from_config(cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001  a class method
        return kind.from_config(*args, **kwargs)

    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "get_config": get_config,
        "from_config": classmethod(from_config),
    }
    made: Any = type(kind.__name__, (kind, ours), names)
    package, is_registered, name = keras.saving.get_registered_name(kind).partition(">")
    if is_registered:
        # Both classes have the same name in files. Reading a file gives the user's class.
        keras.saving.register_keras_serializable(package, name)(made)
        keras.saving.get_custom_objects()[f"{package}>{name}"] = kind
    return made  # type: ignore[no-any-return]
