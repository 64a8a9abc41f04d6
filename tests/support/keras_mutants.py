"""Wrong placements that only a change to the Keras layer can make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import pytest
from dropout_policies_keras import (
    cells,
    conv_cells,
    layers,
    masks,
    recurrence,
    recurrent_layer,
    torch_operators,
)
from keras import ops

from dropout_policies.placement.plans import Slot
from dropout_policies.policies import cell_types as kinds
from dropout_policies.policies.rates import rate_at
from dropout_policies.policies.sites import Site

from .mutants import plan_changed

Mutant = Callable[[pytest.MonkeyPatch], None]


def _after_run(change: Callable) -> Mutant:
    """A change to what the recurrence of an LSTM gives back, seeing its masks."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = recurrent_layer.run_cells

        def changed(layer, parts, x, start, padding, masks, *rest, **more):
            looped = original(layer, parts, x, start, padding, masks, *rest, **more)
            slot = Slot(Site.OUTPUT, parts[-1].placement.layer, int(layer.go_backwards))
            if slot not in masks or parts[-1].type is not kinds.LSTM:
                return looped
            return change(*looped, masks[slot])

        patch.setattr(recurrent_layer, "run_cells", changed)

    return apply


def _initial_state_ignored(patch: pytest.MonkeyPatch) -> None:
    original = recurrent_layer.run_cells

    def run(layer, parts, x, start, *rest, **more):
        return original(layer, parts, x, [0 * state for state in start], *rest, **more)

    patch.setattr(recurrent_layer, "run_cells", run)


def _padding_moves_the_states(patch: pytest.MonkeyPatch) -> None:
    original = recurrent_layer.run_cells

    def run(layer, parts, x, start, _padding, *rest, **more):
        return original(layer, parts, x, start, None, *rest, **more)

    patch.setattr(recurrent_layer, "run_cells", run)


def _masks_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    original = recurrent_layer.Recurrent.inner_loop
    patch.setattr(
        recurrent_layer.Recurrent,
        "inner_loop",
        lambda self, *args, **kwargs: original(self, *args, **kwargs | {"training": True}),
    )


def _no_means(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masks, "means", lambda *_: {})


def _same_masks_every_call(patch: pytest.MonkeyPatch) -> None:
    original = masks.mask_key
    patch.setattr(
        masks,
        "mask_key",
        lambda state, slot: original(ops.stack([state[0], 0 * state[1]]), slot),
    )


def _masks_in_reading_order(patch: pytest.MonkeyPatch) -> None:
    """A backward layer's masks are not turned round with the text."""
    patch.setattr(recurrence, "_reverse_steps", lambda mask: mask)


def _both_directions_share(patch: pytest.MonkeyPatch) -> None:
    original = masks.mask_key
    patch.setattr(
        masks, "mask_key", lambda state, slot: original(state, slot._replace(direction=0))
    )


def _native_dropout(patch: pytest.MonkeyPatch) -> None:
    """`keras.layers.LSTM(dropout=...)`: the input only, one mask per sequence."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if training:
            batch, _, width = sequences.shape
            sequences = keras.random.dropout(
                sequences, 0.5, (batch, 1, width), seed=self.cell.seed_generator
            )
        return keras.layers.LSTM.inner_loop(self, sequences, initial_state, mask, training=training)

    patch.setattr(layers.LSTM, "inner_loop", inner_loop)


def _step(kind: str, change: Callable) -> Mutant:
    """Another step of a kind of cell: change(step, cell, weights, into, states, noise)."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        # An operator does not run steps. PyTorch's mutants change those.
        patch.setattr(torch_operators, "run_sequence", lambda *_: None)
        original = getattr(cells, kind)

        def made(cell, w, *rest):
            step = original(cell, w, *rest)
            return lambda into, states, noise: change(step, cell, w, into, states, noise)

        patch.setattr(cells, kind, made)

    return apply


_lstm_step = partial(_step, "_make_lstm_step")
_gru_step = partial(_step, "_make_gru_step")


def _without(noise, *sites):
    return {site: mask for site, mask in noise.items() if site not in sites}


def _h_of_the_zoned_c(step, cell, w, into, states, noise):
    h, c = step(into, states, noise)
    if Site.CELL_UPDATE not in noise:
        return [h, c]
    gates = into + ops.matmul(states[0], w.recurrent_kernel)
    o = cell.recurrent_activation(ops.split(gates, 4, axis=-1)[3])
    return [cells.apply_zoneout(noise, Site.HIDDEN_UPDATE, states[0], o * ops.tanh(c)), c]


def _candidate_mask_on_the_output_gate(step, _cell, _w, into, states, noise):
    noise = dict(noise)
    if Site.CANDIDATE in noise:
        noise[Site.STATE] = noise.pop(Site.CANDIDATE)
    return step(into, states, noise)


def _cell_masked_after_h(step, _cell, _w, into, states, noise):
    h, c = step(into, states, _without(noise, Site.CELL))
    return [h, cells.apply_drop(noise, Site.CELL, c)]


def _grus_own_h_masked(step, _cell, _w, into, states, noise):
    """The mask of what goes into the gates falls on the h that is carried past them too."""
    if Site.HIDDEN in noise:
        states = [states[0] * noise[Site.HIDDEN]]
    return step(into, states, _without(noise, Site.HIDDEN))


def _state_whole(step, _cell, _w, into, states, noise):
    return step(into, states, _without(noise, Site.STATE))


