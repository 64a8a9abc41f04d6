"""The Keras adapter as a subject of the properties, on the backend of this process."""

from __future__ import annotations

import dropout_policies_keras as dpk
import keras
import numpy as np
from keras import ops

from .cases import Case, Numbers, Outcome, loss_weights, random_direction
from .cases import numbers as numbers_of
from .keras_gradients import measured

SEEDED = True
"""Whether the layers draw keyed masks; a test of the others sets it to False."""


class OwnLSTMCell(keras.layers.Layer):
    """An LSTM cell as a user may write it."""

    def __init__(self, units, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.use_bias = units, use_bias
        self.state_size, self.output_size = [units, units], units

    def build(self, shape):
        wide = 4 * self.units
        self.kernel = self.add_weight(shape=(shape[-1], wide), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, wide), name="recurrent_kernel")
        self.bias = self.add_weight(shape=(wide,), name="bias") if self.use_bias else None

    def call(self, inputs, states):
        h, c = states
        gates = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        gates = gates if self.bias is None else gates + self.bias
        i, f, g, o = ops.split(gates, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


LAYERS = {
    "lstm": (dpk.LSTM, keras.layers.LSTMCell, {"unit_forget_bias": False}),
    "gru": (dpk.GRU, keras.layers.GRUCell, {}),
    "gru_reset_before": (dpk.GRU, keras.layers.GRUCell, {"reset_after": False}),
    "rnn_tanh": (dpk.SimpleRNN, keras.layers.SimpleRNNCell, {}),
    "rnn_relu": (dpk.SimpleRNN, keras.layers.SimpleRNNCell, {"activation": "relu"}),
    "own_lstm": (None, OwnLSTMCell, {}),
}

STEP_CELLS = {
    keras.layers.LSTMCell: dpk.LSTMCell,
    keras.layers.GRUCell: dpk.GRUCell,
    keras.layers.SimpleRNNCell: dpk.SimpleRNNCell,
}


def build(case: Case, given: Numbers, form: str = "layers") -> list[keras.Layer]:
    """The layers of a case in float32, with its weights.

    Args:
        form: "layers": one LSTM, GRU, SimpleRNN (or a Bidirectional of it) or ConvLSTM for each;
            "cells": one `RNN(cell)` for each; "stacked": one `RNN(StackedRNNCells)` for all;
            "steps": one LSTMCell, GRUCell or SimpleRNNCell for each.
    """
    if form == "steps":
        made = _step_cells(case)
    elif case.convolution.sizes:
        made = _conv_layers(case)
    else:
        made = _layers(case, form)
    for index, layer in enumerate(made):
        layer.build(_input_shape(case, index, form))
        for half in directions_of(layer):
            half.row_offset = case.row_offset
            if half.placement is not None and half.keyed:
                half.calls = case.call
    rows = [w for row in given.weights for w in row]
    for cell, w in zip(cells_of(made), rows, strict=True):
        for variable, array in zip(variables(cell), arrays(w, case), strict=True):
            variable.assign(array)
    return made


def _layers(case: Case, form: str) -> list[keras.Layer]:
    kind, cell_kind, more = LAYERS[case.cell]
    arguments = {"return_sequences": True, "return_state": True}
    # Batch first is what every case is here; so that is where the loop is unrolled. Keras 3.15's
    # own unrolled loop fails on a padding mask that is read backwards (torch).
    unroll = case.form == "batch first" and case.lengths is None
    arguments |= {"unroll": unroll, "go_backwards": case.directions == (1,)}
    arguments |= {"policy": case.policy, "seed": case.seed if SEEDED else None}
    units = {"units": case.hidden_size, "use_bias": case.bias, **more}
    if form == "stacked" and case.layers == 1:
        form = "cells"  # Keras 3.15's own loop loses the states of a stack of one
    if form == "stacked":
        cells = [cell_kind(**units) for _ in range(case.layers)]
        made = [dpk.RNN(keras.layers.StackedRNNCells(cells), stack=(0, case.layers), **arguments)]
    else:
        made = []
        for index in range(case.layers):
            where = {"stack": (index, case.layers)}
            if form == "cells":
                layer = dpk.RNN(cell_kind(**units), **where, **arguments)
            else:
                layer = kind(**units, **where, **arguments)
            both = len(case.directions) == 2
            made.append(keras.layers.Bidirectional(layer) if both else layer)
    return made


def _step_cells(case: Case) -> list[keras.Layer]:
    _, stock, more = LAYERS[case.cell]
    more = {**more, "use_bias": case.bias, "policy": case.policy, "seed": case.seed}
    return [
        STEP_CELLS[stock](case.hidden_size, stack=(index, case.layers), **more)
        for index in range(case.layers)
    ]


def _conv_layers(case: Case) -> list[keras.Layer]:
    kind = getattr(dpk, f"ConvLSTM{len(case.convolution.sizes)}D")
    layers = []
    for index in range(case.layers):
        where = case.convolution if index == 0 else case.convolution.of_states
        layers.append(
            kind(
                case.hidden_size,
                where.kernel,
                strides=where.stride,
                dilation_rate=where.dilation,
                padding=where.padding,
                data_format="channels_last" if where.channels_last else "channels_first",
                use_bias=case.bias,
                go_backwards=case.directions == (1,),
                return_sequences=True,
                return_state=True,
                policy=case.policy,
                seed=case.seed,
                stack=(index, case.layers),
            )
        )
    return layers


def _input_shape(case: Case, index: int, form: str) -> tuple[int, ...]:
    """The shape of what comes into a layer of a case."""
    width = case.input_size if index == 0 else case.output_size * len(case.directions)
    if form == "steps":
        return case.batch, width
    where = case.convolution if index == 0 else case.convolution.of_states
    spatial = where.sizes
    return (
        case.batch,
        case.steps,
        *((*spatial, width) if where.channels_last else (width, *spatial)),
    )


def _with_spatial_axes(case: Case, values, channels: int, spatial: tuple[int, ...]):
    """Flat values `[..., C*S]` with the axes that the layers take."""
    if not spatial:
        return values
    values = ops.reshape(values, (*values.shape[:-1], channels, *spatial))
    return ops.moveaxis(values, -1 - len(spatial), -1) if case.convolution.channels_last else values


def _without_spatial_axes(case: Case, values):
    """The same the other way."""
    many = len(case.convolution.sizes)
    if not many:
        return values
    if case.convolution.channels_last:
        values = ops.moveaxis(values, -1, -1 - many)
    return ops.reshape(values, (*values.shape[: -1 - many], -1))


def directions_of(layer: keras.Layer) -> list[keras.Layer]:
    """The layer, or both directions of a Bidirectional."""
    both = hasattr(layer, "backward_layer")
    return [layer.forward_layer, layer.backward_layer] if both else [layer]


def cells_of(layers: list[keras.Layer]) -> list[keras.Layer]:
    """Every layer's and direction's cell, in order."""
    halves = [half for layer in layers for half in directions_of(layer)]
    cells = [getattr(half, "cell", half) for half in halves]
    return [inner for cell in cells for inner in getattr(cell, "cells", [cell])]


def variables(cell: keras.Layer) -> list[keras.Variable]:
    return [cell.kernel, cell.recurrent_kernel, *([] if cell.bias is None else [cell.bias])]


def arrays(w, case: Case) -> list[np.ndarray]:
    """A layer's weights as Keras keeps them: a GRU's gates in the order z, r, n, and the kernels of
    convolutions `[*K, C, 4*H]`."""
    found = [_as_kernel(w.w_ih, case), _as_kernel(w.w_hh, case)]
    if w.bias is not None:
        both = [w.bias] if w.recurrent_bias is None else [w.bias, w.recurrent_bias]
        found.append(np.stack(both) if case.cell == "gru" else w.bias)
    if not case.cell.startswith("gru"):
        return found
    split = [np.split(array, 3, axis=-1) for array in found]
    return [np.concatenate([z, r, n], axis=-1) for r, z, n in split]


def _as_kernel(weight: np.ndarray, case: Case) -> np.ndarray:
    by_tap = weight.reshape(len(weight), -1, *case.convolution.kernel)
    return np.moveaxis(by_tap, (0, 1), (-1, -2))


def padding(case: Case) -> np.ndarray | None:
    """Keras's mask `[B, T]`."""
    return None if case.lengths is None else case.valid.T


def call(case: Case, layers: list[keras.Layer], x, states: list) -> list:
    """y `[T, B, K*H]`, and each state `[L*K, B, H]`; where Keras repeats an output in padding, zero
    as elsewhere.

    Args:
        x: `[T, B, D]`.
        states: h, and c of an LSTM, each `[L*K, B, H]`; empty to start from zero.
    """
    K, ends = len(case.directions), []
    convolution = case.convolution
    x = _with_spatial_axes(case, ops.transpose(x, (1, 0, 2)), case.input_size, convolution.sizes)
    sizes = case.hidden_size, convolution.output_sizes
    arguments = {"training": case.training}
    if case.lengths is not None:
        arguments["mask"] = ops.convert_to_tensor(padding(case))
    for index, layer in enumerate(layers):
        cells = getattr(getattr(layer, "cell", None), "cells", None)
        rows = range(len(cells)) if cells else range(index * K, (index + 1) * K)
        if states:
            start = [[_with_spatial_axes(case, p[row], *sizes) for p in states] for row in rows]
            arguments["initial_state"] = start if cells else [s for row in start for s in row]
        x, *end = layer(x, **arguments)
        if case.directions == (1,):
            x = ops.flip(x, axis=1)  # from the order in which it was read
        ends += [_without_spatial_axes(case, part) for part in keras.tree.flatten(end)]
    y = ops.transpose(_without_spatial_axes(case, x), (1, 0, 2))
    y = ops.where(ops.convert_to_tensor(case.valid[:, :, None]), y, ops.zeros_like(y))
    many = len(ends) // (case.layers * K)
    return [y, *(ops.stack(ends[kind::many]) for kind in range(many))]


def call_steps(case: Case, cells: list[keras.Layer], x, states: list) -> list:
    """The same for cells, a call of each for each step."""
    states = [[part[index] for part in states] for index in range(case.layers)]
    if not states[0]:
        states = [keras.tree.flatten(cell.get_initial_state(case.batch)) for cell in cells]
    outputs = []
    for t in range(case.steps):
        y = x[t]
        for index, cell in enumerate(cells):
            y, states[index] = cell(y, states[index], training=case.training)
        outputs.append(y)
    return [ops.stack(outputs), *(ops.stack(parts) for parts in zip(*states, strict=True))]


def subject(form: str = "layers"):
    """The function that runs a case in one form; see `build`."""

    def run(case: Case, given: Numbers | None = None) -> Outcome:
        # Numbers that come from outside are no test of gradients.
        return outcome(case, given or numbers_of(case), form, slope=given is None)

    return run


run = subject()


def outcome(case: Case, given: Numbers, form: str, slope: bool) -> Outcome:
    layers, run = build(case, given, form), call_steps if form == "steps" else call
    if not slope:
        x, *states = (
            ops.convert_to_tensor(array.astype("float32"))
            for array in (given.x, *(given.state or ()))
        )
        y, *end = (ops.convert_to_numpy(part) for part in run(case, layers, x, states))
        return Outcome(y, tuple(end))

    def losing(inputs):
        parts = run(case, layers, inputs[0], inputs[1:])
        names = ("y", "h", "c")[: len(parts)]
        pulls = [loss_weights(case, n, tuple(p.shape)) for n, p in zip(names, parts, strict=True)]
        pairs = zip(parts, pulls, strict=True)
        return sum(ops.sum(p * ops.convert_to_tensor(q, "float32")) for p, q in pairs), parts

    ahead = random_direction(case)
    weights = [variable for cell in cells_of(layers) for variable in variables(cell)]
    along = [array for row in ahead.weights for w in row for array in arrays(w, case)]
    states = () if given.state is None else given.state
    # Steps that are calls of their own count them.
    changed = [cell.generator.state for cell in layers] if form == "steps" else []
    (y, *end), found = measured(losing, [given.x, *states], weights, changed)
    ways = [ahead.x, *(ahead.state or ()), *along]
    rise = sum(float((g * w).sum()) for g, w in zip(found, ways, strict=True) if g is not None)
    return Outcome(y, tuple(end), rise)
