"""A drop-in `torch.nn.Embedding` that drops word types under a policy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dropout_policies.adapter import (
    Placement,
    Policy,
    PolicyError,
    PolicyName,
    Rates,
    Site,
    plan_embedding,
)

from .masks import mask_values
from .policy_layer import SHARED, PolicyLayer, policy_repr, resolve_policy, run_eagerly
from .scripting import embedding_forward, symbolic_call


class Embedding(PolicyLayer, nn.Embedding):
    """A drop-in `torch.nn.Embedding` that drops whole word types in training.

    It masks the rows that are looked up, not the matrix. So a decoder that shares the matrix sees
    all of it.

    Args:
        num_embeddings: V, the number of word types.
        embedding_dim: D, the width of a row.
        padding_idx: a row that gets no gradient.
        max_norm: rows with a larger norm are scaled to this norm.
        norm_type: the p of that norm.
        scale_grad_by_freq: whether gradients are divided by the number of times a word type occurs.
        sparse: whether the gradient is a sparse tensor.
        device: the device of the matrix.
        dtype: the dtype of the matrix.
        policy: the name of a policy, or a `Policy`. Only its `embedding` rule is used. None: use
            the stock layer.
        rate: for a policy given by name, the rate in [0, 1): a number, a `Schedule`, or a mapping
            with the key `"embedding"`. None: the policy's default.
        seed: an integer in [0, 2**32). The masks are then the same in every framework. None: use
            PyTorch's generator.
        batch_first: whether tokens are `[B, T]`, not `[T, B]`. This matters only for a rule per
            sequence, which drops different word types for each sample.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown or has no `embedding` rule, a rate or the seed is out of
            range, or `rate` or `seed` is given without a policy. In a call: the rule is per
            sequence, and tokens are not `[T, B]` or `[B, T]`.
    """

    batch_first = False  # no annotation, because TorchScript would read it and not know the type

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        batch_first: bool = False,
    ) -> None:
        choice = resolve_policy("Embedding", policy, rate, seed)
        chosen = None if choice is None else choice.policy
        if chosen is not None and Site.EMBEDDING not in chosen:
            raise PolicyError(
                f"Embedding: policy {chosen.name!r} has no rule at site 'embedding'. Received: "
                f"{chosen!r}; write: policy=dp.Policy(embedding=dp.drop(0.1, per='call'))"
            )
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=_weight,
            _freeze=_freeze,
            device=device,
            dtype=dtype,
        )
        self.batch_first = batch_first
        if chosen is not None:
            self.set_placement(Placement(chosen), seed)

    forward = embedding_forward

    def call(self, input: Tensor) -> Tensor:
        """The Python part of `forward`."""
        node = symbolic_call(self, input)
        if node is not None:
            return node  # type: ignore[no-any-return]
        if torch.compiler.is_compiling() and SHARED.entered:
            return run_eagerly(self._run, input)  # type: ignore[no-any-return]
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        rows = super().forward(input)
        if not self.is_active:
            return rows
        self.check_call(input)
        assert self.placement is not None
        policy = self.placement.policy
        by_sample = policy[Site.EMBEDDING].per == "sequence"
        if by_sample and input.dim() != 2:
            raise PolicyError(
                "Embedding: each sample drops word types of its own, so tokens must be [T, B] or "
                f"[B, T]. Received: input of shape {list(input.shape)}; if these are not "
                f"sequences of words, leave this embedding out: rate={{'embedding': 0}}."
            )
        batch = input.shape[0 if self.batch_first else 1] if by_sample else 1
        plan = plan_embedding(policy, self.placement.layer, self.num_embeddings, batch)
        drawn = self.masks(plan, rows.device, rows.dtype)
        if not drawn:
            return rows
        (mask,) = drawn.values()
        kept = mask_values(mask, rows.dtype)[0].expand(batch, self.num_embeddings)  # [B, V]
        self.count()
        if not by_sample:
            return rows * kept[0][input].unsqueeze(-1)
        samples = torch.arange(batch, device=input.device)
        samples = samples[:, None] if self.batch_first else samples
        return rows * kept[samples, input].unsqueeze(-1)

    def extra_repr(self) -> str:
        return super().extra_repr() + policy_repr(self)
