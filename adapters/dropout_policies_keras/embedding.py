"""Drop-in `keras.layers.Embedding` and `ReversibleEmbedding` that drop word types under a
policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Self, Unpack

import keras
from keras import ops

from dropout_policies.adapter import (
    Placement,
    Policy,
    PolicyError,
    PolicyName,
    Rates,
    Site,
    plan_embedding,
)

from .keras_arguments import Constraint, EmbeddingArguments, Initializer, Regularizer
from .policy_arguments import resolve_policy
from .policy_layer import PolicyLayer
from .tracing import Tensor

CALL_SIGNATURE = (
    "_call_signature",
    "call_signature_parameters",
    "_call_has_training_arg",
    "_call_has_context_arg",
)
"""What Keras notes about `call` when it creates a layer. Keras reads it to pass `training` on."""


@keras.saving.register_keras_serializable(package="dropout_policies")
class Embedding(PolicyLayer, keras.layers.Embedding):  # type: ignore[misc]
    """A drop-in `keras.layers.Embedding` that drops whole word types in training.

    Tokens `[B, ...]` become rows `[B, ..., F]`. Tokens are, for example, words `[B, T]`, or
    sentences `[B, S, W]`. The layer masks the rows that are looked up, not the matrix. So another
    layer that shares the matrix sees all of it.

    Args:
        input_dim: the number of word types.
        output_dim: F, the width of a row.
        embeddings_initializer: the initializer of `embeddings` `[input_dim, F]`.
        embeddings_regularizer: the penalty on `embeddings`.
        embeddings_constraint: the constraint on `embeddings`.
        mask_zero: whether token 0 is padding, which later layers skip.
        weights: an array `[input_dim, F]` to start from. None: use the initializer.
        lora_rank: the rank of the two trainable factors that are added to the matrix, which is then
            frozen (LoRA). None: train the matrix.
        lora_alpha: scales the product of the factors by `lora_alpha / lora_rank`. None: do not
            scale.
        quantization_config: a config for `quantize`. Keras refuses to quantize any subclass of its
            layer, including this one. Keras 3.12 has no such argument.
        policy: a policy's name, such as `"awd"` (`dropout_policies.names()`), or a `Policy`, with a
            rule at `embedding`. None: use the stock layer.
        rate: the rate, in [0, 1), for a policy given by name. A number, a `Schedule`, or a mapping
            from names of sites to these: `{"embedding": 0.1}`. None: the policy's default.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            element), and is the same in every framework. None: use Keras's generator.
        **kwargs: `activity_regularizer`, the penalty on the output; `name`, `trainable`, `dtype`
            and `autocast`, as for every Keras layer.

    Raises:
        PolicyError: the policy is unknown or has no `embedding` rule, a rate or the seed is out of
            range, or `rate` or `seed` is given without a policy.
        ValueError: Keras does not know or accept an argument.
    """

    input_dim: int

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Initializer = "uniform",
        embeddings_regularizer: Regularizer = None,
        embeddings_constraint: Constraint = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        **kwargs: Unpack[EmbeddingArguments],
    ) -> None:
        title = type(self).__name__
        choice = resolve_policy(title, policy, rate, seed)
        chosen = None if choice is None else choice.policy
        if chosen is None and seed is not None:
            raise PolicyError(
                f"{title}: seed goes with a policy. Received: seed={seed!r}, policy=None"
            )
        if chosen is not None and Site.EMBEDDING not in chosen:
            raise PolicyError(
                f"{title}: policy {chosen.name!r} has no rule at site 'embedding'. Received: "
                f"{chosen!r}; write: policy=dp.Policy(embedding=dp.drop(0.1, per='call'))"
            )
        arguments: dict[str, Any] = dict(kwargs)
        if quantization_config is not None:  # Keras 3.12 has no such argument
            arguments["quantization_config"] = quantization_config
        super().__init__(
            input_dim=input_dim,
            output_dim=output_dim,
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
            mask_zero=mask_zero,
            weights=weights,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            **arguments,
        )
        if chosen is not None:
            self.add_generator()
            self.set_placement(Placement(chosen), seed)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Look up the rows of tokens. In training, mask them.

        Args:
            inputs: tokens `[B, ...]`.
            training: whether the call is in training mode.

        Returns:
            Rows `[B, ..., F]`.

        Raises:
            PolicyError: the input is a single token under a policy, or see `PolicyLayer.masks`.
        """
        rows = super().call(inputs)
        training = training or _training_below.get()
        if not self.is_active(training):
            return rows
        if not len(inputs.shape):
            raise PolicyError(
                f"{self.name}: under a policy, tokens are [B, ...], so that it is clear which is a "
                f"sample. Received: a single token, of shape ()"
            )
        assert self.placement is not None
        placement = self.placement
        batch, *others = ops.shape(inputs)
        plan = plan_embedding(placement.policy, placement.layer, self.input_dim, batch)
        tokens = ops.reshape(ops.cast(inputs, "int32"), (batch, math.prod(others)))
        drawn = self.masks(plan, training, self.compute_dtype, inputs, ops.shape(tokens)[1])
        if not drawn:
            return rows
        (mask,) = drawn.values()
        if tuple(mask.shape) == (1, 1, 1) and not self.masks_apply(training):
            return rows * mask[0, 0]  # the mean
        if placement.policy[Site.EMBEDDING].per == "call":
            by_token = ops.take(mask[0, 0], tokens)
        else:
            by_token = ops.take_along_axis(mask[0], tokens, axis=1)
        return rows * ops.reshape(by_token, (batch, *others, 1))

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
            layer.add_generator()
            layer.set_placement(Placement(policy, saved["layer"]), saved["seed"])
        return layer  # type: ignore[no-any-return]


