"""The common part of the drop-in layers for whole sequences: a call under a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from dropout_policies_kernels.cells import CELL_TYPES, States
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.adapter import (
    Choice,
    Geometry,
    Plan,
    PolicyError,
    check_sites,
    plan_masks,
    short_repr,
    stack_placement,
    warn_of_steps,
)

from .policy_layer import SHARED, PolicyLayer, policy_repr, run_eagerly
from .recurrence import Packing, batch_size, run_layers
from .scripting import symbolic_call
from .tensor_checks import check_packed, check_tensors, layer_shapes


class Recurrent(PolicyLayer):
    """The common part of the drop-in layers: a mixin before one of `torch.nn`'s.

    Every argument of the stock layer keeps its meaning. Its weights, their names and its
    `state_dict()` stay the same too.
    """

    if TYPE_CHECKING:  # TorchScript reads a class's annotations, and knows no names there
        mode: str
        dropout: float
        num_layers: int

    def _start_policy(
        self, choice: Choice | None, seed: int | None, stack: tuple[int, int] | None
    ) -> None:
        """Put the layer under the policy of its arguments. It already has its weights."""
        if choice is None:
            return
        name, policy = type(self).__name__, choice.on_one(CELL_TYPES[self.mode].sites)
        if self.dropout > 0.0:
            raise PolicyError(
                f"{name}: its own dropout would come on top of the policy's. Received: "
                f"dropout={short_repr(self.dropout)}, policy={policy.name!r}; leave dropout out."
            )
        check_sites(policy, name, CELL_TYPES[self.mode].sites)
        placement = stack_placement(policy, stack, self.num_layers, name)
        placement.check_rates(self.num_layers, name)
        self.set_placement(placement, seed)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dropout" and value and self.placement is not None:
            raise PolicyError(
                f"{type(self).__name__}: it is under policy {self.placement.policy.name!r}, and "
                f"its own dropout would come on top. Received: dropout={short_repr(value)}; give "
                f"the policy another rate instead: rate={short_repr(value)}, or remove it first."
            )
        super().__setattr__(name, value)

    def call(
        self: Any, input: Tensor | PackedSequence, hx: Any
    ) -> tuple[Tensor | PackedSequence, Any]:
        """The Python part of `forward`, for any input that the stock layer accepts."""
        node = symbolic_call(self, input, hx)
        if node is not None:
            return node  # type: ignore[no-any-return]
        if torch.compiler.is_compiling() and not SHARED.entered:
            return self._run(input, hx)  # type: ignore[no-any-return]
        # Dynamo does not see into nn.RNNBase unless it is told to (allow_rnn).
        return run_eagerly(self._run, input, hx)  # type: ignore[no-any-return]

    def _run(
        self: Any, input: Tensor | PackedSequence, hx: Any
    ) -> tuple[Tensor | PackedSequence, Any]:
        data = input.data if isinstance(input, PackedSequence) else input
        if not self.is_active or not isinstance(data, Tensor):
            return super().forward(input, hx)  # type: ignore[misc, no-any-return]
        self.check_call(data)
        device, weight = data.device.type, self.weight_ih_l0
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        if isinstance(weight, Tensor) and data.dtype != weight.dtype and not autocast:
            return super().forward(input, hx)  # type: ignore[misc, no-any-return] # an error
        states = _states(hx)
        check_tensors(self, layer_shapes(self), data, states)
        if isinstance(input, PackedSequence):
            check_packed(input)
            packing, batched, x = Packing.from_packed(input), True, data
        elif input.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        else:
            packing, batched = None, input.dim() == 3
            _check_dimensions(states, batched)
            x = input if batched else input.unsqueeze(1)
            x = x.transpose(0, 1) if batched and self.batch_first else x
            states = states and tuple(s if batched else s.unsqueeze(1) for s in states)
        # Not len(x), which a trace would hold as a constant.
        steps = x.shape[0] if packing is None else len(packing.batch_sizes)
        plan = plan_masks(self.placement, self._geometry(steps, batch_size(x, packing)))
        if not torch.compiler.is_compiling():
            _check_sequence(self, plan, steps, states)
        drawn = self.masks(plan, x.device, self.weight_ih_l0.dtype)
        if not drawn:
            return super().forward(input, hx)  # type: ignore[misc, no-any-return]
        y, end = run_layers(
            self, x, self._initial_states(x, states, packing), packing, self.placement, drawn
        )
        self.count(steps)
        if isinstance(input, PackedSequence):
            back = input.unsorted_indices
            end = end if back is None else tuple(state.index_select(1, back) for state in end)
            return PackedSequence(y, *input[1:]), _as_returned(self.mode, end)
        if not batched:
            return y.squeeze(1), _as_returned(self.mode, tuple(state.squeeze(1) for state in end))
        return y.transpose(0, 1) if self.batch_first else y, _as_returned(self.mode, end)

    def _geometry(self: Any, steps: int, batch: int) -> Geometry:
        directions = (0, 1) if self.bidirectional else (0,)
        return Geometry(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            directions,
            batch,
            steps,
            self.proj_size,
            CELL_TYPES[self.mode],
        )

    def _initial_states(
        self: Any, x: Tensor, states: States | None, packing: Packing | None
    ) -> States:
        """The initial states. They and the input are checked as in the stock layer."""
        if len(x) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if x.shape[-1] != self.input_size:
            # A wrong width is refused before a mask can hide it.
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {x.shape[-1]}"
            )
        count, batch = self.num_layers * (1 + self.bidirectional), batch_size(x, packing)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        shapes = [(count, batch, width) for width in widths[: CELL_TYPES[self.mode].states]]
        if states is None:
            # The same zeros for every layer: nothing writes to them.
            return tuple(x.new_zeros(1, *shape[1:]).expand(shape) for shape in shapes)
        if len(states) != len(shapes):
            parts = "h and c" if len(shapes) > 1 else "h"
            raise RuntimeError(
                f"{type(self).__name__}: the state must be {parts}. "
                f"Received: {len(states)} tensor(s)"
            )
        for number, (state, shape) in enumerate(zip(states, shapes, strict=True)):
            which = f"hidden[{number}]" if len(shapes) > 1 else "hidden"
            self.check_hidden_size(state, shape, f"Expected {which} size {{}}, got {{}}")
        if packing is None:
            return states
        return tuple(state.index_select(1, packing.sorted_indices) for state in states)

    def extra_repr(self: Any) -> str:
        return f"{super().extra_repr()}{policy_repr(self)}"  # type: ignore[misc]


def _check_sequence(layer: Any, plan: Plan, steps: int, states: States | None) -> None:
    """Check whether a call is one of several over one sequence, and warn if it seems to be.

    Raises:
        PolicyError: the layer is bidirectional, and this is the sequence's second call.
    """
    shared, name = layer.shared, type(layer).__name__
    if shared is not None:
        if shared.goes_on and shared.step > 0 and layer.bidirectional:
            raise PolicyError(
                f"{name}: a bidirectional layer needs the whole sequence in one call, because its "
                f"backward direction begins at the end. Call it once inside "
                f"dp.sequence, or leave it out of the scope."
            )
        return
    held = [slot.site.value for slot, mask in plan.items() if mask.rule.per != "step"]
    is_own = layer.masks_apply and layer.tape is None and not layer.keys.hold
    if held and is_own and steps == 1 and states is not None and not layer.told_of_steps:
        layer.told_of_steps = True
        warn_of_steps(name, layer.placement.policy.name, held)


def _states(hx: Any) -> States | None:
    if hx is None:
        return None
    return tuple(hx) if isinstance(hx, tuple | list) else (hx,)


def _as_returned(mode: str, states: States) -> Any:
    return states if mode == "LSTM" else states[0]


def _check_dimensions(states: States | None, batched: bool) -> None:
    """Raise an error if a state is batched and the input is not, or the other way round."""
    dimensions = 3 if batched else 2
    if states is not None and any(state.dim() != dimensions for state in states):
        form = "batched 3-D" if batched else "unbatched 2-D"
        some = "hx and cx" if len(states) == 2 else "hx"
        got = ", ".join(f"{state.dim()}-D" for state in states)
        also = f"For {form} input, {some} should also be {dimensions}-D but got "
        raise RuntimeError(also + (f"({got}) tensors" if len(states) == 2 else f"{got} tensor"))
