"""Wrong placements that only a change to the PyTorch layer can make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from dropout_policies_kernels import (
    cells,
    gru_operator,
    lstm_operator,
    masked_products,
    operators,
    rnn_operator,
)
from dropout_policies_torch import layers, masks, recurrence, recurrent_layer
from dropout_policies_torch.masks import apply_mask

from dropout_policies.placement.plans import Slot
from dropout_policies.policies.rates import rate_at
from dropout_policies.policies.sites import Site

from .mutants import plan_changed

Mutant = Callable[[pytest.MonkeyPatch], None]


def _after_run(change: Callable) -> Mutant:
    """A change to what the recurrence gives back, seeing its masks."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = recurrent_layer.run_layers

        def changed(layer, x, state, packing, placement, masks):
            y, end = original(layer, x, state, packing, placement, masks)
            return change(y, end, placement, masks, layer)

        patch.setattr(recurrent_layer, "run_layers", changed)

    return apply


def _output_mask(masks, placement, layer):
    slot = Slot(Site.OUTPUT, placement.layer + layer.num_layers - 1, 0)
    return masks[slot][-1]


def _h_masked(y, end, placement, masks, layer):
    return y, (apply_mask(_output_mask(masks, placement, layer), end[0]), end[1])


def _c_masked(y, end, placement, masks, layer):
    return y, (end[0], apply_mask(_output_mask(masks, placement, layer), end[1]))


def _masks_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    original = layers.LSTM.forward

    def forward(self, x, hx=None):
        was = self.training
        self.training = True
        try:
            return original(self, x, hx)
        finally:
            self.training = was

    patch.setattr(layers.LSTM, "forward", forward)


def _same_masks_every_call(patch: pytest.MonkeyPatch) -> None:
    original = masks.draw
    patch.setattr(masks, "draw", lambda plan, seed, _, *rest: original(plan, seed, 0, *rest))


def _masks_follow_the_sorted_batch(patch: pytest.MonkeyPatch) -> None:
    original = recurrence.Packing.from_packed

    def from_packed(packed):
        found = original(packed)
        return replace(found, sample=found.sorted_sample)

    patch.setattr(recurrence.Packing, "from_packed", from_packed)


def _backward_reads_forward_masks(patch: pytest.MonkeyPatch) -> None:
    original = masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        return {slot: drawn[slot._replace(direction=0)] for slot in drawn}

    patch.setattr(masks, "draw", draw)


def _stock_dropout(patch: pytest.MonkeyPatch) -> None:
    """`torch.nn.LSTM(dropout=...)`: L−1 of the L+1 connections."""

    def forward(self, x, hx=None):
        rule = max(self.placement.policy.values(), key=lambda rule: rule.rate)
        vars(self)["dropout"] = rule.rate  # past the check
        return torch.nn.LSTM.forward(self, x, hx)

    patch.setattr(layers.LSTM, "forward", forward)


def _batch_first_reshaped(patch: pytest.MonkeyPatch) -> None:
    """Batch and steps change names but not places."""
    original = layers.LSTM.forward

    def forward(self, x, hx=None):
        if not self.batch_first or not torch.is_tensor(x):
            return original(self, x, hx)
        self.batch_first = False
        try:
            y, end = original(self, x.reshape(x.shape[1], x.shape[0], -1), hx)
        finally:
            self.batch_first = True
        return y.reshape(x.shape[0], x.shape[1], -1), end

    patch.setattr(layers.LSTM, "forward", forward)


def _unbatched_state_ignored(patch: pytest.MonkeyPatch) -> None:
    original = layers.LSTM.forward

    def forward(self, x, hx=None):
        return original(self, x, None if torch.is_tensor(x) and x.dim() == 2 else hx)

    patch.setattr(layers.LSTM, "forward", forward)


def _sequence_masks_left_out(patch: pytest.MonkeyPatch) -> None:
    original = masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        return {slot: mask for slot, mask in drawn.items() if plan[slot].rule.per == "step"}

    patch.setattr(masks, "draw", draw)


