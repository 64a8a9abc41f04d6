"""What a module under a policy has besides its weights: its placement, its keys and its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from dropout_policies_kernels.tracing import (
    in_backward_pass,
    in_cuda_graph,
    in_make_fx,
    in_trace,
    is_vmapped,
)
from torch import Tensor

from dropout_policies.adapter import (
    Choice,
    Placement,
    Plan,
    Policy,
    PolicyError,
    PolicyName,
    Rates,
    SharedMasks,
    SharedState,
    Tape,
    check_seed,
    plan_at_call,
)

from . import masks
from .mask_keys import MaskKeys
from .masks import Masks
from .scripting import check_scriptable
from .shared_masks import draw_shared

POLICY_ATTRIBUTES = (
    "placement",
    "keys",
    "row_offset",
    "tape",
    "recomputing",
    "recomputed",
    "told_of_steps",
    "before_policy",
)
"""The attributes that a policy adds to a module."""


SHARED = SharedState[SharedMasks]()
"""What the calls of layers share now, by their keys."""


class PolicyLayer:
    """A module that can be under a policy: a mixin of `nn.Module`."""

    if TYPE_CHECKING:  # TorchScript reads a class's annotations, and knows no names there
        placement: Placement | None
        keys: MaskKeys | None
        tape: Tape | None
        recomputed: SharedMasks | None
        told_of_steps: bool
        training: bool
        __jit_unused_properties__: list[str]

    placement = None
    keys = None
    row_offset = 0
    tape = None
    recomputing = False
    """Whether activation checkpointing runs the call again, with its number put back."""
    told_of_steps = False
    """Whether a warning was given that masks are not kept from step to step."""
    recomputed = None
    """What a call shared with others, while activation checkpointing runs it again."""
    before_policy = None
    """What the module was before `apply`. None: it was created with its policy."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        package = __name__.partition(".")[0]
        # TorchScript would compile every property of a class; a scripted layer needs none of ours.
        cls.__jit_unused_properties__ = ["all_weights"] + [
            name
            for base in cls.__mro__
            if base.__module__.partition(".")[0] == package
            for name, value in vars(base).items()
            if isinstance(value, property)
        ]

    def __prepare_scriptable__(self) -> Any:
        """Called by torch.jit.script before it compiles a module."""
        check_scriptable(self)
        return self

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        """Put the module under a policy. This adds only plain attributes."""
        self.placement, self.keys = placement, MaskKeys(seed)

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
        """The number of training calls so far. It is part of the key of the masks."""
        return 0 if self.keys is None else self.keys.number

    @calls.setter
    def calls(self, calls: int) -> None:
        assert self.keys is not None, "calls are counted under a policy"
        self.keys.number = calls

    def sample(self, seed: int, hold: bool) -> MaskKeys | None:
        """Apply masks in evaluation too, keyed by a seed. See `PolicyLayer` of the core."""
        if self.shared is not None:
            raise PolicyError(
                f"{type(self).__name__}: its calls share masks already. Sample first, and share "
                f"inside: with dp.monte_carlo(model), dp.sequence(model): ..."
            )
        before = self.keys
        at = self.calls if before is None or before.rates_at is None else before.rates_at
        self.keys = MaskKeys(seed, hold=hold, always=True, rates_at=at)
        return before

    def resume(self, before: MaskKeys | None) -> None:
        """Restore the module's own keys."""
        self.keys = before

    @property
    def masks_apply(self) -> bool:
        """Whether a call draws masks now.

        Raises:
            PolicyError: the module does not say whether it is training. (An AttributeError in a
                property would be reported as that of another attribute.)
        """
        plays = self.tape is not None and self.tape.plays
        if plays or (self.keys is not None and self.keys.always):
            return True
        if "training" not in vars(self):
            raise PolicyError(
                f"{type(self).__name__}: the attribute 'training' was deleted, and a policy masks "
                f"in training only. Call train() or eval() on the module."
            )
        return self.training

    @property
    def is_active(self) -> bool:
        """Whether a policy has any effect on a call now."""
        if self.placement is None or not self.placement.policy.active:
            return False
        return self.masks_apply or self.placement.policy.evaluation != "identity"

    def masks(
        self, plan: Plan, device: torch.device, dtype: torch.dtype, for_output: bool = False
    ) -> Masks:
        """The masks of a call, or their means in evaluation.

        Args:
            plan: the plan of the masks.
            device, dtype: the device and the dtype of the masks.
            for_output: whether they belong to the previous step.
        """
        keys = self.keys
        assert keys is not None, "there is a plan under a policy only"
        shared = None if torch.compiler.is_compiling() else self.shared
        if shared is not None and plan and self.masks_apply:
            return self._shared_masks(shared, plan, device, dtype, for_output)
        call: masks.CallNumber = 0
        if not keys.hold and torch.compiler.is_compiling():
            call = (keys.in_graph() - int(for_output)).clamp_min(0)
        elif not keys.hold:
            call = max(keys.number - for_output, 0)
        if keys.rates_at is not None:
            plan = plan_at_call(plan, keys.rates_at)
        if not self.masks_apply:
            return masks.means(plan, call, device, dtype)

        def draw() -> Masks:
            return masks.draw(plan, keys.seed, call, self.row_offset, device, dtype)

        return self._taped(plan, draw, device, dtype)

    def _taped(
        self,
        plan: Plan,
        draw: Callable[[], Masks],
        device: torch.device,
        dtype: torch.dtype,
    ) -> Masks:
        """Masks that are drawn, or that a tape provides instead."""
        if self.tape is None:
            return draw()
        return self.tape.masks(
            plan,
            draw,
            _to_numpy,
            lambda array: torch.as_tensor(array).to(device, dtype),
        )

    @property
    def shared(self) -> SharedMasks | None:
        """What the calls share now, inside `dp.sequence` or `dp.hold`; None outside."""
        return self.recomputed or SHARED.of(self.keys)

    def prepare_to_share(self) -> bool:
        """Do nothing, because a layer can share masks as it is. See `SharingLayer` of the core."""
        return False

    def share_masks(
        self, goes_on: bool, rows: npt.NDArray[np.int64] | None
    ) -> AbstractContextManager[SharedMasks]:
        """Let calls share masks. See `SharingLayer` of the core."""
        return SHARED.enter(self.keys, SharedMasks(goes_on, rows))

    def _shared_masks(
        self,
        shared: SharedMasks,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
        for_output: bool,
    ) -> Masks:
        """The masks of a call that shares them with others.

        They are always keyed. If the layer has no seed, PyTorch's generator draws one.
        """
        keys = self.keys
        assert keys is not None
        if shared.seed is None:
            number = 0 if keys.hold else keys.number
            if keys.seed is None:
                shared.seed = int(torch.randint(2**32, ()))
            else:
                shared.seed, shared.call = keys.seed, number
            shared.rates_at = number if keys.rates_at is None else keys.rates_at
            keys.number += 1  # the calls inside count as one
        plan = plan_at_call(plan, shared.rates_at)
        back = int(for_output and shared.goes_on)

        def draw() -> Masks:
            return draw_shared(plan, shared, back, self.row_offset, device, dtype)

        return self._taped(plan, draw, device, dtype)

    def count(self, steps: int = 1) -> None:
        """Note that a call has ended.

        Args:
            steps: T.
        """
        keys = self.keys
        if keys is None or not (self.training or keys.always):
            return
        if not torch.compiler.is_compiling() and self.shared is not None:
            self.shared.advance(steps)
            return
        if torch.compiler.is_exporting() and not self._is_counted:
            return
        if torch.compiler.is_compiling():
            keys.count_in_graph()
        else:
            keys.number += 1

    def check_call(self, *given: Tensor) -> None:
        """Check that the masks of this call can depend on the number of the call.

        Args:
            given: the tensors that are passed to the call.

        Raises:
            PolicyError: the call is recorded in a trace or a CUDA graph, stands for many calls
                under torch.func.vmap, is made in a backward pass, or runs on one of DataParallel's
                copies. All of these would silently draw masks that do not belong to the key, or the
                same masks again.
        """
        if self.placement is None or not self.masks_apply:
            return
        if not self._is_counted and self.tape is None:
            return
        name = type(self).__name__
        if torch.compiler.is_exporting() and torch.compiler.is_dynamo_compiling():
            raise PolicyError(
                f"{name}: a program exported with strict=True would count the layer's own calls. "
                f"Export with strict=False, or in evaluation."
            )
        if torch.compiler.is_compiling():
            return
        number = self.calls
        held = self.keys is not None and self.keys.hold
        sampled = self.keys is not None and self.keys.always
        unseeded = "" if sampled or self.seed is None else ", or leave seed out"
        if (in_trace() or in_make_fx()) and not held:
            raise PolicyError(
                f"{name}: a trace fixes the number of a call, and every run of it would be call "
                f"{number} again. Trace the model in evaluation{unseeded}."
            )
        if self.seed is not None and is_vmapped((*given, *self._own_parameters())):
            raise PolicyError(
                f"{name}: torch.func.vmap makes one call for all samples, and keyed masks would be "
                f"the same for each. Call the layer on the whole batch{unseeded}: then "
                f"vmap(..., randomness='different') draws masks for each sample."
            )
        if in_backward_pass() and not self.recomputing:
            raise PolicyError(
                f"{name}: the call is made in a backward pass, and would be numbered {number}. "
                f"It may be activation checkpointing, which runs the first call again and needs "
                f"its number: checkpoint(..., use_reentrant=False, context_fn=lambda: "
                f"same_masks(model)), with same_masks from dropout_policies_torch. Or it is a hook "
                f"that calls the layer: call it outside of the backward pass{unseeded}."
            )
        if in_cuda_graph() and not held:
            draws_on = f"{unseeded}: then PyTorch's generator draws new masks in each replay"
            raise PolicyError(
                f"{name}: a CUDA graph fixes the number of a call, and every replay would be call "
                f"{number} again. Call the layer outside of the "
                f"graph{draws_on if unseeded else ''}."
            )
        if getattr(self, "_is_replica", False):
            raise PolicyError(
                f"{name}: keyed masks on DataParallel's copies would be the same for other rows. "
                f"Use DistributedDataParallel and set row_offset{unseeded}."
            )

    @property
    def _is_counted(self) -> bool:
        """Whether the masks depend on the number of the call."""
        scheduled = self.placement is not None and self.placement.policy.scheduled
        return self.seed is not None or scheduled

    def _own_parameters(self: Any) -> Iterator[Tensor]:
        return self.parameters()  # type: ignore[no-any-return]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_eagerly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Make a call outside of any compiled graph.

    This is for a layer that Dynamo does not see inside, and would compile function by function. It
    is also for calls that share masks, because no graph knows the step that they are at. The caller
    must check `is_compiling()` itself: Dynamo would compile a function made for this check, and the
    answer would then be yes.
    """
    return function(*arguments)


def _to_numpy(mask: Tensor | masks.BitMask) -> npt.NDArray[Any]:
    if isinstance(mask, masks.BitMask):
        return np.asarray(mask)
    return (mask.float() if mask.dtype is torch.bfloat16 else mask).numpy(force=True)


def resolve_policy(
    layer_name: str,
    policy: PolicyName | Policy | None,
    rate: Rates | None,
    seed: int | None,
    **others: object,
) -> Choice | None:
    """Return the choice of policy that a constructor received, or None.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, or an argument that
            needs a policy is given without one.
    """
    if seed is not None:
        check_seed(seed)
    return Choice.of_layer(layer_name, policy, rate, seed=seed, **others)


def policy_repr(layer: PolicyLayer) -> str:
    """The policy's part of a layer's repr, after the stock layer's arguments."""
    if layer.placement is None:
        return ""
    seed = "" if layer.seed is None else f", seed={layer.seed}"
    return f", {layer.placement.policy.as_arguments()}{seed}"
