"""Running a Keras LSTM layer under given masks, on the fastest path that is right.

Where no mask falls inside the recurrence, the layer's own loop runs (cuDNN where Keras uses it);
where the hidden state is masked on its way into the gates, Keras's generic loop runs, and the
mask travels with the input of each step.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dropout_policies.plan import Placement, Slot
from dropout_policies.sites import Site

from .masks import Masks, Tensor

Looped = tuple[Tensor, Tensor, list[Tensor]]
"""What a loop gives: last output `[B, H]`, outputs `[B, T, H]`, and the last states."""


class StepMaskedLSTMCell(keras.layers.LSTMCell):  # type: ignore[misc]
    """An LSTM cell that takes the mask of h beside its input: `[B, D]` or `[B, D + H]`."""

    def call(self, inputs: Tensor, states: list[Tensor], training: bool = False) -> Any:
        width = self.kernel.shape[0]
        if inputs.shape[-1] > width:
            # Only the gates see the masked h; the new state depends on h through them alone.
            inputs, mask = inputs[:, :width], inputs[:, width:]
            states = [states[0] * mask, states[1]]
        return super().call(inputs, states, training=training)


def run(
    layer: keras.layers.LSTM,
    sequences: Tensor,
    initial_state: list[Tensor],
    padding: Tensor | None,
    placement: Placement,
    masks: Masks,
) -> Looped:
    """Run one LSTM layer in training, under its masks.

    Args:
        layer: whose weights and loop run; its direction is backward if `go_backwards`.
        sequences: the input `[B, T, D]`.
        initial_state: h and c, each `[B, H]`.
        padding: Keras's mask `[B, T]`, False where a step is padding, or None.
        placement: which slots belong to this object.
        masks: multipliers by slot, `[T or 1, B, F]`, in the order of the text.
    """
    direction = int(layer.go_backwards)
    for site, inner in placement.vertical(1):
        mask = masks.get(Slot(site, placement.layer + inner, direction))
        if mask is not None and site is not Site.OUTPUT:
            sequences = sequences * _batch_first(mask)
    hidden = masks.get(Slot(Site.HIDDEN, placement.layer, direction))
    if hidden is None:
        looped = keras.layers.LSTM.inner_loop(
            layer, sequences, initial_state, padding, training=True
        )
    else:
        shape = (*ops.shape(sequences)[:2], hidden.shape[-1])
        beside = ops.broadcast_to(_batch_first(hidden), shape)
        joined = ops.concatenate([sequences, beside], axis=-1)
        looped = keras.layers.RNN.inner_loop(layer, joined, initial_state, padding, training=True)
    output = masks.get(Slot(Site.OUTPUT, placement.layer, direction))
    if output is None:
        return looped  # type: ignore[no-any-return]
    # A backward layer's outputs come in the order in which it read the text.
    output = _batch_first(ops.flip(output, axis=0) if direction else output)
    last, outputs, states = looped
    if layer.return_sequences:
        outputs = outputs * output
    return last * output[:, -1], outputs, states


def _batch_first(mask: Tensor) -> Tensor:
    return ops.transpose(mask, (1, 0, 2))
