"""Measures the effect of one draw of noise on the signals of each cell.

For every cell, it measures what the gates see of the input and of the hidden state, how much of h
arrives above, and how the cell responds to signals from earlier steps. Each measurement is divided
by its value without noise. So 1 means kept, and 0 means dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .arrays import (
    extend_to_width,
    majority_value,
    median_nonzero,
    safe_divide,
    zero_rounding_errors,
)
from .network import Cell, Place
from .probe import Array
from .replayed_draw import FAINT_WEIGHT, ReplayedDraw
from .signal_weights import SignalWeights
from .signals import (
    AMPLITUDE,
    BATCH,
    STEPS,
    Routes,
    gain,
    make_routes,
    recurrent_gain,
    route_matrix,
)


@dataclass
class CellObservation:
    """The effect of one draw of noise at one cell. NaN stands for what cannot be observed.

    Args:
        input_ratio: what the input weights see, relative to the same without noise,
            `[T, B, R, n]`. On route r, unit k sees feature `input_columns[r, k]`.
        hidden_ratio: what the recurrent weights see of h, in the same form. NaN at the last step.
        output_ratio: the h that arrives above, relative to h without noise, `[T, B, n]`.
        input_arrives: whether any of the network's input arrives at the cell, `[T, B]`.
        response: the response at step t to a signal at step s alone and, as the last entry, to an
            initial state, `[T, B, n, T+1]`.
        large_signal_ratio: like `output_ratio`, for a c so large that tanh squashes it.
        input_columns, hidden_columns: the features that units see, `[R, n]`.
    """

    input_ratio: Array
    hidden_ratio: Array
    output_ratio: Array
    input_arrives: Array
    response: Array
    large_signal_ratio: Array
    input_columns: Routes
    hidden_columns: Routes


class Transmission(NamedTuple):
    """How a cell transmits the mean of x.

    Args:
        of_input: how much of what a unit's candidate sees arrives at the output, `[T, B, n]`. Also
            0 where the candidate sees nothing.
        input_size: how much of the mean of x the candidate sees, `[T, B, n]`. NaN for a unit that
            at some step sees none of it, although the unit passes on a signal from its candidate.
        input_arrives: whether any of it arrives, `[T, B]`. NaN where no unit could show it.
        of_candidate: like `of_input`, but also where no input arrives.
        following: what is left of the mean of x at the cell's next step, `[T, B, n]`.
    """

    of_input: Array
    input_size: Array
    input_arrives: Array
    of_candidate: Array
    following: Array


def observe_cells(draw: ReplayedDraw) -> dict[Place, CellObservation]:
    """Observe every cell under a draw of noise."""
    cells = _cells_from_below(draw)
    transmissions = {cell.place: _observe_transmission(draw, cell) for cell in cells}
    return {cell.place: _observe_cell(draw, cell, transmissions) for cell in cells}


def observe_hidden_ratios(draw: ReplayedDraw) -> list[Array]:
    """Observe only `CellObservation.hidden_ratio`, for every cell."""
    return [
        _observe_hidden(draw, cell, _observe_transmission(draw, cell))[0]
        for cell in _cells_from_below(draw)
    ]


def _cells_from_below(draw: ReplayedDraw) -> list[Cell]:
    network = draw.network
    return [cell for layer in range(network.layers) for cell in network.layer_cells(layer)]


def observe_input_arrival(draw: ReplayedDraw) -> Array:
    """Observe whether any of the network's input arrives: `CellObservation.input_arrives`."""
    return _observe_transmission(draw, draw.network.layer_cells(0)[0]).input_arrives


def _observe_cell(
    draw: ReplayedDraw, cell: Cell, transmissions: Mapping[Place, Transmission]
) -> CellObservation:
    own = transmissions[cell.place]
    of_input, input_size, input_arrives, of_candidate, _ = own
    above = draw.network.cells_above(cell)
    upper = transmissions[above[0].place].of_candidate if above else np.ones_like(of_input)
    n = min(of_input.shape[-1], upper.shape[-1])
    upper = upper[..., :n]
    input_ratio, input_columns = _observe_input(draw, cell, of_candidate, transmissions)
    hidden_ratio, hidden_columns = _observe_hidden(draw, cell, own)
    response = _observe_response(draw, cell, upper, input_size, np.isfinite(input_arrives))
    return CellObservation(
        input_ratio,
        hidden_ratio,
        safe_divide(of_input[..., :n], upper),
        input_arrives,
        response,
        safe_divide(draw.large_candidate_response(cell)[..., :n], upper),
        input_columns,
        hidden_columns,
    )


