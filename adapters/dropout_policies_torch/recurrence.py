"""Running stacked recurrent layers under given masks, on the fastest correct path.

If a mask falls inside the recurrence, the layer runs as one operator over the whole sequence. If
there is no operator for that mask, it runs as a plain loop over the steps. If no mask falls inside,
each layer and direction is one call of such an operator or of PyTorch's own kernel (`torch.lstm`
and its like, cuDNN on a GPU), whichever is faster. Masks of weights are applied beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from dropout_policies_kernels import operators
from dropout_policies_kernels.cells import (
    STEP_FUNCTIONS,
    SiteMasks,
    States,
    Weights,
    compute_input_gates,
    loop_over_steps,
)
from dropout_policies_kernels.operator_arguments import OPERATOR_SITES
from dropout_policies_kernels.tracing import in_torch_func, is_vmapped
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropout_policies.adapter import (
    Placement,
    Site,
)

from .masks import Mask, Masks, apply_mask, mask_values


@dataclass(frozen=True)
class Packing:
    """The step and the sample of each row of a packed batch.

    Args:
        batch_sizes: how many samples have each step, `[T]`, on the CPU.
        step: the step t of each row, `[N]`.
        sorted_sample: the number of each row's sample in the sorted batch, `[N]`.
        sample: the number of each row's sample in the batch as the user gave it, `[N]`.
        reversed_row: for each row, the row of the same sample with its steps in reverse, `[N]`.
        sorted_indices: the sample at each place of the sorted batch, `[B]`.
    """

    batch_sizes: Tensor
    step: Tensor
    sorted_sample: Tensor
    sample: Tensor
    reversed_row: Tensor
    sorted_indices: Tensor

    @classmethod
    def from_packed(cls, packed: PackedSequence) -> Packing:
        """The packing of a batch."""
        sizes, device = packed.batch_sizes, packed.data.device
        batch = int(sizes[0])
        grid = torch.arange(batch, device="cpu")[None, :] < sizes[:, None]  # [T, B]
        step, sorted_sample = grid.nonzero(as_tuple=True)
        lengths = grid.sum(0)
        offsets = sizes.cumsum(0) - sizes
        reversed_row = offsets[lengths[sorted_sample] - 1 - step] + sorted_sample
        order = packed.sorted_indices
        order = torch.arange(batch, device=device) if order is None else order
        sorted_sample = sorted_sample.to(device)
        sample = order[sorted_sample]
        return cls(sizes, step.to(device), sorted_sample, sample, reversed_row.to(device), order)


def run_layers(
    layer: nn.RNNBase,
    x: Tensor,
    states: States,
    packing: Packing | None,
    placement: Placement,
    masks: Masks,
) -> tuple[Tensor, States]:
    """Run every layer and direction of a recurrent module under its masks.

    Args:
        layer: the module.
        x: the input `[T, B, D]`, or the packed rows `[N, D]`.
        states: h `[L*K, B, P]`, and for an LSTM c `[L*K, B, H]`, for K directions. If x is packed,
            they are in sorted order.
        packing: the steps and samples of the rows. None: x is not packed.
        placement: the placement that says which slots belong to this module.
        masks: the masks by slot.

    Returns:
        The output in the form of `x`, and the last states in the form of `states`.
    """
    directions = (0, 1) if layer.bidirectional else (0,)
    input_sites = placement.vertical(layer.num_layers)[: layer.num_layers]
    weights: list[Weights] = []
    # Masks by site, in the order of the weights: layer by layer, direction by direction.
    masks_of_runs: list[dict[Site, Mask]] = []
    for (_, number), direction in product(input_sites, directions):
        place = (placement.layer + number, direction)
        masks_of_runs.append({slot.site: mask for slot, mask in masks.items() if slot[1:] == place})
        unmasked = Weights.from_list(list(layer.all_weights[len(weights)]))
        weights.append(_apply_weight_masks(unmasked, masks_of_runs[-1]))
    ends: list[States] = []
    # A trace would hold len(x) as a constant.
    steps = x.shape[0] if packing is None else len(packing.batch_sizes)
    # torch.compile's graphs cannot hold PyTorch's kernels, and vmap cannot batch them.
    use_loop = torch.compiler.is_compiling() or (
        in_torch_func()
        and is_vmapped((x, *states, *(each for w in weights for each in w.to_list())))
    )
    while len(ends) < len(weights):
        first = len(ends)
        count = len(directions) * _count_unmasked_layers(masks_of_runs[first:], len(directions))
        first_states = [state[first] for state in states]
        if (
            count > len(directions)
            and not use_loop
            and not operators.is_faster(layer.mode, weights[first], x, first_states, steps)
        ):
            flat_weights = [each for w in weights[first : first + count] for each in w.to_list()]
            initial = tuple(state[first : first + count] for state in states)
            x, end = _run_torch_kernel(
                layer.mode, flat_weights, x, initial, packing, count, layer.bidirectional
            )
            ends.extend(zip(*end, strict=True))
            continue
        input_site, _ = input_sites[first // len(directions)]
        outputs = []
        for direction in directions:
            index = len(ends)
            run_masks, initial = masks_of_runs[index], tuple(state[index] for state in states)
            output_mask = run_masks.pop(Site.OUTPUT, None)
            y, end = _run_direction(
                layer.mode,
                weights[index],
                x,
                initial,
                packing,
                direction == 1,
                input_site,
                run_masks,
                steps,
                use_loop,
            )
            outputs.append(apply_packed_mask(y, output_mask, packing))
            ends.append(end)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


def _count_unmasked_layers(masks_of_runs: list[dict[Site, Mask]], directions: int) -> int:
    """Count the leading layers that have no mask. PyTorch's kernel runs those in one call."""
    masked = (index for index, masks in enumerate(masks_of_runs) if masks)
    return next(masked, len(masks_of_runs)) // directions


