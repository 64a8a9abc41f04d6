"""Runs a user's own cell over the steps of a sequence under a policy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from dropout_policies_kernels.cells import (
    SiteMasks,
    States,
    apply_drop,
    apply_zoneout,
    loop_over_steps,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.adapter import (
    CUSTOM,
    VERTICAL,
    Geometry,
    Policy,
    PolicyError,
    PolicyName,
    Rates,
    Site,
    check_sites,
    plan_masks,
    stack_placement,
)

from .masks import Mask, mask_values
from .policy_layer import SHARED, PolicyLayer, policy_repr, resolve_policy, run_eagerly
from .recurrence import Packing, apply_packed_mask, batch_size, pad_packed
from .scripting import symbolic_call
from .tensor_checks import check_packed

OTHER_NAMES = {
    "input_size": ("input_dim", "input_channels", "in_channels"),
    "hidden_size": ("hidden_dim", "hidden_channels", "out_channels"),
}
"""Other names that people give to the sizes of their cells."""


class Unrolled(PolicyLayer, nn.Module):
    """Run your own cell over the steps of a sequence, with masks around it and none inside.

    ```python
    rnn = Unrolled(LayerNormLSTMCell(64, 64), policy="zaremba", rate=0.5)
    y, (h, c) = rnn(x)  # x [T, B, D]
    ```

    The cell is called as those of `torch.nn` are: `cell(x, state)` with x `[B, D]`. The state is
    None at the first step, and afterwards what the cell returned: h `[B, H]`, or a tuple that
    begins with h and has other parts of any shape `[B, ...]`. h is also the output of the cell.

    Masks can be on the input (`input` or `between`), on the output (`output`), on the h that the
    cell receives (`hidden`), and on the h that it returns (`state`, `hidden_update`). If no initial
    state is given, the cell makes its own. Then `hidden` masks nothing at the first step, and
    zoneout keeps zeros there.

    x and h may have spatial axes S after their channels D and H, as in a convolutional LSTM: x is
    `[T, B, D, *S]`, and h is `[B, H, *S']`. A rule with `shape="channel"` then masks whole feature
    maps.

    Some cells compute all steps at once, by a parallel scan. With `at_once`, the cell is called
    once per sequence, with x `[T, B, D]`, and returns all outputs `[T, B, H]` and the last state.
    Masks can then be only on the input and on the output, because nothing between steps can be
    seen.

    Args:
        cell: the module.
        input_size: D. None: read it from the cell's attribute `input_size`, `input_dim`,
            `input_channels` or `in_channels`.
        hidden_size: H. None: read it from the cell's attribute `hidden_size`, `hidden_dim`,
            `hidden_channels` or `out_channels`.
        spatial_size: S', if it differs from S. None: S' is S.
        at_once: whether the cell takes all steps of a sequence in one call.
        batch_first: whether input and output are `[B, T, ...]`.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: no masks.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the layer, L)`, for an object that is part of a larger stack of L layers.
            Layers are numbered from 0. None: the object is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: a size is unknown, the policy is unknown, it has a site inside the cell or
            untied gates, a rate or the seed is out of range, `stack` or a list of rates does not
            fit, or `rate`, `seed` or `stack` is given without a policy. In a call: h has other
            spatial axes than S', or a packed input is given with `at_once`.
    """

    def __init__(
        self,
        cell: nn.Module,
        *,
        input_size: int | None = None,
        hidden_size: int | None = None,
        spatial_size: Sequence[int] | None = None,
        at_once: bool = False,
        batch_first: bool = False,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
    ) -> None:
        choice = resolve_policy("Unrolled", policy, rate, seed, stack=stack)
        super().__init__()
        self.cell, self.batch_first, self.at_once = cell, batch_first, at_once
        self.input_size = self._size("input_size", input_size)
        self.hidden_size = self._size("hidden_size", hidden_size)
        self.spatial_size = None if spatial_size is None else tuple(spatial_size)
        if choice is not None:
            chosen = choice.on_one(self.sites)
            check_custom_cell(self, chosen, self.title)
            placement = stack_placement(chosen, stack, 1, "Unrolled")
            placement.check_rates(1, "Unrolled")
            self.set_placement(placement, seed)

    @property
    def title(self) -> str:
        """The name that errors use."""
        return f"Unrolled({type(self.cell).__name__})"

    @property
    def sites(self) -> frozenset[Site]:
        """The sites that it has."""
        return VERTICAL if self.at_once else CUSTOM.sites

    def _size(self, name: str, given: int | None) -> int:
        named = (getattr(self.cell, each, None) for each in (name, *OTHER_NAMES[name]))
        size = next((s for s in named if s is not None), None) if given is None else given
        if not isinstance(size, int) or size < 1:
            raise PolicyError(
                f"Unrolled: {name} is needed to plan masks, and {type(self.cell).__name__} has no "
                f"such attribute. Received: {name}={given!r}; write: "
                f"Unrolled(cell, input_size=D, hidden_size=H)"
            )
        return size

    def forward(
        self, input: Tensor | PackedSequence, hx: Any = None
    ) -> tuple[Tensor | PackedSequence, Any]:
        """Run the cell over a sequence.

        Args:
            input: x `[T, B, D, *S]` (`[B, T, D, *S]` if `batch_first`), or a `PackedSequence`.
            hx: the initial state. None: the cell makes its own.

        Returns:
            h of all steps, in the form of the input, and the last state.

        Raises:
            PolicyError: see above.
            ValueError: x has fewer than 3 axes.
        """
        node = symbolic_call(self, input, hx)
        if node is not None:
            return node  # type: ignore[no-any-return]
        if torch.compiler.is_compiling() and SHARED.entered:
            return run_eagerly(self._run, input, hx)  # type: ignore[no-any-return]
        return self._run(input, hx)

    def _run(self, input: Tensor | PackedSequence, hx: Any) -> tuple[Tensor | PackedSequence, Any]:
        x = input.data if isinstance(input, PackedSequence) else input
        self.check_call(x)
        packing = None
        if isinstance(input, PackedSequence):
            self._check_takes_packed()
            check_packed(input, has_spatial_axes=True)
            packing = Packing.from_packed(input)
        if packing is None and x.dim() < 3:
            raise ValueError(f"{self.title}: Expected input to be 3D, got {x.dim()}D instead")
        x = x.transpose(0, 1) if self.batch_first and packing is None else x
        noise = self._draw_masks(x, packing)
        entry = noise.pop(Site.INPUT, noise.pop(Site.BETWEEN, None))
        leaving = noise.pop(Site.OUTPUT, None)
        plain = {site: mask_values(mask, x.dtype) for site, mask in noise.items()}
        if self.at_once:
            return self._run_at_once(x, hx, entry, leaving)
        x, valid, inside = pad_packed(apply_packed_mask(x, entry, packing), packing, plain)
        states = hx if hx is None or isinstance(hx, tuple | list) else (hx,)
        if states is not None and packing is not None:
            states = tuple(state[packing.sorted_indices] for state in states)
        # Cut at once, not step by step: a trace of it refuses another number of steps.
        is_tensor, inputs = False, x.unbind(0)

        def step(t: int, before: States, noise: SiteMasks) -> States:
            nonlocal is_tensor
            given: Any = None
            if before:
                given = (apply_drop(noise, Site.HIDDEN, before[0]), *before[1:])
                given = given[0] if is_tensor else given
            new = self.cell(inputs[t], given)
            is_tensor = isinstance(new, Tensor)
            new = (new,) if is_tensor else tuple(new)
            self._check_size(new[0], x, bool(noise) or leaving is not None)
            # Under autocast h may be narrower than the input that the masks were drawn for.
            noise = {site: mask.to(new[0].dtype) for site, mask in noise.items()}
            h = apply_drop(noise, Site.STATE, new[0])
            previous = before[0] if before else torch.zeros_like(h)
            return apply_zoneout(noise, Site.HIDDEN_UPDATE, previous, h), *new[1:]

        is_tensor = isinstance(hx, Tensor)
        y, end = loop_over_steps(step, len(x), tuple(states or ()), inside, valid, reverse=False)
        if packing is not None:
            y = y[packing.step, packing.sorted_sample]
            back = packing.sorted_indices.argsort()
            end = tuple(state[back] for state in end)
        y = apply_packed_mask(y, leaving, packing)
        self.count(len(x))
        last = end[0] if is_tensor else end
        if isinstance(input, PackedSequence):
            return PackedSequence(y, *input[1:]), last
        return y.transpose(0, 1) if self.batch_first else y, last

    def _run_at_once(
        self, x: Tensor, hx: Any, entry: Mask | None, leaving: Mask | None
    ) -> tuple[Tensor, Any]:
        """Call the cell once for all steps of x `[T, B, D]`."""
        y, last = self.cell(apply_packed_mask(x, entry, None), hx)
        self._check_size(y[0], x, leaving is not None)
        y = apply_packed_mask(y, leaving, None)
        self.count(len(x))
        return y.transpose(0, 1) if self.batch_first else y, last

    def __prepare_scriptable__(self) -> Any:
        raise PolicyError(
            f"{self.title}: TorchScript cannot compile a loop over a cell of any kind. Use "
            f"torch.jit.trace on the model in evaluation."
        )

    def _draw_masks(self, x: Tensor, packing: Packing | None) -> dict[Site, Mask]:
        if not self.is_active:
            return {}
        assert self.placement is not None
        steps = x.shape[0] if packing is None else len(packing.batch_sizes)
        inside = tuple(x.shape[3:] if packing is None else x.shape[2:])
        outside = inside if self.spatial_size is None else self.spatial_size
        geometry = Geometry(
            self.input_size,
            self.hidden_size,
            1,
            (0,),
            batch_size(x, packing),
            steps,
            cell=CUSTOM,
            input_positions=prod(inside),
            positions=prod(outside),
        )
        drawn = self.masks(plan_masks(self.placement, geometry), x.device, x.dtype)
        masks = {slot.site: mask for slot, mask in drawn.items()}
        if inside or outside:
            for site, mask in masks.items():
                is_input = site in (Site.INPUT, Site.BETWEEN)
                sizes = (self.input_size, inside) if is_input else (self.hidden_size, outside)
                masks[site] = _with_spatial_axes(mask, *sizes)
        return masks

    def _check_takes_packed(self) -> None:
        """Check that the cell can run on packed input.

        Raises:
            PolicyError: it takes all steps at once, and does not know the lengths.
        """
        if self.at_once:
            raise PolicyError(
                f"{self.title}: a cell that takes all steps at once cannot take packed input. "
                "Received: a PackedSequence; pad it with torch.nn.utils.rnn.pad_packed_sequence, "
                "and ignore the outputs at padded steps."
            )

    def _check_size(self, h: Tensor, x: Tensor, is_masked: bool) -> None:
        """Check that masks fit h, if h has spatial axes.

        Raises:
            PolicyError: they do not.
        """
        planned = x.shape[3:] if self.spatial_size is None else torch.Size(self.spatial_size)
        if is_masked and h.shape[2:] != planned:
            raise PolicyError(
                f"{self.title}: masks are planned for an h whose spatial axes are {list(planned)}. "
                f"Received: h of shape {list(h.shape)}; write: "
                f"Unrolled(cell, spatial_size={tuple(h.shape[2:])})"
            )

    def extra_repr(self) -> str:
        return policy_repr(self).removeprefix(", ")


def _with_spatial_axes(mask: Mask, channels: int, spatial: tuple[int, ...]) -> Mask:
    """Reshape a mask `[T, B, F]` for values `[T, B, C, *S]`."""
    steps, batch, width = mask.shape
    if width == channels * prod(spatial):
        return mask.reshape(steps, batch, channels, *spatial)
    return mask.reshape(steps, batch, width, *(1 for _ in spatial))  # of channels, or a mean


def check_custom_cell(layer: Unrolled, policy: Policy, name: str) -> None:
    """Check that a policy has no site inside the cell.

    Raises:
        PolicyError: it has one, or untied gates.
    """
    inside = f"Only {type(layer.cell).__name__} itself can mask inside."
    check_sites(policy, name, layer.sites, inside, untied_allowed=False)
