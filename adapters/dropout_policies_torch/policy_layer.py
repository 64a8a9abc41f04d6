"""What a module under a policy has beside its weights: its place, its keys, and its masks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dropout_policies.adapter import (
    Choice,
    Placement,
    Plan,
    Policy,
    PolicyError,
    PolicyName,
    Rates,
    Tape,
    check_seed,
    plan_at_call,
)

from . import masks
from .scripting import check_scriptable
from .tracing import (
    export_tracer,
    in_backward_pass,
    in_cuda_graph,
    in_make_fx,
    in_trace,
    is_vmapped,
    shared_memory,
)

POLICY_ATTRIBUTES = ("placement", "keys", "row_offset", "tape", "recomputing", "before_policy")
"""The attributes that a policy adds to a module."""


class MaskKeys:
    """What the masks of a module's calls are drawn from.

    Args:
        seed: for keyed masks; None for PyTorch's own generator.
        number: how many calls there were.
        hold: every call has the masks of the first.
        always: masks fall in evaluation too.
        rates_at: the call whose rates hold, where a schedule is not to move; None for each its own.

    Attributes:
        calls: the number of calls, as a scalar that compiled graphs read and count up.
    """

    def __init__(
        self,
        seed: int | None,
        number: int = 0,
        hold: bool = False,
        always: bool = False,
        rates_at: int | None = None,
    ) -> None:
        self.seed, self.hold, self.always, self.rates_at = seed, hold, always, rates_at
        self._exported: ExportedCalls | None = None
        # One number for both: outside graphs it is read and counted past PyTorch's operators, of
        # which torch.func allows none in place.
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    @property
    def number(self) -> int:
        return int(self._number)

    @number.setter
    def number(self, number: int) -> None:
        self._number[()] = number

    def in_graph(self) -> Tensor:
        """The number of calls as a graph reads it; that of an exported program is its own."""
        tracer = export_tracer()
        if tracer is None:
            return self.calls
        if self._exported is None or self._exported.tracer() is not tracer:
            self._exported = ExportedCalls(tracer, self.number)
        return self._exported.calls

    def count_in_graph(self) -> None:
        """Have a graph count a call."""
        self.in_graph().add_(1)
        if self._exported is not None and export_tracer() is not None:
            self._exported.reset(self.number)  # only what runs later is a call

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskKeys, (self.seed, self.number, self.hold, self.always, self.rates_at)


class ExportedCalls:
    """The counter of one exported program, which goes on from the number that the layer was at.

    Args:
        tracer: what records the program.
        number: how many calls there were.

    Attributes:
        calls: the counter, which the program keeps as a constant of its own.
    """

    def __init__(self, tracer: Any, number: int) -> None:
        self.tracer = weakref.ref(tracer)
        self._number = np.array(number, np.int64)
        self.calls = shared_memory(self._number)

    def reset(self, number: int) -> None:
        """Set the counter past PyTorch's operators, which would be recorded."""
        self._number[()] = number


