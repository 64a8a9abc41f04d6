"""The Keras adapter as a subject of the properties, on the backend of this process."""

from __future__ import annotations

import keras
import numpy as np
from dropout_policies_keras import LSTM
from keras import ops

from .cases import Case, Numbers, Outcome
from .cases import numbers as numbers_of

SEEDED = True
"""Whether the layers draw keyed masks; a test of the others sets it to False."""


def build(case: Case, given: Numbers) -> list[keras.Layer]:
    """The layers of a case, one LSTM (or Bidirectional) for each, in float32."""
    built = []
    for index in range(case.layers):
        width = case.input_size if index == 0 else case.output_size * len(case.directions)
        layer = LSTM(
            case.hidden_size,
            return_sequences=True,
            return_state=True,
            use_bias=case.bias,
            # Batch first is what every case is here. Keras 3.15's own unrolled loop fails on a
            # mask that is read backwards (torch).
            unroll=case.form == "batch first" and case.lengths is None,
            unit_forget_bias=False,
            policy=case.policy,
            seed=case.seed if SEEDED else None,
            stack=(index, case.layers),
        )
        if len(case.directions) == 2:
            layer = keras.layers.Bidirectional(layer)
        layer.build((case.batch, case.steps, width))
        layer.set_weights([array for w in given.weights[index] for array in arrays(w)])
        for half in halves(layer):
            half.row_offset = case.row_offset
            if SEEDED:
                half.calls = case.call
        built.append(layer)
    return built


def halves(layer: keras.Layer) -> list[LSTM]:
    """The LSTM, or both halves of a Bidirectional."""
    both = hasattr(layer, "backward_layer")
    return [layer.forward_layer, layer.backward_layer] if both else [layer]


def arrays(w) -> list[np.ndarray]:
    """An LSTM's weights as Keras keeps them."""
    return [w.w_ih.T, w.w_hh.T, *([] if w.bias is None else [w.bias])]


def padding(case: Case) -> np.ndarray | None:
    """Keras's mask `[B, T]`."""
    if case.lengths is None:
        return None
    return np.arange(case.steps)[None, :] < np.array(case.lengths)[:, None]


def run(case: Case, given: Numbers | None = None) -> Outcome:
    """A case on the Keras adapter; where Keras repeats an output in padding, zero as elsewhere."""
    given = given or numbers_of(case)
    layers = build(case, given)
    x = ops.convert_to_tensor(given.x.swapaxes(0, 1).astype("float32"))
    mask, h, c, K = padding(case), [], [], len(case.directions)
    for index, layer in enumerate(layers):
        arguments = {}
        if given.state is not None:
            rows = range(index * K, (index + 1) * K)
            arguments["initial_state"] = [
                ops.convert_to_tensor(part[row].astype("float32"))
                for row in rows
                for part in given.state
            ]
        if mask is not None:
            arguments["mask"] = ops.convert_to_tensor(mask)
        x, *states = layer(x, training=case.training, **arguments)
        h += states[0::2]
        c += states[1::2]
    y = ops.convert_to_numpy(x)
    if mask is not None:
        y = y * mask[:, :, None]
    return Outcome(
        y.swapaxes(0, 1),
        np.stack([ops.convert_to_numpy(part) for part in h]),
        np.stack([ops.convert_to_numpy(part) for part in c]),
    )
