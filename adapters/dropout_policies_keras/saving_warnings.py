"""Warnings where a model is saved or cloned and its policy is lost, as its own `get_config` is all
that a file knows of it."""

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
        what: which layer or model.
        policy: the name of the policy.
    """
    warnings.warn(
        f"{what} is saved or cloned by its own get_config(), which leaves policy {policy!r} out. "
        f"The weights are kept; call dp.apply() again on the model that is loaded.",
        PolicyWarning,
        stacklevel=3,
    )


def update_saving_warnings(model: Layer) -> None:
    """Have every layer and model inside warn when it is saved without the policy that is on its
    layers; those without a policy no longer."""
    for layer in layers_of(model):
        layer.__dict__.pop("get_config", None)
        if _saves_by_own_config(layer) and _policies_in(layer):
            layer.__dict__["get_config"] = MethodType(_get_config, layer)


def _saves_by_own_config(layer: Layer) -> bool:
    """Whether a layer is of a class that may say itself what a file knows of the layers inside;
    Keras's own classes save those."""
    package = type(layer).__module__.partition(".")[0]
    return package not in ("keras", __package__) and not isinstance(layer, PolicyLayer)


def _policies_in(layer: Layer) -> list[str]:
    inner = [x for x in layers_of(layer) if isinstance(x, PolicyLayer) and x.placement is not None]
    return list(dict.fromkeys(x.placement.policy.name for x in inner if x.placement is not None))


def _get_config(self: Layer) -> dict[str, Any]:
    """A layer's own config; with a warning if no policy is in it."""
    warning = self.__dict__.pop("get_config", None)  # Keras looks at whether a class has its own
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
    if isinstance(config, Mapping):
        return "placement" in config or any(map(_holds_placement, config.values()))
    return isinstance(config, list | tuple) and any(map(_holds_placement, config))