class PolicyLayer:
    """A module that may be under a policy; a mixin of `nn.Module`."""

    if TYPE_CHECKING:  # TorchScript reads a class's annotations, and knows no names there
        placement: Placement | None
        keys: MaskKeys | None
        tape: Tape | None
        training: bool
        __jit_unused_properties__: list[str]

    placement = None
    keys = None
    row_offset = 0
    tape = None
    recomputing = False
    """Whether activation checkpointing runs the call again, with its number put back."""
    before_policy = None
    """What the module was before `apply`; None where it was made with its policy."""

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
        """What torch.jit.script asks for before it compiles a module."""
        check_scriptable(self)
        return self

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        """Put the module under a policy; adds plain attributes only."""
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
        """How many training calls there were; a word of the masks' keys."""
        return 0 if self.keys is None else self.keys.number

    @calls.setter
    def calls(self, calls: int) -> None:
        assert self.keys is not None, "calls are counted under a policy"
        self.keys.number = calls

    def sample(self, seed: int, hold: bool) -> MaskKeys | None:
        """Have masks fall in evaluation too, keyed by a seed; see `PolicyLayer` of the core."""
        before = self.keys
        at = self.calls if before is None or before.rates_at is None else before.rates_at
        self.keys = MaskKeys(seed, hold=hold, always=True, rates_at=at)
        return before

    def resume(self, before: MaskKeys | None) -> None:
        """Put the module's own keys back."""
        self.keys = before

    @property
    def masks_apply(self) -> bool:
        """Whether masks are drawn in a call now.

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
        """Whether a policy has anything to do in a call now."""
        if self.placement is None or not self.placement.policy.active:
            return False
        return self.masks_apply or self.placement.policy.evaluation != "identity"

    def masks(
        self, plan: Plan, device: torch.device, dtype: torch.dtype, for_output: bool = False
    ) -> masks.Masks:
        """The masks of a call, or what stands for them in evaluation.

        Args:
            wanted: what is planned.
            device, dtype: where and as what.
            leaving: whether they belong to the call that was before.
        """
        keys = self.keys
        assert keys is not None, "there is a plan under a policy only"
        call: masks.CallNumber = 0
        if not keys.hold and torch.compiler.is_compiling():
            call = (keys.in_graph() - int(for_output)).clamp_min(0)
        elif not keys.hold:
            call = max(keys.number - for_output, 0)
        if keys.rates_at is not None:
            plan = plan_at_call(plan, keys.rates_at)
        if not self.masks_apply:
            return masks.means(plan, call, device, dtype)

        def draw() -> masks.Masks:
            return masks.draw(plan, keys.seed, call, self.row_offset, device, dtype)

        if self.tape is None:
            return draw()
        return self.tape.masks(
            plan,
            draw,
            _to_numpy,
            lambda array: torch.as_tensor(array).to(device, dtype),
        )

    def count(self) -> None:
        """A call is over."""
        keys = self.keys
        if keys is None or not (self.training or keys.always):
            return
        if torch.compiler.is_exporting() and not self._is_counted:
            return
        if torch.compiler.is_compiling():
            keys.count_in_graph()
        else:
            keys.number += 1

    def check_call(self, *given: Tensor) -> None:
        """Make sure that the number of a call means what it says.

        Args:
            given: the tensors that the call is made with.

        Raises:
            PolicyError: the call is recorded in a trace or a CUDA graph, stands for many under
                torch.func.vmap, is made in a backward pass, or on one of DataParallel's copies; all
                would draw other masks than the key says, or the same again, silently.
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
                f"{name}: a trace holds the number of a call, and every run of it would be call "
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
            draws_on = f"{unseeded}: then masks are PyTorch's generator's, which replays go on with"
            raise PolicyError(
                f"{name}: a CUDA graph holds the number of a call, and every replay would be call "
                f"{number} again. Call the layer outside of the graph{draws_on if unseeded else ''}"
                f"."
            )
        if getattr(self, "_is_replica", False):
            raise PolicyError(
                f"{name}: keyed masks on DataParallel's copies would be the same for other rows. "
                f"Use DistributedDataParallel and set row_offset{unseeded}."
            )

    @property
    def _is_counted(self) -> bool:
        """Whether the number of a call has a part in its masks."""
        scheduled = self.placement is not None and self.placement.policy.scheduled
        return self.seed is not None or scheduled

    def _own_parameters(self: Any) -> Iterator[Tensor]:
        return self.parameters()  # type: ignore[no-any-return]


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
    """The choice of policy that a constructor was given, or None.

    Raises:
        PolicyError: it is unknown, a rate or the seed is out of range, or one of the arguments
            that go with a policy came without one.
    """
    if seed is not None:
        check_seed(seed)
    if policy is not None:
        return Choice.of(policy, rate)
    for argument, value in {"rate": rate, "seed": seed, **others}.items():
        if value is not None:
            raise PolicyError(
                f"{layer_name}: {argument} goes with a policy. Received: {argument}={value!r}, "
                f"policy=None; write: policy='zaremba', {argument}={value!r}"
            )
    return None


def policy_repr(layer: PolicyLayer) -> str:
    """What a layer's repr says of its policy, after the stock layer's arguments."""
    if layer.placement is None:
        return ""
    seed = "" if layer.seed is None else f", seed={layer.seed}"
    return f", {layer.placement.policy.as_arguments()}{seed}"