def _run_direction(
    mode: str,
    weights: Weights,
    x: Tensor,
    initial: States,
    packing: Packing | None,
    reverse: bool,
    input_site: Site,
    masks: dict[Site, Mask],
    steps: int,
    use_loop: bool,
) -> tuple[Tensor, States]:
    """Run one layer in one direction.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the weights, with their masks applied.
        x: the input, or its packed rows.
        initial: the initial states.
        packing: the steps and samples of the rows. None: x is not packed.
        reverse: whether steps run from the last to the first.
        input_site: the site of the input's mask.
        masks: the masks by site, without those that the caller applies.
        steps: T.
        use_loop: whether to avoid PyTorch's own kernel.

    Returns:
        The output and the last states.
    """
    input_mask = masks.get(input_site)
    if input_mask is None or input_mask.shape[-1] in (1, x.shape[-1]):
        x = apply_packed_mask(x, masks.pop(input_site, None), packing)
    if masks or use_loop or operators.is_faster(mode, weights, x, initial, steps):
        values = {site: mask_values(mask, x.dtype) for site, mask in masks.items()}
        return _run_masked(mode, weights, x, initial, packing, reverse, input_site, values)
    x = _reverse_steps(x, packing) if reverse else x
    states = tuple(state[None] for state in initial)
    y, end = _run_torch_kernel(mode, weights.to_list(), x, states, packing)
    return _reverse_steps(y, packing) if reverse else y, tuple(state[0] for state in end)


def _reverse_steps(x: Tensor, packing: Packing | None) -> Tensor:
    """Reverse the steps of each sample."""
    return x.flip(0) if packing is None else x[packing.reversed_row]


def _apply_weight_masks(weights: Weights, masks: dict[Site, Mask]) -> Weights:
    """Apply the weight masks `[1, G*H, D or P]`, and remove them from `masks`."""
    for site, name in ((Site.INPUT_WEIGHT, "w_ih"), (Site.RECURRENT_WEIGHT, "w_hh")):
        mask = masks.pop(site, None)
        if mask is not None:
            weight = getattr(weights, name)
            weights = replace(weights, **{name: apply_mask(mask[0], weight)})
    return weights


def apply_packed_mask(x: Tensor, mask: Mask | None, packing: Packing | None) -> Tensor:
    """Apply a mask `[T or 1, B or 1, F or 1]` to x.

    Args:
        x: `[T, B, F]`, or packed rows `[N, F]`.
        mask: the mask. None: return x as it is.
        packing: the steps and samples of the rows. None: x is not packed.
    """
    if mask is None:
        return x
    if packing is not None:
        steps = packing.step if mask.shape[0] > 1 else torch.zeros_like(packing.step)
        samples = packing.sample if mask.shape[1] > 1 else torch.zeros_like(packing.sample)
        mask = mask[steps, samples]
    return apply_mask(mask, x)