def _gates_share(patch: pytest.MonkeyPatch) -> None:
    original = masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        for slot, mask in drawn.items():
            if plan[slot].rule.gates == "untied":
                drawn[slot] = ops.concatenate([mask[..., : mask.shape[-1] // 4]] * 4, axis=-1)
        return drawn

    patch.setattr(masks, "draw", draw)


def _grus_gates_in_kerass_order(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(cells.GATE_ORDER, kinds.GRU, (0, 1, 2))


def _masked_weights_lose_their_gradient(patch: pytest.MonkeyPatch) -> None:
    original = cells.Weights.of

    def of(cell, kind, dtype, found):
        hides = Site.RECURRENT_WEIGHT in found
        made = original(cell, kind, dtype, found)
        if not hides:
            return made
        return replace(made, recurrent_kernel=ops.stop_gradient(made.recurrent_kernel))

    patch.setattr(cells.Weights, "of", staticmethod(of))


LAYER_MUTANTS: dict[str, Mutant] = {
    "carried h_n masked": _after_run(
        lambda last, outputs, states, mask: (last, outputs, [states[0] * mask[-1], states[1]])
    ),
    "carried c_n masked": _after_run(
        lambda last, outputs, states, mask: (last, outputs, [states[0], states[1] * mask[-1]])
    ),
    "the masked output carried as h_n": _after_run(
        lambda last, outputs, states, _mask: (last, outputs, [last, states[1]])
    ),
    "initial state ignored": _initial_state_ignored,
    "padded steps move the states": _padding_moves_the_states,
    "masks in evaluation": _masks_in_evaluation,
    "evaluation without the masks' means": _no_means,
    "the same masks at every call": _same_masks_every_call,
    "masks of a backward layer not turned with the text": _masks_in_reading_order,
    "both directions share a mask": _both_directions_share,
    "stock keras LSTM dropout": _native_dropout,
    "h of the zoned c": _lstm_step(_h_of_the_zoned_c),
    "the candidate's mask on the output gate": _step(
        "_make_lstm_step", _candidate_mask_on_the_output_gate
    ),
    "the cell masked after h": _lstm_step(_cell_masked_after_h),
    "the carried h of a GRU masked": _gru_step(_grus_own_h_masked),
    "the state not masked": _lstm_step(_state_whole),
    "row_offset moves the weights' masks": plan_changed(
        masks, lambda m: replace(m, by_sample=True)
    ),
    "a schedule stays at its first rate": plan_changed(
        masks, lambda m: replace(m, rate=rate_at(m.rate, 0))
    ),
    "untied gates share a mask": _gates_share,
    "a GRU's masks of weights in Keras's order of gates": _grus_gates_in_kerass_order,
    "masked weights without a gradient": _masked_weights_lose_their_gradient,
}


def _convolution(attribute: str, change: Callable) -> Mutant:
    """Another function of the convolutional cells: change(original, *its arguments)."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(conv_cells, attribute, partial(change, getattr(conv_cells, attribute)))

    return apply


def _of_values(change: Callable) -> Mutant:
    """Other masks of what has spatial axes: change(masks by site, policy)."""
    return _convolution(
        "masks_of_values",
        lambda original, cell, policy, found: change(original(cell, policy, found), policy),
    )


def _each_mask(change: Callable, shape: str) -> Mutant:
    """A change to each mask `[T, B, S, S, C]` of one shape."""

    def changed(found, policy):
        return {
            site: change(mask) if len(mask.shape) == 5 and policy[site].shape == shape else mask
            for site, mask in found.items()
        }

    return _of_values(changed)


def _held_masks_anew_in_each_step(patch: pytest.MonkeyPatch) -> None:
    original = recurrence._run_conv_cell

    def run(layer, cell, x, input_mask, states, padding, found, *rest):
        moved = {
            site: ops.concatenate([ops.roll(mask, t, axis=-1) for t in range(x.shape[1])])
            if len(mask) == 1
            else mask
            for site, mask in found.items()
        }
        return original(layer, cell, x, input_mask, states, padding, moved, *rest)

    patch.setattr(recurrence, "_run_conv_cell", run)


def _state_masked_and_not_the_input(found, _policy):
    return {Site.HIDDEN if site is Site.INPUT else site: mask for site, mask in found.items()}


def _gates_of_a_convolution_share(original, convolve, value, mask, kernel, axis):
    if mask is not None and mask.shape[axis] > value.shape[axis]:
        mask = ops.split(mask, 4, axis)[0]
    return original(convolve, value, mask, kernel, axis)


CONV_MUTANTS: dict[str, Mutant] = {
    "held masks drawn anew for each step": _held_masks_anew_in_each_step,
    "a whole channel's mask drawn for each element": _each_mask(
        lambda mask: ops.concatenate([mask, ops.roll(mask, 1, axis=-1), mask], axis=2), "channel"
    ),
    "whole channels where elements are meant": _each_mask(
        lambda mask: mask[:, :, :1, :1] * ops.ones_like(mask), "element"
    ),
    "the state masked and not the input": _of_values(_state_masked_and_not_the_input),
    "positions in another order": _each_mask(lambda mask: ops.flip(mask, axis=2), "element"),
    "no mask on the kernels": _convolution(
        "_masked_kernel", lambda original, kernel, _, dtype: original(kernel, None, dtype)
    ),
    "a kernel's mask in another order of taps": _convolution(
        "_masked_kernel",
        lambda original, kernel, mask, dtype: original(
            kernel, None if mask is None else ops.flip(mask, axis=2), dtype
        ),
    ),
    "gates of a convolution share a mask": _convolution("_gates", _gates_of_a_convolution_share),
}
"""Wrong placements in the convolutional cells, on images of 3 × 3 with the channels last."""
