"""A drop-in `torch.nn.Embedding` whose word types are dropped under a policy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dropout_policies.adapter import (
    Placement,
    Policy,
    PolicyError,
    Site,
    plan_embedding,
)

from .layers import policy_repr
from .masks import values
from .policy_layer import PolicyLayer, resolve_policy
from .scripting import embedding_forward, symbolic_call


class Embedding(PolicyLayer, nn.Embedding):
    """A drop-in `torch.nn.Embedding` that drops whole word types while it trains.

    The rows that are looked up are masked, not the matrix, so that a decoder that is tied to it
    sees it whole. Every argument of `torch.nn.Embedding` keeps its meaning.

    Args:
        policy: a policy's name, or a `Policy`; its `embedding` rule counts.
        rate: as in `LSTM`.
        seed: as in `LSTM`.
        batch_first: whether tokens come as `[B, T]`, and not `[T, B]`; it matters to a rule per
            sequence, which draws other word types for each sample.

    Raises:
        PolicyError: an unknown policy, one without an `embedding` rule, or a rate or seed out of
            range.
    """

    batch_first = False  # without a type, which TorchScript would read and not know

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: Any = None,
        seed: int | None = None,
        batch_first: bool = False,
        **kwargs: Any,
    ) -> None:
        chosen = resolve_policy("Embedding", policy, rate, seed)
        if chosen is not None and Site.EMBEDDING not in chosen:
            raise PolicyError(
                f"Embedding: policy {chosen.name!r} has no rule at site 'embedding'. Received: "
                f"{chosen!r}; write: policy=dp.Policy(embedding=dp.drop(0.1, per='call'))"
            )
        super().__init__(*args, **kwargs)
        self.batch_first = batch_first
        if chosen is not None:
            self.set_placement(Placement(chosen), seed)

    forward = embedding_forward

    def call(self, input: Tensor) -> Tensor:
        """What `forward` does in Python."""
        node = symbolic_call(self, input)
        if node is not None:
            return node  # type: ignore[no-any-return]
        rows = super().forward(input)
        if not self.is_active:
            return rows
        self.check_call(input)
        assert self.placement is not None
        policy = self.placement.policy
        by_sample = policy[Site.EMBEDDING].per == "sequence"
        if by_sample and input.dim() != 2:
            raise PolicyError(
                f"Embedding: where each sample has word types of its own dropped, tokens are "
                f"[T, B] or [B, T]. Received: input of shape {list(input.shape)}; if these are no "
                f"sequences of words, leave this embedding out: rate={{'embedding': 0}}."
            )
        batch = input.shape[0 if self.batch_first else 1] if by_sample else 1
        plan = plan_embedding(policy, self.placement.layer, self.num_embeddings, batch)
        drawn = self.masks(plan, rows.device, rows.dtype)
        if not drawn:
            return rows
        (mask,) = drawn.values()
        kept = values(mask, rows.dtype)[0].expand(batch, self.num_embeddings)  # [B, V]
        self.count()
        if not by_sample:
            return rows * kept[0][input].unsqueeze(-1)
        samples = torch.arange(batch, device=input.device)
        samples = samples[:, None] if self.batch_first else samples
        return rows * kept[samples, input].unsqueeze(-1)

    def extra_repr(self) -> str:
        return super().extra_repr() + policy_repr(self.placement)