def _row_offset_ignored_where_packed(patch: pytest.MonkeyPatch) -> None:
    original = layers.LSTM._run

    def forward(self, x, hx):
        if not torch.is_tensor(x):
            self.row_offset = 0
        return original(self, x, hx)

    patch.setattr(recurrent_layer.Recurrent, "_run", forward)


def _one_bias(name: str) -> Mutant:
    def apply(patch: pytest.MonkeyPatch) -> None:
        original = getattr(recurrence, name)

        def loop(mode, w, *rest):
            return original(mode, replace(w, b_hh=w.b_hh if w.b_hh is None else 0 * w.b_hh), *rest)

        patch.setattr(recurrence, name, loop)

    return apply


def in_values(draw: Callable) -> Callable:
    """A `masks.draw` whose every mask is a tensor of what it multiplies by."""

    def drawn(wanted, seed, call, row_offset, device, dtype):
        found = draw(wanted, seed, call, row_offset, device, dtype)
        return {slot: masks.mask_values(mask, dtype) for slot, mask in found.items()}

    return drawn


def _operator(change: Callable) -> Mutant:
    """An operator under other masks: change(masks) -> masks."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = operators.run_operator

        def run_operator(mode, w, x, states, noise, reverse):
            return original(mode, w, x, states, change(dict(noise)), reverse)

        patch.setattr(operators, "run_operator", run_operator)

    return apply


def _moved(a: Site, b: Site) -> Mutant:
    return _operator(lambda noise: {b if site is a else site: mask for site, mask in noise.items()})


def _part(name: str, changed: Callable) -> Mutant:
    """Another part that all operators are made of."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        for operator in (lstm_operator, gru_operator, rnn_operator):
            patch.setattr(operator, name, changed(getattr(operator, name)))

    return apply


def _masked_product(name: str, change: Callable) -> Mutant:
    """Another product under masks: change(original, *arguments)."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = getattr(masked_products, name)
        patch.setattr(masked_products, name, lambda *args: change(original, *args))

    return apply


def _in_loop(mutant: Mutant) -> Mutant:
    """A mutant of the plain loop, which then runs every layer."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        mutant(patch)
        patch.setattr(operators, "supports", lambda *_: False)

    return apply


