"""A drop-in `keras.layers.Embedding` whose word types are dropped under a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from dropout_policies.adapter import (
    Placement,
    Policy,
    PolicyError,
    Site,
    plan_embedding,
)

from .policy_layer import PolicyLayer, resolve_policy
from .tracing import Tensor

SIGNATURE = (
    "_call_signature",
    "call_signature_parameters",
    "_call_has_training_arg",
    "_call_has_context_arg",
)
"""What Keras keeps of `call` when a layer is made, which decides whether it is told of training."""


@keras.saving.register_keras_serializable(package="dropout_policies")
class Embedding(PolicyLayer, keras.layers.Embedding):  # type: ignore[misc]
    """A drop-in `keras.layers.Embedding` that drops whole word types while it trains.

    The rows that are looked up are masked, not the matrix, so that a layer that is tied to it sees
    it whole. Every argument of `keras.layers.Embedding` keeps its meaning.

    Args:
        policy: a policy's name, or a `Policy`; its `embedding` rule counts.
        rate: as in `LSTM`.
        seed: as in `LSTM`.

    Raises:
        PolicyError: an unknown policy, one without an `embedding` rule, or a rate or seed out of
            range.
    """

    input_dim: int

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = resolve_policy("Embedding", policy, rate, seed)
        if chosen is None and seed is not None:
            raise PolicyError(
                f"Embedding: seed goes with a policy. Received: seed={seed!r}, policy=None"
            )
        if chosen is not None and Site.EMBEDDING not in chosen:
            raise PolicyError(
                f"Embedding: policy {chosen.name!r} has no rule at site 'embedding'. Received: "
                f"{chosen!r}; write: policy=dp.Policy(embedding=dp.drop(0.1, per='call'))"
            )
        super().__init__(*args, **kwargs)
        if chosen is not None:
            self.set_placement(Placement(chosen), seed)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Tokens `[B, T]` or `[B]` to rows `[B, T, F]` or `[B, F]`."""
        rows = super().call(inputs)
        if not self.is_active(training):
            return rows
        if len(inputs.shape) not in (1, 2):
            raise PolicyError(
                f"{self.name}: under a policy, tokens are [B, T] or [B], so that it is clear "
                f"which is a sample. Received: input of shape {tuple(inputs.shape)}"
            )
        assert self.placement is not None
        batch, place = ops.shape(inputs)[0], self.placement
        plan = plan_embedding(place.policy, place.layer, self.input_dim, batch)
        drawn = self.masks(plan, training, self.compute_dtype, inputs)
        if not drawn:
            return rows
        (mask,) = drawn.values()
        if tuple(mask.shape) == (1, 1, 1) and not self.masks_apply(training):
            return rows * mask[0, 0]  # the mean
        tokens = ops.cast(inputs if len(inputs.shape) == 2 else inputs[:, None], "int32")
        if place.policy[Site.EMBEDDING].per == "call":
            kept = ops.take(mask[0, 0], tokens)  # [B, T]
        else:
            kept = ops.take_along_axis(mask[0], tokens, axis=1)
        return rows * ops.reshape(kept, (*ops.shape(inputs), 1))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:  # noqa: ARG002
        return super().compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.placement is not None:
            config["placement"] = {
                "policy": self.placement.policy.to_dict(),
                "layer": self.placement.layer,
                "seed": self.mask_seed,
            }
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        saved = config.pop("placement", None)
        layer = super().from_config(config)
        if saved is not None:
            policy = Policy.from_dict(saved["policy"])
            layer.set_placement(Placement(policy, saved["layer"]), saved["seed"])
        return layer  # type: ignore[no-any-return]


def take_training(layer: Any) -> None:
    """Have Keras tell an embedding that has become one of ours whether it is training."""
    made = vars(Embedding(1, 1, name="embedding"))
    vars(layer).update({name: made[name] for name in SIGNATURE if name in made})
