"""Activation checkpointing in which the second run has the masks of the first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from dropout_policies.adapter import SharedMasks

from .mask_keys import MaskKeys
from .policy_layer import PolicyLayer


@dataclass(frozen=True)
class MaskSource:
    """The state that a module's masks come from: its keys, its number of calls, the position of its
    tape, and what its calls share."""

    keys: MaskKeys | None
    calls: int
    position: int
    shared: SharedMasks | None

    @classmethod
    def of(cls, module: PolicyLayer) -> MaskSource:
        position = 0 if module.tape is None else module.tape.position
        shared = module.shared
        return cls(module.keys, module.calls, position, shared and replace(shared))

    def restore(self, module: PolicyLayer) -> None:
        module.keys = self.keys
        module.calls = self.calls
        if module.tape is not None:
            module.tape.position = self.position


class SameMasks:
    """A context in which modules draw masks as they did at an earlier moment.

    Args:
        modules: the modules.
        again: True: set the modules back to the moment in `first`. False: save the current moment
            there.
        first: that moment. Both contexts share it.
    """

    def __init__(self, modules: list[PolicyLayer], again: bool, first: list[MaskSource]) -> None:
        self.modules, self.again, self.first = modules, again, first

    def __enter__(self) -> None:
        now = [MaskSource.of(module) for module in self.modules]
        if not self.again:
            self.first[:] = now
            return
        self.now = now
        for module, moment in zip(self.modules, self.first, strict=True):
            moment.restore(module)
            module.recomputing, module.recomputed = True, moment.shared and replace(moment.shared)

    def __exit__(self, *_: object) -> None:
        if not self.again:
            return
        for module, moment in zip(self.modules, self.now, strict=True):
            moment.restore(module)
            module.recomputing, module.recomputed = False, None


def same_masks(model: nn.Module) -> tuple[SameMasks, SameMasks]:
    """Return the `context_fn` of activation checkpointing for a model whose masks have a seed.

    What the backward pass computes again then has the same masks as at first.

    ```python
    checkpoint(model, x, use_reentrant=False, context_fn=lambda: same_masks(model))
    ```

    Args:
        model: the model that is checkpointed, or a part of it.

    Returns:
        Two contexts: one for the first run, and one for the run in the backward pass.
    """
    modules: list[PolicyLayer] = [
        m for m in model.modules() if isinstance(m, PolicyLayer) and m.placement
    ]
    first: list[MaskSource] = []
    return SameMasks(modules, False, first), SameMasks(modules, True, first)
