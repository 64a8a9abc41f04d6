"""Measures, in one draw of noise, what each gate sees, and what happens after the last cell.

To observe a gate other than the candidate, its weights are made so large that the gate moves
whenever its feature is there. Then the output moves too.
"""

from __future__ import annotations

import numpy as np

from ...policies.sites import Site
from .arrays import zero_rounding_errors
from .network import Cell, Place
from .probe import Array
from .replayed_draw import ReplayedDraw
from .signal_weights import SignalWeights
from .signals import AMPLITUDE, BATCH, STEPS, gain, make_routes, route_matrix

MOVING_INPUT = 2.0
"""The input of a gate that is meant to move."""


def observe_gates(draw: ReplayedDraw) -> dict[Place, dict[Site, Array]]:
    """Observe what each gate sees of a cell's input at its first step and of h at its second step.

    Returns:
        The bits by cell and site, `[gates, B, R*n]`, with the candidate first: 1 dropped, 0 not,
        NaN not seen. They are empty if cells do not forget.
    """
    if not draw.forgets:
        return {place: {} for place in draw.network.cells}
    return {
        cell.place: {
            Site.INPUT if cell.layer == 0 else Site.BETWEEN: _observe_gates(draw, cell, False),
            Site.HIDDEN: _observe_gates(draw, cell, True),
        }
        for cell in draw.network.cells.values()
        if cell.kind.gates > 1
    }


def _observe_gates(draw: ReplayedDraw, cell: Cell, hidden: bool) -> Array:
    """Observe the bits of each gate: of its hidden state if `hidden`, otherwise of its input."""
    steps = (STEPS - 1, STEPS - 2) if cell.is_backward else (0, 1)
    x = draw.signal_at(*steps)
    block = cell.recurrent_weights if hidden else cell.input_weights
    sources = cell.width if hidden else block.columns
    columns = make_routes(draw.network.visible_features(cell), sources, int(hidden))
    moving_weight = MOVING_INPUT / (AMPLITUDE * draw.gain_below(cell))
    step = steps[int(hidden)]
    weights = SignalWeights(draw.network, remembering=[cell])
    weights.feed_mean(cell).route_to_output(cell)
    unmoved = draw.run_cell(cell, weights, x)[step]
    candidate = draw.network.gate_roles(cell).candidate
    rows = []
    for gate in (candidate, *(g for g in range(cell.kind.gates) if g != candidate)):
        bits = []
        for route in columns:
            weights = SignalWeights(draw.network, remembering=[cell])
            weights.feed_mean(cell).route_to_output(cell)
            matrix = route_matrix(route, cell.units, block.columns)
            if hidden:
                size = 1.0 if gate == candidate else moving_weight / gain(cell, True)
                weights.set_recurrent(cell, size * matrix, gate)
            else:
                # The candidate sees the mean of x, so that a gate has a signal to pass.
                mean = 1.0 / block.columns if gate == candidate else 0.0
                size = 1.0 if gate == candidate else moving_weight
                weights.set_input(cell, mean + size * matrix, gate)
            y = draw.run_cell(cell, weights, x)[step]
            moved = np.abs(y - unmoved) > 1e-4 * np.abs(unmoved)
            bits.append(np.where(unmoved == 0.0, np.nan, np.where(moved, 0.0, 1.0)))
        of_gate = np.stack(bits)  # [R, B, n]
        # If nothing ever moves a unit, its gate is not seen at all.
        of_gate[:, ~(of_gate == 0.0).any(axis=0)] = np.nan
        rows.append(np.concatenate(list(of_gate), axis=-1))
    return np.stack(rows)


def observe_projection(draw: ReplayedDraw, cell: Cell) -> Array:
    """Observe a projection that makes each of its features the mean of h, `[T, B, n]`.

    A mask after the projection keeps all of a feature or nothing. The result is empty for a cell
    without a projection.
    """
    if cell.projection is None:
        return np.zeros((STEPS, BATCH, 0))
    weights = SignalWeights(draw.network).feed_mean(cell).route_to_output(cell)
    weights.set_projection(cell, np.full((cell.width, cell.units), 1.0 / cell.units))
    current, _ = draw.current_and_next(weights, cell)
    return zero_rounding_errors(current / draw.gain_to_output(cell))


def decoder_rows_agree(draw: ReplayedDraw) -> bool:
    """Whether a missing feature of the last layer is missing at every row that the decoder maps it
    to.

    If not, an entry of the decoder's matrix may be missing, or something after it. With only one
    row, this cannot be told.
    """
    network, decoder = draw.network, draw.network.decoder
    if decoder is None:
        return True
    first = network.first_free_row
    rows = decoder.rows - first
    x = draw.constant_signal()
    for cell in network.last_layer:
        units = np.arange(network.visible_features(cell))
        outputs = []
        for shift in (0, 1):
            weights = SignalWeights(network).feed_mean(cell).route_to_output(cell, shift)
            y = draw.run(weights.arrays, x)
            outputs.append(y[..., first + (units + shift) % rows])
        tolerance = 1e-4 * float(np.abs(outputs[0]).max())
        if not np.allclose(outputs[0], outputs[1], rtol=1e-3, atol=tolerance):
            return False
        if rows == 1 and (np.abs(outputs[0]) <= tolerance).any():
            return False
    return True
