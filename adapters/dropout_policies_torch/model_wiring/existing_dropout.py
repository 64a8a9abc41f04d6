"""Finding the dropout modules that a model already has, switching them off, and restoring them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dropout_policies.adapter import (
    ExistingDropout,
    RecurrentLayer,
    number_text,
)

from ..found_layers import kind_of

RATE_NAMES = (
    *("p", "rate", "drop", "dropout", "drop_prob", "drop_rate", "drop_p", "prob"),
    *("dropout_rate", "dropout_prob", "dropout_p", "p_dropout", "dropprob", "droprate"),
)
"""The attributes that may hold a dropout's rate, in PyTorch and in users' own classes."""


def find_dropouts(
    model: nn.Module, found: Sequence[RecurrentLayer]
) -> dict[nn.Module, ExistingDropout]:
    """Find the active dropout modules of a model, outside of its recurrent layers.

    A module is a dropout if its class or a base class has "dropout" in its name, if it has no
    weights, and if it contains no other dropout.

    Args:
        model: the model.
        found: its recurrent layers.

    Returns:
        The dropouts, by module.
    """
    inside = {inner for item in found for inner in item.layer.modules()}
    dropouts = {}
    for name, module in model.named_modules():
        if module in inside or not is_dropout(module):
            continue
        attribute = rate_attribute(module)
        if attribute is None:
            dropouts[module] = ExistingDropout(
                name, kind_of(module), "rate given in each call", module, can_switch_off=False
            )
        elif (rate := float(getattr(module, attribute))) > 0.0:
            dropouts[module] = ExistingDropout(
                name,
                kind_of(module),
                f"{attribute}={number_text(rate)}",
                module,
                _is_plain(module, attribute),
            )
    return dropouts


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is a dropout by its class name, without weights or inner dropouts."""
    names = [kind.__name__.lower() for kind in type(module).__mro__]
    if not any("dropout" in name for name in names) or next(module.parameters(), None) is not None:
        return False
    return not any(is_dropout(inner) for inner in module.children())


def rate_attribute(module: nn.Module) -> str | None:
    """Return the name of the attribute that holds a dropout's rate. None if there is none."""
    for name in RATE_NAMES:
        value = getattr(module, name, None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (isinstance(value, Tensor) and value.numel() == 1):
            return name
    return None


def _is_plain(module: nn.Module, attribute: str) -> bool:
    """Whether a rate is an ordinary attribute, which can be set."""
    return attribute in vars(module)


class SwitchedOffDropout:
    """A dropout module whose rate is about to be set to 0. It is plain data, like a swapped layer.

    Args:
        module: the dropout.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.attribute = rate_attribute(module) or "p"

    def check(self) -> None:
        """Check nothing, because nothing can be wrong."""

    def switch_off(self) -> None:
        """Set the rate to 0, and store the old rate in the module."""
        name = self.attribute
        self.module.rate_before_policy = (name, vars(self.module)[name])
        setattr(self.module, name, 0.0)

    def restore(self) -> None:
        """Give the module its old rate back."""
        restore_rate(self.module)


def restore_rate(module: nn.Module) -> None:
    """Give a dropout that a policy switched off its old rate back. Other modules do not change."""
    saved = vars(module).pop("rate_before_policy", None)
    if saved is not None:
        setattr(module, *saved)
