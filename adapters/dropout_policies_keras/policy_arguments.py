"""A layer's policy as a constructor's arguments give it, and as a file keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropout_policies.adapter import (
    Choice,
    Placement,
    Policy,
    PolicyName,
    Rates,
    check_seed,
)


def resolve_policy(
    layer_name: str,
    policy: PolicyName | Policy | None,
    rate: Rates | None,
    seed: int | None,
    **others: object,
) -> Choice | None:
    """The choice of policy of a constructor's arguments, or None.

    Args:
        layer_name: what an error calls the layer.
        policy: a policy's name, a `Policy`, or None.
        rate: rates for a policy given by name, or None.
        seed: for keyed masks, or None.
        **others: other arguments that need a policy.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, or an argument that
            needs a policy came without one.
    """
    if policy is not None and seed is not None:
        check_seed(seed)  # without a policy, it is the stock layer's own
    return Choice.of_layer(layer_name, policy, rate, **others)


def placement_config(layer: Any) -> dict[str, Any]:
    """What a file keeps of a layer's policy, for `restore_placement`."""
    placement = layer.placement
    config = {
        "policy": placement.policy.to_dict(),
        "layer": placement.layer,
        "first": placement.first,
        "last": placement.last,
        "depth": placement.depth,
        "seed": layer.mask_seed,
        "native_rates": [list(rates) for rates in layer.native_rates],
    }
    if layer.dropouts_taken_over:
        taken_over = {name: list(saved) for name, saved in layer.dropouts_taken_over.items()}
        config["dropouts_taken_over"] = taken_over
    return config


def restore_placement(layer: Any, saved: Mapping[str, Any]) -> None:
    """Put a new layer under the policy that it was saved with."""
    place = [saved[key] for key in ("layer", "first", "last", "depth")]
    layer.add_generator()
    layer.set_placement(Placement(Policy.from_dict(saved["policy"]), *place), saved["seed"])
    layer.__dict__["native_rates"] = [tuple(rates) for rates in saved.get("native_rates", ())]
    if "dropouts_taken_over" in saved:
        layer.__dict__["dropouts_taken_over"] = dict(saved["dropouts_taken_over"])
