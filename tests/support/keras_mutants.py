"""Wrong placements that only a change to the Keras layer can make."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from dropout_policies_keras import layers
from keras import ops

from dropout_policies.plan import Slot
from dropout_policies.sites import Site

Mutant = Callable[[pytest.MonkeyPatch], None]


def _after_run(change: Callable) -> Mutant:
    """A change to what the recurrence gives back, seeing its masks."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = layers.run

        def changed(layer, sequences, initial_state, padding, placement, masks):
            looped = original(layer, sequences, initial_state, padding, placement, masks)
            output = masks.get(Slot(Site.OUTPUT, placement.layer, int(layer.go_backwards)))
            return looped if output is None else change(*looped, output)

        patch.setattr(layers, "run", changed)

    return apply


def _masks_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    original = layers.LSTM.inner_loop
    patch.setattr(
        layers.LSTM,
        "inner_loop",
        lambda self, *args, **kwargs: original(self, *args, **kwargs | {"training": True}),
    )


def _same_masks_every_call(patch: pytest.MonkeyPatch) -> None:
    original = layers.masks.mask_key
    patch.setattr(
        layers.masks,
        "mask_key",
        lambda state, slot: original(ops.stack([state[0], 0 * state[1]]), slot),
    )


def _output_mask_in_reading_order(patch: pytest.MonkeyPatch) -> None:
    """A backward layer's output mask is not turned round with its outputs."""
    from dropout_policies_keras import recurrence

    class Ops:
        flip = staticmethod(lambda mask, **_: mask)

        def __getattr__(self, name):
            return getattr(ops, name)

    patch.setattr(recurrence, "ops", Ops())


def _both_directions_share(patch: pytest.MonkeyPatch) -> None:
    original = layers.masks.mask_key
    patch.setattr(
        layers.masks, "mask_key", lambda state, slot: original(state, slot._replace(direction=0))
    )


def _native_dropout(patch: pytest.MonkeyPatch) -> None:
    """`keras.layers.LSTM(dropout=...)`: the input only, one mask per sequence."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if training:
            batch, _, width = sequences.shape
            sequences = keras.random.dropout(sequences, 0.5, (batch, 1, width))
        return keras.layers.LSTM.inner_loop(self, sequences, initial_state, mask, training=training)

    patch.setattr(layers.LSTM, "inner_loop", inner_loop)


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
    "masks in evaluation": _masks_in_evaluation,
    "the same masks at every call": _same_masks_every_call,
    "output mask not turned with a backward output": _output_mask_in_reading_order,
    "both directions share a mask": _both_directions_share,
    "stock keras LSTM dropout": _native_dropout,
}
