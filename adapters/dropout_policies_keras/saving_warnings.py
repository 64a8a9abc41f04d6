"""Warnings for models that lose their policy when they are saved or cloned.

Keras saves a model or layer of a user's class by its own `get_config`, which knows no policy.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MethodType
from typing import Any

from dropout_policies.adapter import PolicyWarning

from .model_layers import Layer, layers_of
from .policy_layer import PolicyLayer


def warn_of_lost_policy(what: str, policy: str) -> None:
    """Warn that a layer or model is saved or cloned without its policy.

    Args:
        what: the layer or model, as the warning calls it.
        policy: the name of the policy.
    """
    warnings.warn(
        f"{what} is saved or cloned by its own get_config(), which leaves policy {policy!r} out. "
        f"The weights are kept; call dp.apply() again on the loaded model.",
        PolicyWarning,
        stacklevel=3,
    )


def update_saving_warnings(model: Layer) -> None:
    """Make the layers and models that would lose a policy warn when they are saved.

    Layers and models without a policy inside no longer warn.

    Args:
        model: the model, which is included, as are all layers inside.
    """
    for layer in layers_of(model):
        layer.__dict__.pop("get_config", None)
        if _saves_by_own_config(layer) and _policies_in(layer):
            layer.__dict__["get_config"] = MethodType(_get_config, layer)


def _saves_by_own_config(layer: Layer) -> bool:
    """Whether a layer's class is neither Keras's nor ours, so that its `get_config` decides what is
    saved of the layers inside."""
    package = type(layer).__module__.partition(".")[0]
    return package not in ("keras", __package__) and not isinstance(layer, PolicyLayer)


def _policies_in(layer: Layer) -> list[str]:
    """Return the names of the policies of a layer and of the layers inside, each once."""
    inner = [x for x in layers_of(layer) if isinstance(x, PolicyLayer) and x.placement is not None]
    return list(dict.fromkeys(x.placement.policy.name for x in inner if x.placement is not None))


def _get_config(self: Layer) -> dict[str, Any]:
    """Return a layer's own config, and warn if it leaves out the policies of the layers inside."""
    warning = self.__dict__.pop("get_config", None)  # Keras checks whether a class has its own
    try:
        config: dict[str, Any] = self.get_config()
    finally:
        if warning is not None:
            self.__dict__["get_config"] = warning
    policies = _policies_in(self)
    if policies and not _holds_placement(config):
        warn_of_lost_policy(f"{self.name} ({type(self).__name__})", " and ".join(policies))
    return config


def _holds_placement(config: Any) -> bool:
    """Whether a config saves a policy anywhere inside."""
    if isinstance(config, Mapping):
        return "placement" in config or any(map(_holds_placement, config.values()))
    return isinstance(config, list | tuple) and any(map(_holds_placement, config))
