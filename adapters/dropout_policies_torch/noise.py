"""What a module under a policy has beside its weights: its place, its keys, and its masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dropout_policies.catalog import resolve
from dropout_policies.errors import PolicyError
from dropout_policies.keyed import check_seed
from dropout_policies.plan import Placement, Plan
from dropout_policies.policy import Policy
from dropout_policies.tape import Tape

from . import masks

OWN = ("placement", "keys", "row_offset", "tape", "recomputing")
"""The attributes that a policy adds to a module."""


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.int64)


@dataclass
class Keys:
    """What the masks of a module's calls are drawn from.

    Args:
        seed: for keyed masks; None for PyTorch's own generator.
        calls: how many calls there were; a tensor on the CPU, so that compiled graphs count too.
        hold: every call has the masks of the first.
        always: masks fall in evaluation too.
    """

    seed: int | None
    calls: Tensor = field(default_factory=_zero)
    hold: bool = False
    always: bool = False


class Noisy:
    """A module that may be under a policy; a mixin of `nn.Module`."""

    placement: Placement | None = None
    keys: Keys | None = None
    row_offset: int = 0
    tape: Tape | None = None
    recomputing: bool = False
    """Whether activation checkpointing runs the call again, with its number put back."""
    training: bool

    def settle(self, placement: Placement, seed: int | None) -> None:
        """Put the module under a policy; adds plain attributes only."""
        self.placement, self.keys = placement, Keys(seed)

    @property
    def seed(self) -> int | None:
        """The seed of keyed masks, or None."""
        return None if self.keys is None else self.keys.seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        assert self.keys is not None, "a seed goes with a policy"
        self.keys.seed = seed

    @property
    def calls(self) -> int:
        """How many training calls there were; a word of the masks' keys."""
        return 0 if self.keys is None else int(self.keys.calls)

    @calls.setter
    def calls(self, calls: int) -> None:
        assert self.keys is not None, "calls are counted under a policy"
        self.keys.calls.fill_(calls)

    def sample(self, seed: int, hold: bool) -> Keys | None:
        """Have masks fall in evaluation too, keyed by a seed; see `dropout_policies.sampling`."""
        before = self.keys
        self.keys = Keys(seed, hold=hold, always=True)
        return before

    def resume(self, before: Keys | None) -> None:
        """Put the module's own keys back."""
        self.keys = before

    @property
    def falls(self) -> bool:
        """Whether masks are drawn for a call now."""
        return self.training or (self.keys is not None and self.keys.always)

    @property
    def noisy(self) -> bool:
        """Whether a policy has anything to do in a call now."""
        if self.placement is None or not self.placement.policy.active:
            return False
        return self.falls or self.placement.policy.evaluation != "identity"

    def masks(self, wanted: Plan, like: Tensor, after: int = 0) -> masks.Masks:
        """The masks of a call, or what stands for them in evaluation.

        Args:
            wanted: what is planned.
            like: whose device and dtype they get.
            after: how many calls before the next one; to draw more for one that is over.
        """
        keys = self.keys
        assert keys is not None, "there is a plan under a policy only"
        compiling = torch.compiler.is_compiling()
        call = keys.calls.clone() if compiling else int(keys.calls)
        call = 0 if keys.hold else call - after
        if not self.falls:
            return masks.means(wanted, call, like.device, like.dtype)

        def draw() -> masks.Masks:
            return masks.draw(wanted, keys.seed, call, self.row_offset, like.device, like.dtype)

        if self.tape is None:
            return draw()
        return self.tape.masks(
            wanted,
            draw,
            lambda mask: mask.numpy(force=True),
            lambda array: torch.as_tensor(array).to(like.device, like.dtype),
        )

    def count(self) -> None:
        """A call is over."""
        if self.falls and self.keys is not None and not self.keys.hold:
            self.keys.calls.add_(1)

    def check_once(self) -> None:
        """Make sure that the number of a call means what it says.

        Raises:
            PolicyError: the call is activation checkpointing's second one, or is made on one of
                DataParallel's copies; both would draw other masks than the key says, silently.
        """
        if torch.compiler.is_compiling() or self.placement is None:
            return
        if self.seed is None and not self.placement.policy.scheduled:
            return
        name = type(self).__name__
        # Private, because nothing public tells that the backward pass is running.
        if torch._C._current_graph_task_id() != -1 and not self.recomputing:
            raise PolicyError(
                f"{name}: activation checkpointing runs the call again, and it would be numbered "
                f"{self.calls}, not as the first. Tell it the number: checkpoint(..., "
                f"use_reentrant=False, context_fn=lambda: same_masks(model)), with same_masks "
                f"from dropout_policies_torch."
            )
        if getattr(self, "_is_replica", False):
            raise PolicyError(
                f"{name}: keyed masks on DataParallel's copies would be the same for other rows. "
                f"Use DistributedDataParallel and set row_offset, or leave seed out."
            )


def choose(
    layer_name: str,
    policy: str | Policy | None,
    rate: Any,
    seed: int | None,
    **others: object,
) -> Policy | None:
    """The policy that a constructor was given, or None.

    Raises:
        PolicyError: it is unknown, a rate or the seed is out of range, or one of the arguments
            that go with a policy came without one.
    """
    if seed is not None:
        check_seed(seed)
    if policy is not None:
        return resolve(policy, rate)
    for argument, value in {"rate": rate, "seed": seed, **others}.items():
        if value is not None:
            raise PolicyError(
                f"{layer_name}: {argument} goes with a policy. Received: {argument}={value!r}, "
                f"policy=None; write: policy='zaremba', {argument}={value!r}"
            )
    return None


class SameMasks:
    """A context in which modules' calls are numbered as at a moment before.

    Args:
        modules: the modules.
        again: whether calls are numbered anew from the moment when `first` was left to us.
        first: the numbers at that moment, shared by both contexts.
    """

    def __init__(self, modules: list[Noisy], again: bool, first: list[int]) -> None:
        self.modules, self.again, self.first = modules, again, first

    def __enter__(self) -> None:
        now = [module.calls for module in self.modules]
        if not self.again:
            self.first[:] = now
            return
        self.now = now
        for module, calls in zip(self.modules, self.first, strict=True):
            module.calls, module.recomputing = calls, True

    def __exit__(self, *_: object) -> None:
        if self.again:
            for module, calls in zip(self.modules, self.now, strict=True):
                module.calls, module.recomputing = calls, False


def same_masks(model: nn.Module) -> tuple[SameMasks, SameMasks]:
    """The `context_fn` of activation checkpointing for a model with keyed masks: what is computed
    again in the backward pass has the masks that it had first.

    ```python
    checkpoint(model, x, use_reentrant=False, context_fn=lambda: same_masks(model))
    ```
    """
    modules: list[Noisy] = [m for m in model.modules() if isinstance(m, Noisy) and m.placement]
    first: list[int] = []
    return SameMasks(modules, False, first), SameMasks(modules, True, first)
