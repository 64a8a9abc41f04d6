"""Wrong placements that only a change to the PyTorch layer can make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import dropout_policies_torch.layers as layers
import pytest
import torch
from dropout_policies_torch import recurrence

from dropout_policies.plan import Slot
from dropout_policies.sites import Site

Mutant = Callable[[pytest.MonkeyPatch], None]


def _after_run(change: Callable) -> Mutant:
    """A change to what the recurrence gives back, seeing its masks."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = layers.run

        def changed(layer, x, state, packing, placement, masks):
            y, end = original(layer, x, state, packing, placement, masks)
            return change(y, end, placement, masks, layer)

        patch.setattr(layers, "run", changed)

    return apply


def _output_mask(masks, placement, layer):
    slot = Slot(Site.OUTPUT, placement.layer + layer.num_layers - 1, 0)
    return masks[slot][-1]


def _h_masked(y, end, placement, masks, layer):
    return y, (end[0] * _output_mask(masks, placement, layer), end[1])


def _c_masked(y, end, placement, masks, layer):
    return y, (end[0], end[1] * _output_mask(masks, placement, layer))


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
    original = layers.masks.draw
    patch.setattr(layers.masks, "draw", lambda plan, seed, _, *rest: original(plan, seed, 0, *rest))


def _masks_follow_the_sorted_batch(patch: pytest.MonkeyPatch) -> None:
    original = recurrence.Packing.of
    patch.setattr(
        recurrence.Packing,
        "of",
        lambda packed: (found := original(packed)) and replace(found, sample=found.place),
    )


def _backward_reads_forward_masks(patch: pytest.MonkeyPatch) -> None:
    original = layers.masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        return {slot: drawn[slot._replace(direction=0)] for slot in drawn}

    patch.setattr(layers.masks, "draw", draw)


def _stock_dropout(patch: pytest.MonkeyPatch) -> None:
    """`torch.nn.LSTM(dropout=...)`: L−1 of the L+1 connections."""

    def forward(self, x, hx=None):
        rule = max(self.placement.policy.values(), key=lambda rule: rule.rate)
        self.dropout = rule.rate
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
    original = layers.masks.draw

    def draw(plan, *rest):
        drawn = original(plan, *rest)
        return {slot: mask for slot, mask in drawn.items() if plan[slot].rule.per == "step"}

    patch.setattr(layers.masks, "draw", draw)


def _row_offset_ignored_where_packed(patch: pytest.MonkeyPatch) -> None:
    original = layers.LSTM._train

    def train(self, x, hx, packing, packed):
        if packed is not None:
            self.row_offset = 0
        return original(self, x, hx, packing, packed)

    patch.setattr(layers.LSTM, "_train", train)


def _one_bias_in_the_loop(patch: pytest.MonkeyPatch) -> None:
    original = recurrence._loop

    def loop(weights, *rest):
        if len(weights) >= 4:
            weights = [*weights[:3], 0 * weights[3], *weights[4:]]
        return original(weights, *rest)

    patch.setattr(recurrence, "_loop", loop)


def _initial_state_ignored(patch: pytest.MonkeyPatch) -> None:
    original = layers.run

    def run(layer, x, state, *rest):
        return original(layer, x, (0 * state[0], 0 * state[1]), *rest)

    patch.setattr(layers, "run", run)


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
    "the loop forgets bias_hh": _one_bias_in_the_loop,
    "initial state ignored": _initial_state_ignored,
    "stock nn.LSTM dropout": _stock_dropout,
}
