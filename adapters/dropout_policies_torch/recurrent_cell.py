"""The common part of the drop-in cells: one step under a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from dropout_policies_kernels.cells import (
    CELL_TYPES,
    STEP_FUNCTIONS,
    States,
    Weights,
    compute_input_gates,
)
from torch import Tensor, nn

from dropout_policies.adapter import (
    WEIGHTS,
    Choice,
    Geometry,
    Policy,
    PolicyError,
    Site,
    check_sites,
    plan_masks,
    stack_placement,
)

from .policy_layer import SHARED, PolicyLayer, policy_repr, run_eagerly
from .scripting import symbolic_call
from .tensor_checks import cell_shapes, check_tensors


class RecurrentCell(PolicyLayer):
    """The common part of the drop-in cells: a mixin before one of `torch.nn`'s.

    A cell returns one h that is both its output and the state to carry on. So the caller masks h
    where it leaves the stack, at the site `output`:

    ```python
    h, c = cell(x, (h, c))  # h stays whole
    y = cell.mask_output(h)  # what leaves
    ```

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.
    """

    if TYPE_CHECKING:  # TorchScript reads a class's annotations, and knows no names there
        input_size: int
        hidden_size: int
        weight_ih: Tensor

    def _start_policy(
        self, choice: Choice | None, seed: int | None, stack: tuple[int, int] | None
    ) -> None:
        """Put the cell under the policy of its arguments. It already has its weights."""
        if choice is None:
            return
        name, policy = type(self).__name__, choice.on_one(CELL_TYPES[self.mode].sites)
        check_step_rules(self, policy, name)
        placement = stack_placement(policy, stack, 1, name)
        placement.check_rates(1, name)
        self.set_placement(placement, seed)

    @property
    def mode(self) -> str:
        """The `mode` in `torch.nn` of the layer that this cell is one step of."""
        return mode_of(self)

    def call(self: Any, input: Tensor, hx: Any) -> Any:
        """The Python part of `forward`."""
        node = symbolic_call(self, input, hx)
        if node is not None:
            return node
        if torch.compiler.is_compiling() and SHARED.entered:
            return run_eagerly(self._run, input, hx)
        return self._run(input, hx)

    def _run(self: Any, input: Tensor, hx: Any) -> Any:
        states = hx if hx is None or isinstance(hx, tuple | list) else (hx,)
        if not self.is_active or not self._input_fits(input, states):
            return super().forward(input, hx)  # type: ignore[misc] # which refuses what does not fit
        self.check_call(input)
        if not torch.compiler.is_compiling():
            check_masks_can_be_held(self)
        check_tensors(self, cell_shapes(self, CELL_TYPES[self.mode].gates), input, states)
        batched = input.dim() == 2
        x = input if batched else input[None]
        drawn = self._draw_masks(x, for_output=False)
        noise = {slot.site: mask[0] for slot, mask in drawn.items()}
        if noise:
            if states is None:
                states = tuple(
                    x.new_zeros(len(x), self.hidden_size) for _ in range(self._state_count)
                )
            else:
                states = tuple(state if batched else state[None] for state in states)
            weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            entry = noise.get(Site.INPUT, noise.get(Site.BETWEEN))
            input_gates = compute_input_gates(self.mode, x, weights, entry)
            noise = {site: mask.to(input_gates.dtype) for site, mask in noise.items()}
            states = tuple(state.to(input_gates.dtype) for state in states)
            end = STEP_FUNCTIONS[self.mode](input_gates, states, weights, noise)
            end = end if batched else tuple(state[0] for state in end)
            found = end if self._state_count == 2 else end[0]
        else:
            found = super().forward(input, hx)  # type: ignore[misc]
        self.count()
        return found

    def mask_output(self, h: Tensor) -> Tensor:
        """Mask h where it leaves the stack. The h that is carried on stays unmasked.

        Args:
            h: the h that the cell returned, `[B, H]` or `[H]`.

        Returns:
            The masked h, with the same shape.

        Raises:
            PolicyError: h has another shape.
        """
        if not self.is_active:
            return h
        if h.dim() not in (1, 2) or h.shape[-1] != self.hidden_size:
            raise PolicyError(
                f"{type(self).__name__}.mask_output takes the h of one step, [B, "
                f"{self.hidden_size}] or [{self.hidden_size}]. Received: h of shape "
                f"{list(h.shape)}"
            )
        for mask in self._draw_masks(h if h.dim() == 2 else h[None], for_output=True).values():
            h = h * (mask[0] if h.dim() == 2 else mask[0, 0]).to(h.dtype)
        return h

    @property
    def _state_count(self) -> int:
        return CELL_TYPES[self.mode].states

    def _input_fits(self: Any, input: Tensor, states: States | None) -> bool:
        state = (*input.shape[:-1], self.hidden_size)
        return (
            input.dim() in (1, 2)
            and input.shape[-1] == self.input_size
            and (
                states is None
                or (
                    len(states) == self._state_count and all(part.shape == state for part in states)
                )
            )
        )

    def _draw_masks(self, like: Tensor, for_output: bool) -> Any:
        """The masks of the coming step; or, for the output, those of the previous step."""
        assert self.placement is not None
        geometry = Geometry(
            self.input_size, self.hidden_size, batch=len(like), cell=CELL_TYPES[self.mode]
        )
        plan = {
            slot: mask
            for slot, mask in plan_masks(self.placement, geometry).items()
            if (slot.site is Site.OUTPUT) == for_output
        }
        dtype = self.weight_ih.dtype
        return self.masks(plan, like.device, dtype, for_output) if plan else {}

    def sample(self, seed: int, hold: bool) -> Any:
        """As in `PolicyLayer`, but each step of a cell is a call, which has masks of its own.

        Raises:
            PolicyError: `hold` is true.
        """
        if hold:
            raise PolicyError(
                f"{type(self).__name__} sees one step at a time, and would hold one step's masks "
                f"for all. Use {mode_of(self).split('_')[0]}, or leave hold out."
            )
        return super().sample(seed, hold)

    def extra_repr(self: Any) -> str:
        return f"{super().extra_repr()}{policy_repr(self)}"  # type: ignore[misc]


def mode_of(cell: Any) -> str:
    """The `mode` of the layer that a cell of `torch.nn` is one step of."""
    if isinstance(cell, nn.RNNCell):
        return f"RNN_{cell.nonlinearity.upper()}"
    return "LSTM" if isinstance(cell, nn.LSTMCell) else "GRU"


def check_step_rules(cell: Any, policy: Policy, name: str, without: Site | None = None) -> None:
    """Check that a cell, which sees one step at a time, can follow a policy.

    Args:
        cell: one of the cells of `torch.nn`.
        policy: the policy.
        name: the name that errors use for it.
        without: a site that the cell does not have where it is used.

    Raises:
        PolicyError: it does not have a site of the policy.
    """
    sites = CELL_TYPES[mode_of(cell)].sites - WEIGHTS - {without}
    advice = (
        f"Give the output the rate 0: rate={{'output': 0}}. Or make it a "
        f"dropout_policies_torch.{type(cell).__name__} with the policy, and mask h where it leaves "
        f"with mask_output, and run its loop inside: with dp.sequence(model): ... Or leave it out: "
        f"skip='...'."
    )
    check_sites(policy, name, sites, advice if without else "")


def check_masks_can_be_held(cell: Any) -> None:
    """Check that masks that last longer than a step have a scope that says how long.

    Raises:
        PolicyError: they have none, because the call is not inside `dropout_policies.sequence`.
    """
    policy = cell.placement.policy
    longer = [s.value for s, rule in policy.items() if rule.active and rule.per != "step"]
    longer = [site for site in longer if site != Site.EMBEDDING]
    is_open = cell.shared is None and cell.tape is None and cell.masks_apply
    if longer and is_open:
        raise PolicyError(
            f"{type(cell).__name__} sees one step at a time, and policy {policy.name!r} holds "
            f"masks for longer (site {', '.join(longer)}). Say which steps are one sequence: "
            f"with dp.sequence(model): ..., around the loop."
        )