def _run_torch_kernel(
    mode: str,
    weights: list[Tensor],
    x: Tensor,
    states: States,
    packing: Packing | None,
    count: int = 1,
    bidirectional: bool = False,
) -> tuple[Tensor, States]:
    """Run PyTorch's own kernel.

    Args:
        mode: PyTorch's name for the kind of layer.
        weights: the weights of all these layers and directions, in order.
        x: the input, or its packed rows.
        states: the initial states, `[count, B, H]` each.
        packing: the steps and samples of the rows. None: x is not packed.
        count: the number of layers times the number of directions.
        bidirectional: whether the layers have two directions.

    Returns:
        The output and the last states.
    """
    states = tuple(state.contiguous() for state in states)
    hx = list(states) if mode == "LSTM" else states[0]
    layers = count // (1 + bidirectional)
    options = (len(weights) >= 4 * count, layers, 0.0, True, bidirectional)
    kernel: Any = getattr(torch, mode.lower())  # lstm, gru, rnn_tanh or rnn_relu
    if packing is not None:
        y, *end = kernel(x, packing.batch_sizes, hx, weights, *options)
    else:
        y, *end = kernel(x, hx, weights, *options, False)
    return y, tuple(end)


def _run_masked(
    mode: str,
    weights: Weights,
    x: Tensor,
    initial: States,
    packing: Packing | None,
    reverse: bool,
    input_site: Site,
    masks: SiteMasks,
) -> tuple[Tensor, States]:
    """Run one layer in one direction with its operator, or with the plain loop if it has none."""
    x, valid, masks = pad_packed(x, packing, masks)
    # An operator has one site for the input, whichever layer it runs.
    operator_masks = {
        Site.INPUT if site is input_site else site: mask for site, mask in masks.items()
    }
    has_operator = operators.supports(mode, weights, operator_masks, (x, *initial))
    if has_operator and not operators.is_loop_faster(x):
        y, states = _run_operator(mode, weights, x, initial, operator_masks, valid, reverse)
    else:
        y, states = _run_loop(mode, weights, x, initial, masks, input_site, valid, reverse)
    return (y if packing is None else y[packing.step, packing.sorted_sample]), states


def _run_loop(
    mode: str,
    weights: Weights,
    x: Tensor,
    initial: States,
    masks: SiteMasks,
    input_site: Site,
    valid: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, States]:
    """Run the plain loop, which supports every kind of differentiation."""
    # Split at once and not step by step: then a trace refuses another number of steps.
    input_gates = compute_input_gates(mode, x, weights, masks.get(input_site)).unbind(0)
    step, dtype = STEP_FUNCTIONS[mode], input_gates[0].dtype
    return loop_over_steps(
        lambda t, states, step_masks: step(input_gates[t], states, weights, step_masks),
        len(x),
        tuple(state.to(dtype) for state in initial),
        {site: mask.to(dtype) for site, mask in masks.items() if site is not input_site},
        valid,
        reverse,
    )


def _run_operator(
    mode: str,
    weights: Weights,
    x: Tensor,
    initial: States,
    masks: SiteMasks,
    valid: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, States]:
    """Run the operator of the whole sequence. It takes all tensors in one dtype."""
    device = x.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    returned_dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    dtype = operators.computing_dtype(returned_dtype, x, weights)
    typed_masks = {site: mask.to(dtype) for site, mask in masks.items()}
    if valid is not None:
        # At a step of padding, zoneout keeps the whole state.
        for site in {Site.HIDDEN_UPDATE, Site.CELL_UPDATE} & set(OPERATOR_SITES[mode]):
            update = typed_masks.get(site, torch.zeros_like(valid, dtype=dtype))
            typed_masks[site] = torch.where(valid, update, 1.0)
    typed_weights = weights.to(dtype)
    states = tuple(state.to(dtype) for state in initial)
    y, last = operators.run_operator(mode, typed_weights, x.to(dtype), states, typed_masks, reverse)
    return y.to(returned_dtype), tuple(state.to(returned_dtype) for state in last)


def pad_packed(
    x: Tensor, packing: Packing | None, masks: SiteMasks
) -> tuple[Tensor, Tensor | None, SiteMasks]:
    """Turn packed rows into a padded sequence. If x is not packed, return everything as it is.

    Returns:
        The sequence `[T, B, D]` in sorted order; which of its steps are not padding, `[T, B, 1]`,
        or None if x is not packed; and the masks in sorted order.
    """
    if packing is None:
        return x, None, masks
    order = packing.sorted_indices
    masks = {s: m[:, order] if m.shape[1] > 1 else m for s, m in masks.items()}
    padded = x.new_zeros(len(packing.batch_sizes), len(order), *x.shape[1:])
    padded = padded.index_put((packing.step, packing.sorted_sample), x)
    valid = torch.zeros(*padded.shape[:2], 1, dtype=torch.bool, device=x.device)
    valid[packing.step, packing.sorted_sample] = True
    return padded, valid, masks


def batch_size(x: Tensor, packing: Packing | None) -> int:
    """Return B, the number of samples."""
    return x.shape[1] if packing is None else len(packing.sorted_indices)