def _observe_transmission(draw: ReplayedDraw, cell: Cell) -> Transmission:
    """Observe how a cell transmits the mean of x.

    Without biases that drive the candidate directly, the result is relative to its median.
    """
    weights = SignalWeights(draw.network).feed_mean(cell).route_to_output(cell)
    y, following = draw.current_and_next(weights, cell)
    y /= draw.gain_to_output(cell)
    of_candidate = np.where(np.abs(y) > 1e-6, 1.0, 0.0)
    if draw.forgets:
        of_candidate = _drive_candidate(draw, cell) / (AMPLITUDE * draw.gain_to_output(cell))
    of_input = np.where(np.abs(y) > 1e-6, of_candidate, 0.0)
    size = safe_divide(y, of_input)
    typical = np.repeat(median_nonzero(size)[..., None], size.shape[-1], axis=-1)
    size = np.where(np.isfinite(size) & (size != 0.0), size, typical)
    passes = np.abs(of_candidate).max(axis=-1) > 1e-6
    # Where no unit passes anything on, the size of the input does not matter.
    size = np.where(passes[..., None], size, 1.0)
    if ((np.abs(y) <= 1e-6) & (np.abs(of_candidate) > 1e-6)).any():
        size[..., _units_without_input(draw, cell, of_candidate)] = np.nan
    arrives = np.where(passes, (np.abs(y).max(axis=-1) > 1e-6).astype(float), np.nan)
    of_any = of_input if draw.single_steps else of_candidate
    of_input, of_any = zero_rounding_errors(of_input), zero_rounding_errors(of_any)
    return Transmission(of_input, size, arrives, of_any, following)


def _drive_candidate(draw: ReplayedDraw, cell: Cell) -> Array:
    """Return the output of a cell whose candidates are driven by their bias, `[T, B, n]`."""
    weights = SignalWeights(draw.network).route_to_output(cell).drive_candidate(cell, AMPLITUDE)
    return draw.run_cell(cell, weights, draw.no_input())


def _units_without_input(
    draw: ReplayedDraw, cell: Cell, of_candidate: Array
) -> npt.NDArray[np.bool_]:
    """Find the units that at some step show none of the mean of x, `[n]`.

    This counts only if other units show it and the unit passes on a signal from its candidate. The
    mean of x is there at every step, so a unit that keeps its old value shows it too.
    """
    weights = SignalWeights(draw.network).feed_mean(cell).route_to_output(cell)
    y = draw.run_cell(cell, weights, draw.constant_signal())
    shown = np.abs(y) > 1e-6 * AMPLITUDE * draw.gain_to_output(cell)
    others = shown.any(axis=-1, keepdims=True)
    missing = np.asarray(others & ~shown & (np.abs(of_candidate) > 1e-6))
    once: npt.NDArray[np.bool_] = np.asarray(missing.any(axis=(0, 1)))
    return once


def _observe_input(
    draw: ReplayedDraw, cell: Cell, passed: Array, transmissions: Mapping[Place, Transmission]
) -> tuple[Array, Routes]:
    """Observe `CellObservation.input_ratio`. `passed` is how much the cell passes on."""
    columns = make_routes(passed.shape[-1], cell.input_weights.columns)
    below = draw.network.layer_cells(cell.layer - 1) if cell.layer else []
    # The size of every input feature without noise, [T, B, D].
    sizes = np.ones((STEPS, BATCH, cell.input_weights.columns))
    if below:
        lower_sizes = [
            extend_to_width(transmissions[lower.place].input_size, lower.width)
            * gain(lower, not draw.forgets)
            for lower in below
        ]
        sizes = np.concatenate(lower_sizes, axis=-1)
    ratios = []
    for route in columns:
        weights = SignalWeights(draw.network).route_to_output(cell)
        for lower in below:
            weights.feed_mean(lower)
        weights.set_input(cell, route_matrix(route, cell.units, cell.input_weights.columns))
        current, _ = draw.current_and_next(weights, cell)
        ratios.append(safe_divide(current / draw.gain_to_output(cell), passed * sizes[..., route]))
    return zero_rounding_errors(np.stack(ratios, axis=-2)), columns


