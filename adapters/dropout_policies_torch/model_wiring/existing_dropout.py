"""The dropout modules that a model has already: found by behaviour, switched off, and restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dropout_policies.adapter import ExistingDropout, RecurrentLayer

from ..found_layers import kind_of

RATE_NAMES = (
    *("p", "rate", "drop", "dropout", "drop_prob", "drop_rate", "drop_p", "prob"),
    *("dropout_rate", "dropout_prob", "dropout_p", "p_dropout", "dropprob", "droprate"),
)
"""The attributes that hold a dropout's rate, in PyTorch and in people's own classes."""


def find_dropouts(
    model: nn.Module, found: Sequence[RecurrentLayer]
) -> dict[nn.Module, ExistingDropout]:
    """The active dropout modules of a model, outside of its recurrent layers.

    A module is a dropout if its class, or one that it derives from, says so in its name, if it has
    no weights, and if it is no container of others.

    Args:
        model: the model.
        found: its recurrent layers.
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
                name, kind_of(module), f"{attribute}={rate:g}", module, _is_plain(module, attribute)
            )
    return dropouts


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is dropout: by the name of its class, without weights or others inside."""
    names = [kind.__name__.lower() for kind in type(module).__mro__]
    if not any("dropout" in name for name in names) or next(module.parameters(), None) is not None:
        return False
    return not any(is_dropout(inner) for inner in module.children())


def rate_attribute(module: nn.Module) -> str | None:
    """The attribute that holds a dropout's rate; None if there is none."""
    for name in RATE_NAMES:
        value = getattr(module, name, None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (isinstance(value, Tensor) and value.numel() == 1):
            return name
    return None


def _is_plain(module: nn.Module, attribute: str) -> bool:
    """Whether a rate is an ordinary attribute, and so can be set."""
    return attribute in vars(module)


class SwitchedOffDropout:
    """A dropout module whose rate is about to be set to 0; plain data, as a swapped layer.

    Args:
        module: the dropout.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.attribute = rate_attribute(module) or "p"

    def check(self) -> None:
        """Nothing can be wrong."""

    def switch_off(self) -> None:
        """Set the rate to 0, and have the module remember it."""
        name = self.attribute
        self.module.rate_before_policy = (name, vars(self.module)[name])
        setattr(self.module, name, 0.0)

    def restore(self) -> None:
        """Give the module its rate back."""
        restore_rate(self.module)


def restore_rate(module: nn.Module) -> None:
    """Give a dropout that a policy switched off its rate back; nothing for any other module."""
    saved = vars(module).pop("rate_before_policy", None)
    if saved is not None:
        setattr(module, *saved)
