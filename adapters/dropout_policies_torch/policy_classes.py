"""The class that a module gets under a policy.

A stock module gets our class of the same name. A module of a user's derived class gets a class that
is made on the fly.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from .custom_cell import Unrolled
from .embedding import Embedding
from .layers import GRU, LSTM, RNN
from .step_layers import GRUCell, LSTMCell, RNNCell

RECURRENT: tuple[type[Any], ...] = (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell, Unrolled)
"""Our recurrent classes. Each except the last replaces the `torch.nn` class of the same name."""

REIMPLEMENTED = (
    "its forward does not call super().forward(), and so a policy would not run; call that, or run "
    "a cell of your own with dropout_policies_torch.Unrolled"
)


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is a recurrent layer or cell of PyTorch or this library, or a subclass."""
    return isinstance(module, nn.RNNBase | nn.RNNCellBase | Unrolled)


def swapped_class(module: nn.Module) -> type[Any] | None:
    """Return the class that a module gets under a policy.

    Swapping the `__class__` of an instance leaves the module object, its parameters, its hooks and
    its aliases as they are.

    Returns:
        The class. None if there is none, because the module's `forward` does not call the one that
        it overrides.
    """
    kind: Any = type(module)
    for ours in (*RECURRENT, Embedding):
        stock = getattr(nn, ours.__name__, ours)
        if kind in (ours, stock):
            return ours
        if isinstance(module, stock):
            if not _calls_on(kind, stock):
                return None
            return kind if issubclass(kind, ours) else derived_class(kind, ours)
    return None


def _calls_on(kind: type[Any], stock: type[Any]) -> bool:
    """Whether every `forward` that overrides that of the stock class calls `super().forward`."""
    for derived in kind.__mro__[: kind.__mro__.index(stock)]:
        code = getattr(derived.__dict__.get("forward"), "__code__", None)
        is_ours = derived.__module__.partition(".")[0] == __name__.partition(".")[0]
        if code is not None and not is_ours and not {"super", "forward"} <= {*code.co_names}:
            return False
    return True


@cache
def derived_class(kind: Any, ours: Any) -> type[Any]:
    """Make a subclass of a user's class whose `super().forward()` is ours.

    It has the name of the user's class. A pickle or a copy of an instance makes this class again.
    """

    def reduce(self: Any, protocol: Any) -> Any:
        function, arguments, *rest = super(made, self).__reduce_ex__(protocol)
        if arguments == (made,):  # a new object of this class, which cannot be found by name
            return (_new_instance, (kind, ours), *rest)
        return (function, arguments, *rest)

    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    made: Any = type(kind.__name__, (kind, ours), {**names, "__reduce_ex__": reduce})
    return made  # type: ignore[no-any-return]


def _new_instance(kind: Any, ours: Any) -> Any:
    made: Any = derived_class(kind, ours)
    return made.__new__(made)