def _observe_hidden(
    draw: ReplayedDraw, cell: Cell, transmission: Transmission
) -> tuple[Array, Routes]:
    """Observe `CellObservation.hidden_ratio`."""
    _, input_size, _, passed, without = transmission
    columns = make_routes(passed.shape[-1], cell.width, offset=1)
    after = -1 if cell.is_backward else 1
    unmasked = FAINT_WEIGHT * draw.gain_to_output(cell) * recurrent_gain(cell, not draw.forgets)
    passed_next = np.full_like(passed, np.nan)
    for step in range(STEPS):
        if 0 <= step + after < STEPS:
            passed_next[step] = passed[step + after]
    ratios = []
    for route in columns:
        weights = SignalWeights(draw.network).feed_mean(cell).route_to_output(cell)
        matrix = route_matrix(route, cell.units, cell.recurrent_weights.columns)
        weights.set_recurrent(cell, FAINT_WEIGHT * matrix)
        _, following = draw.current_and_next(weights, cell)
        sizes = extend_to_width(input_size, cell.width)[..., route]
        ratios.append(safe_divide((following - without) / unmasked, passed_next * sizes))
    return zero_rounding_errors(np.stack(ratios, axis=-2)), columns


def _observe_response(
    draw: ReplayedDraw,
    cell: Cell,
    upper: Array,
    input_size: Array,
    input_known: npt.NDArray[np.bool_],
) -> Array:
    """Observe `CellObservation.response`. It is NaN if the cells above do not forget.

    Args:
        draw: the draw.
        cell: the cell.
        upper: how much the cell above passes on, `[T, B, n]`.
        input_size: how much of the mean of x the cell sees.
        input_known: where the cell can show its input, `[T, B]`.
    """
    n = upper.shape[-1]
    if not draw.forgets and draw.network.cells_above(cell):
        return np.full((STEPS, BATCH, n, STEPS + 1), np.nan)
    response = safe_divide(draw.memory_response(cell)[..., :n, :], upper[..., None])
    if not draw.forgets or len(draw.step_groups) < STEPS or cell.layer == 0:
        for step in range(STEPS):
            sizes = input_size[step][None, :, :n]
            response[..., step] = safe_divide(response[..., step], sizes)
            # If no unit passes an input on at once, its size is unknown at later steps.
            unknown = np.outer(np.arange(STEPS) != step, ~input_known[step])
            response[..., step] = np.where(unknown[..., None], np.nan, response[..., step])
        return zero_rounding_errors(response)
    # Cells below that keep old values pass on more than the signal of the current step.
    arriving = _observe_arriving_signals(draw, cell)
    for sample in range(BATCH):
        matrix = arriving[..., sample]
        if np.isfinite(matrix).all() and (np.abs(np.diag(matrix)) > 1e-5).all():
            part = response[:, sample, :, :STEPS]
            response[:, sample, :, :STEPS] = part @ np.linalg.inv(matrix)
        else:
            response[:, sample, :, :STEPS] = np.nan
    response[np.isnan(input_size[..., :n]), :STEPS] = np.nan
    return zero_rounding_errors(response)


def _observe_arriving_signals(draw: ReplayedDraw, cell: Cell) -> Array:
    """Observe what a cell sees at step t of a network input at step s alone, `[T, T, B]`."""
    unmasked = AMPLITUDE * draw.gain_to_output(cell)
    passed = _drive_candidate(draw, cell) / unmasked
    weights = SignalWeights(draw.network).feed_mean(cell).route_to_output(cell)
    arriving = np.zeros((STEPS, STEPS, BATCH))
    for step in range(STEPS):
        y = draw.run_cell(cell, weights, draw.signal_at(step)) / unmasked
        arriving[:, step] = majority_value(safe_divide(y, passed))
    return arriving