_training_below = ContextVar("training_below", default=False)
"""The mode of a call that goes through a class of Keras that does not pass it on."""

EMBEDDINGS: tuple[type[Any], ...] = (Embedding,)
"""Our embeddings. Each replaces the class of `keras.layers` with the same name. `Embedding`, the
base class of the other one in Keras, comes last."""

if hasattr(keras.layers, "ReversibleEmbedding"):

    @keras.saving.register_keras_serializable(package="dropout_policies")
    class ReversibleEmbedding(keras.layers.ReversibleEmbedding, Embedding):  # type: ignore[misc]
        """A drop-in `keras.layers.ReversibleEmbedding` that drops whole word types in training.

        It masks the rows that are looked up. With `reverse=True`, which turns rows into the logits
        of all tokens, it uses the whole matrix and draws no masks.

        Args:
            input_dim: the number of word types.
            output_dim: F, the width of a row.
            tie_weights: whether `reverse=True` decodes with the same matrix. False: it has its own
                matrix.
            embeddings_initializer: the initializer of `embeddings` `[input_dim, F]`.
            embeddings_regularizer: the penalty on `embeddings`.
            embeddings_constraint: the constraint on `embeddings`.
            mask_zero: whether token 0 is padding, which later layers skip.
            reverse_dtype: the dtype for decoding. None: the dtype of the layer.
            logit_soft_cap: c. Logits become c * tanh(logits / c). None: logits stay as they are.
            policy: as for `Embedding`.
            rate: as for `Embedding`.
            seed: as for `Embedding`.
            **kwargs: as for `Embedding`; also `weights`, `lora_rank` and `lora_alpha`.

        Raises:
            PolicyError: as for `Embedding`.
            ValueError: Keras does not know or accept an argument.
        """

        def __init__(
            self,
            input_dim: int,
            output_dim: int,
            tie_weights: bool = True,
            embeddings_initializer: Initializer = "uniform",
            embeddings_regularizer: Regularizer = None,
            embeddings_constraint: Constraint = None,
            mask_zero: bool = False,
            reverse_dtype: Any = None,
            logit_soft_cap: float | None = None,
            *,
            policy: PolicyName | Policy | None = None,
            rate: Rates | None = None,
            seed: int | None = None,
            **kwargs: Any,
        ) -> None:
            super().__init__(
                input_dim=input_dim,
                output_dim=output_dim,
                tie_weights=tie_weights,  # type: ignore[call-arg]  # Keras's class comes first
                embeddings_initializer=embeddings_initializer,
                embeddings_regularizer=embeddings_regularizer,
                embeddings_constraint=embeddings_constraint,
                mask_zero=mask_zero,
                reverse_dtype=reverse_dtype,
                logit_soft_cap=logit_soft_cap,
                policy=policy,
                rate=rate,
                seed=seed,
                **kwargs,
            )

        def call(  # type: ignore[override]  # Keras's takes another argument too
            self, inputs: Tensor, reverse: bool = False, training: bool = False
        ) -> Tensor:
            """Look up the rows of tokens, masked in training; or compute the logits of all tokens.

            Args:
                inputs: tokens `[B, ...]`; with `reverse`, rows `[..., F]`.
                reverse: whether to turn rows into the logits of all tokens.
                training: whether the call is in training mode.

            Returns:
                Rows `[B, ..., F]`; with `reverse`, logits `[..., input_dim]`.

            Raises:
                PolicyError: as for `Embedding.call`.
            """
            # Keras's own call runs that of Embedding, and then notes what is padding.
            before = _training_below.set(training)
            try:
                return super().call(inputs, reverse=reverse)  # type: ignore[call-arg]
            finally:
                _training_below.reset(before)

        def compute_output_spec(  # type: ignore[override]
            self,
            inputs: Any,
            reverse: bool = False,
            training: bool = False,  # noqa: ARG002
        ) -> Any:
            return super().compute_output_spec(inputs, reverse=reverse)  # type: ignore[call-arg]

    EMBEDDINGS = (ReversibleEmbedding, Embedding)


def update_call_signature(layer: Any) -> None:
    """Make Keras pass `training` to an embedding if its class, which was swapped, takes it."""
    stock = [getattr(keras.layers, kind.__name__) for kind in EMBEDDINGS]
    by_call = {kind.call: kind for kind in (*EMBEDDINGS, *stock)}
    kind = by_call.get(type(layer).call)
    if kind is None:
        return  # a user's own call, of which Keras noted everything already
    constructed = vars(kind(1, 1, name="embedding"))
    for name in CALL_SIGNATURE:
        vars(layer).pop(name, None)
    vars(layer).update({name: constructed[name] for name in CALL_SIGNATURE if name in constructed})
