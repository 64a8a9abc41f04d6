"""Drop-in recurrent layers: `torch.nn`'s own, plus `policy`, `rate`, `seed` and `stack`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.catalog import resolve
from dropout_policies.errors import PolicyError
from dropout_policies.keyed import check_seed
from dropout_policies.plan import Geometry, Placement, check_sites, plan
from dropout_policies.policy import Policy
from dropout_policies.sites import VERTICAL, Site
from dropout_policies.stacks import stack_placement

from . import masks
from .recurrence import Packing, State, run

CELL_SITES = frozenset({Site.INPUT, Site.BETWEEN, Site.HIDDEN})
"""What a cell can mask by itself; see `LSTMCell`."""


class LSTM(nn.LSTM):
    """A drop-in `torch.nn.LSTM` that runs under a dropout policy while it trains.

    Every argument of `torch.nn.LSTM` keeps its meaning, and so do its weights, their names and
    its `state_dict()`. Without a policy, in evaluation and at rate 0 it is `torch.nn.LSTM`, bit
    for bit.

    Args:
        policy: a policy's name, or a `Policy`; None leaves the layer as the stock one.
        rate: the rate, in [0, 1), for a policy given by name.
        seed: an integer in [0, 2**32) for keyed masks; None for PyTorch's own generator.
        stack: `(number of the first layer, L)` for an object that is a part of a stack of L
            layers; None for one that is a stack of its own.

    Attributes:
        calls: how many training calls the masks have been drawn for; a word of their key.
        row_offset: the number of this process's first row in the whole batch (keyed masks).

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does
            not have, or native `dropout` beside a policy.
    """

    placement: Placement | None = None
    seed: int | None = None
    calls: int = 0
    row_offset: int = 0

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: float | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = _chosen("LSTM", policy, rate, seed, stack)
        super().__init__(*args, **kwargs)
        if chosen is not None:
            if self.dropout > 0.0:
                raise PolicyError(
                    f"LSTM: its own dropout would come on top of the policy's. Received: "
                    f"dropout={self.dropout}, policy={chosen.name!r}; leave dropout out."
                )
            check_sites(chosen, "LSTM")
            self.placement = stack_placement(chosen, stack, self.num_layers, "LSTM")
            self.seed = seed

    def forward(  # type: ignore[override]
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """As in `torch.nn.LSTM`: x `[T, B, D]` or any of its forms, to output and state."""
        placement = self.placement
        if placement is None or not self.training or not placement.policy.active:
            return super().forward(input, hx)
        check_once(self)
        data = input.data if isinstance(input, PackedSequence) else input
        if data.dtype != self.weight_ih_l0.dtype and not torch.is_autocast_enabled(
            data.device.type
        ):
            return super().forward(input, hx)  # which refuses it
        if isinstance(input, PackedSequence):
            y, state = self._train(input.data, hx, Packing.of(input), input)
            return PackedSequence(y, *input[1:]), state
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        if hx is not None and any(part.dim() != input.dim() for part in hx):
            batched = "batched 3-D" if input.dim() == 3 else "unbatched 2-D"
            raise RuntimeError(
                f"For {batched} input, hx and cx should also be {input.dim()}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        if input.dim() == 2:
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            y, (h, c) = self._train(input.unsqueeze(1), hx, None, None)
            return y.squeeze(1), (h.squeeze(1), c.squeeze(1))
        y, state = self._train(input.transpose(0, 1) if self.batch_first else input, hx, None, None)
        return y.transpose(0, 1) if self.batch_first else y, state

    def _train(
        self, x: Tensor, hx: State | None, packing: Packing | None, packed: PackedSequence | None
    ) -> tuple[Tensor, State]:
        assert self.placement is not None
        steps = len(x) if packing is None else len(packing.batch_sizes)
        batch = x.shape[1] if packing is None else len(packing.order)
        directions = (0, 1) if self.bidirectional else (0,)
        width = self.proj_size or self.hidden_size
        self._check_input(x)
        count = self.num_layers * len(directions)
        if hx is None:
            hx = x.new_zeros(count, batch, width), x.new_zeros(count, batch, self.hidden_size)
        else:
            self.check_hidden_size(
                hx[0], (count, batch, width), "Expected hidden[0] size {}, got {}"
            )
            self.check_hidden_size(
                hx[1], (count, batch, self.hidden_size), "Expected hidden[1] size {}, got {}"
            )
            hx = self.permute_hidden(hx, None if packed is None else packed.sorted_indices)
        geometry = Geometry(self.input_size, width, self.num_layers, directions, batch, steps)
        wanted = plan(self.placement, geometry)
        drawn = masks.draw(wanted, self.seed, self.calls, self.row_offset, x.device, x.dtype)
        y, state = run(self, x, hx, packing, self.placement, drawn)
        self.calls += 1
        return y, self.permute_hidden(state, None if packed is None else packed.unsorted_indices)

    def _check_input(self, x: Tensor) -> None:
        """A wrong width is refused before a mask can hide it."""
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {x.shape[-1]}"
            )

    def extra_repr(self) -> str:
        return super().extra_repr() + _policy_repr(self.placement)


class LSTMCell(nn.LSTMCell):
    """A drop-in `torch.nn.LSTMCell` under a dropout policy while it trains, one step a call.

    A cell hands back one h that is both its output and the state to carry, so it masks only what
    comes in; the output site is for the caller, where h leaves the stack:

    ```python
    h, c = cell(x, (h, c))  # h stays whole
    y = cell.mask_output(h)  # what leaves
    ```

    Args and attributes are those of `LSTM`; `stack=(1, 2)` says that the cell is layer 1 of 2.
    `calls` counts steps. A rule per sequence needs a layer that sees the sequence.
    """

    placement: Placement | None = None
    seed: int | None = None
    calls: int = 0
    row_offset: int = 0

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: float | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = _chosen("LSTMCell", policy, rate, seed, stack)
        super().__init__(*args, **kwargs)
        if chosen is not None:
            check_sites(chosen, "LSTMCell", VERTICAL | CELL_SITES)
            check_cell_rules(chosen, "LSTMCell")
            self.placement = stack_placement(chosen, stack, 1, "LSTMCell")
            self.seed = seed

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """One step: input `[B, D]` or `[D]`, state h and c `[B, H]` or `[H]`, to the new state."""
        if not self._masking or not self._fits(input, hx):
            return super().forward(input, hx)  # which refuses what does not fit
        check_once(self)
        batch = input.shape[0] if input.dim() == 2 else 1
        drawn = self._draw(CELL_SITES, self.calls, batch, input)
        for slot, mask in drawn.items():
            step = mask[0] if input.dim() == 2 else mask[0, 0]
            if slot.site is not Site.HIDDEN:
                input = input * step
            elif hx is not None:
                # Only the gates see the masked h; the new state depends on h through them alone.
                hx = hx[0] * step, hx[1]
        state = super().forward(input, hx)
        self.calls += 1
        return state

    def mask_output(self, h: Tensor) -> Tensor:
        """h `[B, H]` or `[H]` on its way out of the stack, masked; the carried h stays whole."""
        if not self._masking:
            return h
        if h.dim() not in (1, 2) or h.shape[-1] != self.hidden_size:
            raise PolicyError(
                f"LSTMCell.mask_output takes the h of one step, [B, {self.hidden_size}] or "
                f"[{self.hidden_size}]. Received: h of shape {list(h.shape)}"
            )
        batch = h.shape[0] if h.dim() == 2 else 1
        drawn = self._draw(frozenset({Site.OUTPUT}), max(self.calls - 1, 0), batch, h)
        for mask in drawn.values():
            h = h * (mask[0] if h.dim() == 2 else mask[0, 0])
        return h

    def _fits(self, input: Tensor, hx: State | None) -> bool:
        state = (*input.shape[:-1], self.hidden_size)
        return (
            input.dim() in (1, 2)
            and input.shape[-1] == self.input_size
            and (hx is None or (len(hx) == 2 and all(part.shape == state for part in hx)))
        )

    @property
    def _masking(self) -> bool:
        return self.training and self.placement is not None and self.placement.policy.active

    def _draw(self, sites: frozenset[Site], call: int, batch: int, like: Tensor) -> masks.Masks:
        assert self.placement is not None
        wanted = plan(self.placement, Geometry(self.input_size, self.hidden_size, batch=batch))
        wanted = {slot: mask for slot, mask in wanted.items() if slot.site in sites}
        return masks.draw(wanted, self.seed, call, self.row_offset, like.device, like.dtype)

    def extra_repr(self) -> str:
        return super().extra_repr() + _policy_repr(self.placement)


def check_once(module: LSTM | LSTMCell) -> None:
    """Make sure that the number of a keyed call means what it says.

    Raises:
        PolicyError: the call is activation checkpointing's second one, or is made on one of
            DataParallel's copies; both would draw other masks than the key says, silently.
    """
    if module.seed is None:
        return
    # Private, because nothing public tells that the backward pass is running.
    if torch._C._current_graph_task_id() != -1:
        raise PolicyError(
            f"{type(module).__name__}: keyed masks cannot be drawn again for activation "
            f"checkpointing: the second call would be numbered {module.calls}, not as the first. "
            f"Leave seed out; PyTorch's own generator is set back by torch.utils.checkpoint."
        )
    if getattr(module, "_is_replica", False):
        raise PolicyError(
            f"{type(module).__name__}: keyed masks on DataParallel's copies would be the same for "
            f"other rows. Use DistributedDataParallel and set row_offset, or leave seed out."
        )


def check_cell_rules(policy: Policy, layer_name: str) -> None:
    """Make sure that a cell, which sees one step at a time, can follow every rule.

    Raises:
        PolicyError: a rule lives longer than a step.
    """
    longer = [site.value for site, rule in policy.items() if rule.per != "step"]
    if longer:
        raise PolicyError(
            f"{layer_name} sees one step at a time and cannot hold a mask per sequence "
            f"(site {', '.join(longer)} of policy {policy.name!r}). Use LSTM."
        )


def _chosen(
    layer_name: str,
    policy: str | Policy | None,
    rate: float | None,
    seed: int | None,
    stack: tuple[int, int] | None,
) -> Policy | None:
    if seed is not None:
        check_seed(seed)
    if policy is not None:
        return resolve(policy, rate)
    for argument, value in (("rate", rate), ("seed", seed), ("stack", stack)):
        if value is not None:
            raise PolicyError(
                f"{layer_name}: {argument} goes with a policy. Received: {argument}={value!r}, "
                f"policy=None; write: policy='zaremba', {argument}={value!r}"
            )
    return None


def _policy_repr(placement: Placement | None) -> str:
    return "" if placement is None else f", policy={placement.policy.name}"