def _step(mode: str, change: Callable) -> Mutant:
    """Another step of a kind of layer: change(original, into, states, weights, noise)."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = cells.STEP_FUNCTIONS[mode]
        patch.setitem(cells.STEP_FUNCTIONS, mode, lambda *args: change(original, *args))
        patch.setattr(operators, "supports", lambda *_: False)

    return apply


def _without(noise, *sites):
    return {site: mask for site, mask in noise.items() if site not in sites}


def _h_of_the_zoned_c(step, into, states, w, noise):
    h, c = step(into, states, w, noise)
    if Site.CELL_UPDATE not in noise:
        return h, c
    o = (into + torch.nn.functional.linear(states[0], w.w_hh)).chunk(4, dim=-1)[3].sigmoid()
    return cells.apply_zoneout(noise, Site.HIDDEN_UPDATE, states[0], o * c.tanh()), c


def _candidate_mask_on_the_cell(step, into, states, w, noise):
    noise = dict(noise)
    if Site.CANDIDATE in noise:
        noise[Site.CELL] = noise.pop(Site.CANDIDATE)
    return step(into, states, w, noise)


def _cell_masked_after_h(step, into, states, w, noise):
    h, c = step(into, states, w, _without(noise, Site.CELL))
    return h, cells.apply_drop(noise, Site.CELL, c)


def _grus_own_h_masked(step, into, states, w, noise):
    """The mask of what goes into the gates falls on the h that is carried past them too."""
    if Site.HIDDEN in noise:
        states = (states[0] * noise[Site.HIDDEN],)
    return step(into, states, w, _without(noise, Site.HIDDEN))


def _state_masked_where_it_leaves_only(step, into, states, w, noise):
    return step(into, states, w, _without(noise, Site.STATE))


def _state_masked_after_zoneout(step, into, states, w, noise):
    h, *rest = step(into, states, w, _without(noise, Site.STATE))
    return cells.apply_drop(noise, Site.STATE, h), *rest


def _cell_masked_after_zoneout(step, into, states, w, noise):
    h, c = step(into, states, w, _without(noise, Site.CELL))
    return h, cells.apply_drop(noise, Site.CELL, c)


def _state_masked_after_zoneout_at_once(noise):
    if Site.STATE not in noise or Site.HIDDEN_UPDATE not in noise:
        return noise
    state, update = noise[Site.STATE], noise[Site.HIDDEN_UPDATE]
    kept = state * update  # m ⊙ (d ⊙ h + (1 − d) ⊙ h̃), in the operator's own form
    return noise | {Site.HIDDEN_UPDATE: kept, Site.STATE: state * (1.0 - update) / (1.0 - kept)}


def _means_of_the_first_call(patch: pytest.MonkeyPatch) -> None:
    original = masks.means
    patch.setattr(masks, "means", lambda wanted, _, *rest: original(wanted, 0, *rest))


def _rates_of_the_first_layer(patch: pytest.MonkeyPatch) -> None:
    original = recurrent_layer.plan_masks

    def plan(placement, geometry):
        policy = placement.policy
        first = {s.value: rule.of_layer(0) for s, rule in policy.items()}
        return original(replace(placement, policy=policy.with_rates(first)), geometry)

    patch.setattr(recurrent_layer, "plan_masks", plan)


def _padding_moves_the_states(patch: pytest.MonkeyPatch) -> None:
    original = recurrence.pad_packed

    def pad_packed(*given):
        x, _, found = original(*given)
        return x, None, found

    patch.setattr(recurrence, "pad_packed", pad_packed)


def _loop_masks_follow_the_sorted_batch(patch: pytest.MonkeyPatch) -> None:
    original = recurrence.pad_packed

    def pad_packed(x, packing, found):
        x, valid, _ = original(x, packing, found)
        return x, valid, found

    patch.setattr(recurrence, "pad_packed", pad_packed)


def _no_means(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masks, "means", lambda *_: {})


def _gates_share(patch: pytest.MonkeyPatch) -> None:
    original = masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        for slot, mask in drawn.items():
            if plan[slot].rule.gates == "untied":
                first = mask[..., : mask.shape[-1] // 4]
                drawn[slot] = torch.cat([first] * 4, dim=-1)
        return drawn

    patch.setattr(masks, "draw", draw)


def _masked_weights_with_bias(patch: pytest.MonkeyPatch) -> None:
    original = recurrence._apply_weight_masks

    def masked(weights, found):
        mask = found.get(Site.RECURRENT_WEIGHT)
        changed = original(weights, found)
        if mask is None or changed.b_hh is None:
            return changed
        return replace(changed, b_hh=apply_mask(mask[0, :, 0], changed.b_hh))

    patch.setattr(recurrence, "_apply_weight_masks", masked)


def _masked_weights_lose_their_gradient(patch: pytest.MonkeyPatch) -> None:
    original = recurrence._apply_weight_masks

    def masked(weights, found):
        hides = Site.RECURRENT_WEIGHT in found
        changed = original(weights, found)
        return replace(changed, w_hh=changed.w_hh.detach()) if hides else changed

    patch.setattr(recurrence, "_apply_weight_masks", masked)


def _initial_state_ignored(patch: pytest.MonkeyPatch) -> None:
    original = recurrent_layer.run_layers

    def run(layer, x, state, *rest):
        return original(layer, x, (0 * state[0], 0 * state[1]), *rest)

    patch.setattr(recurrent_layer, "run_layers", run)


LAYER_MUTANTS: dict[str, Mutant] = {
    "carried h_n masked": _after_run(_h_masked),
    "carried c_n masked": _after_run(_c_masked),
    "last output instead of the state carried": _after_run(
        lambda y, end, *_: (y, (end[0] * 0 + y.reshape(-1)[0], end[1]))
    ),
    "masks in evaluation": _masks_in_evaluation,
    "the same masks at every call": _same_masks_every_call,
    "masks follow the sorted batch": _masks_follow_the_sorted_batch,
    "both directions read one mask": _backward_reads_forward_masks,
    "batch-first input reshaped": _batch_first_reshaped,
    "the state of an unbatched call ignored": _unbatched_state_ignored,
    "masks per sequence left out": _sequence_masks_left_out,
    "row_offset ignored for packed input": _row_offset_ignored_where_packed,
    "the loop forgets bias_hh": _in_loop(_one_bias("_run_loop")),
    "the operators forget bias_hh": _one_bias("_run_operator"),
    "an operator masks the cell for the candidate": _moved(Site.CANDIDATE, Site.CELL),
    "an operator masks the candidate for the cell": _moved(Site.CELL, Site.CANDIDATE),
    "an operator masks the state instead of what the gates see": _moved(Site.HIDDEN, Site.STATE),
    "an operator zones the hidden state like the cell": _operator(
        lambda noise: noise | {s: noise[Site.CELL_UPDATE] for s in noise if "hidden_up" in s}
    ),
    "an operator's weight gradient takes each step's own state": _part(
        "previous_hidden", lambda _: lambda *given: given[1]
    ),
    "an operator's zoneout keeps the new for the old": _operator(
        lambda noise: noise | {s: 1.0 - noise[s] for s in noise if s is Site.HIDDEN_UPDATE}
    ),
    "an operator runs backward as forward": _part(
        "step_order", lambda order: lambda *given: order(given[0], False)
    ),
    "an operator gives every gate of the input the first one's mask": _masked_product(
        "input_gates",
        lambda original, x, w, bias, mask: original(
            x, w, bias, mask if mask is None else mask[..., : x.shape[-1]]
        ),
    ),
    "a weight's gradient takes the gates' masks in reverse": _masked_product(
        "grad_weight",
        lambda original, grads, values, found, width: original(grads, values, found[::-1], width),
    ),
    "an input's gradient takes the gates' masks in reverse": _masked_product(
        "grad_input", lambda original, grads, weight, found: original(grads, weight, found[::-1])
    ),
    "initial state ignored": _initial_state_ignored,
    "stock nn.LSTM dropout": _stock_dropout,
    "h of the zoned c": _step("LSTM", _h_of_the_zoned_c),
    "the candidate's mask on the cell": _step("LSTM", _candidate_mask_on_the_cell),
    "the cell masked after h": _step("LSTM", _cell_masked_after_h),
    "the carried h of a GRU masked": _step("GRU", _grus_own_h_masked),
    "the state not masked": _step("LSTM", _state_masked_where_it_leaves_only),
    "evaluation without the masks' means": _no_means,
    "row_offset moves the weights' masks": plan_changed(
        masks, lambda m: replace(m, by_sample=True)
    ),
    "a schedule stays at its first rate": plan_changed(
        masks, lambda m: replace(m, rate=rate_at(m.rate, 0))
    ),
    "untied gates share a mask": _gates_share,
    "the state masked after zoneout": _step("LSTM", _state_masked_after_zoneout),
    "a GRU's state masked after zoneout": _step("GRU", _state_masked_after_zoneout),
    "an RNN's state masked after zoneout": _step("RNN_TANH", _state_masked_after_zoneout),
    "an RNN's state not masked": _step("RNN_TANH", _state_masked_where_it_leaves_only),
    "an operator masks the state after zoneout": _operator(_state_masked_after_zoneout_at_once),
    "the cell masked after zoneout": _step("LSTM", _cell_masked_after_zoneout),
    "evaluation at the rates of the first call": _means_of_the_first_call,
    "every layer at the first one's rate": _rates_of_the_first_layer,
    "padded steps move the states": _padding_moves_the_states,
    "masks inside the loop follow the sorted batch": _loop_masks_follow_the_sorted_batch,
    "biases masked with the weights": _masked_weights_with_bias,
    "masked weights without a gradient": _masked_weights_lose_their_gradient,
}
