"""Finds out what each gate of a cell does, and which vectors are its biases.

The candidate passes a small signal on linearly. The forget gate is the gate that, closed or open,
makes a cell forget. A bias is a vector that shows at its cell's output without any input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from .layer_discovery import NotRecognizedError
from .network import Bias, Cell, GateRoles, Network
from .probe import Array
from .signal_weights import SATURATING_BIAS, SignalWeights
from .signals import AMPLITUDE, Run


def find_candidate_gates(network: Network, run: Run, features: int) -> dict[int, GateRoles]:
    """Find the candidate among the gates of each kind of cell. The key is the number of gates.

    Raises:
        NotRecognizedError: no gate passes a signal on as a candidate does.
    """
    kinds = sorted({cell.kind.gates for cell in network.cells.values()})
    bottom = network.layer_cells(0)[0]
    x = _signal_at_first_step(bottom, features)
    for candidates in product(*(range(kind) for kind in kinds)):
        gates = {kind: GateRoles(gate) for kind, gate in zip(kinds, candidates, strict=True)}
        assumed = network.with_gates(gates)
        weights = SignalWeights(assumed).feed_mean(bottom).route_to_output(bottom).arrays
        start, count = assumed.output_offset(bottom), assumed.visible_features(bottom)
        y = run(weights, x)[:, 0, start : start + count]
        first = y[bottom.ordered(0, 1)[0]]
        arrives = first.min(initial=np.inf) > 1e-6 * AMPLITUDE
        if not arrives or np.ptp(first) >= 1e-3 * first.max():
            continue
        doubled = run(weights, 2.0 * x)[:, 0, start : start + count]
        if np.abs(doubled - 2.0 * y).max() < 1e-3 * np.abs(y).max():
            return gates
    raise NotRecognizedError("its cells do not pass a signal on as those of an LSTM or a GRU do")


def find_biases(network: Network, run: Run, features: int) -> Network:
    """Return the network with the biases of its cells and of its decoder.

    A bias shows at the output without any input if the cells above pass it on. Cells are handled
    from the top down, because the biases of the cells above show too.
    """
    vectors = possible_biases(network)
    cells = dict(network.cells)
    assigned: set[Bias] = set()
    for place, cell in sorted(network.cells.items(), reverse=True):
        fitting = [v for v in vectors if v not in assigned and v.size == cell.input_weights.rows]
        sizes = _bias_effects(replace(network, cells=cells), cell, fitting, vectors, run, features)
        least = 1e-3 * AMPLITUDE * 0.25 ** (network.layers - place[0])
        effects = {vector: size for vector, size in sizes.items() if size > least}
        assigned.update(effects)
        # A GRU's recurrent bias acts through the reset gate, and so half as strongly.
        strongest_first = sorted(effects, key=lambda vector: -round(effects[vector], 6))
        cells[place] = replace(cell, biases=tuple(strongest_first))
    rows = 0 if network.decoder is None else network.decoder.rows
    decoder_biases = tuple(v for v in vectors if v not in assigned and v.size == rows)
    return replace(network, cells=cells, decoder_biases=decoder_biases)


def possible_biases(network: Network) -> list[Bias]:
    """List all vectors that may be biases. A parameter with two rows may hold two."""
    vectors: list[Bias] = []
    for p in network.parameters:
        if len(p.shape) == 1:
            vectors.append(Bias(p))
        elif not p.is_matrix and p.shape[0] == 2:
            vectors += [Bias(p, 0), Bias(p, 1)]
    return vectors


def _bias_effects(
    network: Network,
    cell: Cell,
    candidates: Sequence[Bias],
    vectors: Sequence[Bias],
    run: Run,
    features: int,
) -> dict[Bias, float]:
    """Measure, for each vector, the smallest change of a cell's output if it were a candidate bias.

    Args:
        network: the network.
        cell: the cell.
        candidates: the vectors to try.
        vectors: all vectors that may be biases. Those that are not tried are zero.
        run: the function that runs the module.
        features: D.
    """
    if not candidates:
        return {}
    x = np.zeros((1, features))
    start, count = network.output_offset(cell), network.visible_features(cell)
    zeros = {v.parameter.name: np.zeros(v.parameter.shape) for v in vectors}
    without = run(zeros | SignalWeights(network).route_to_output(cell).arrays, x)
    effects: dict[Bias, float] = {}
    for vector in candidates:
        assumed = replace(cell, biases=(vector,))
        weights = SignalWeights(replace(network, cells={**network.cells, cell.place: assumed}))
        weights.route_to_output(cell).drive_candidate(assumed, AMPLITUDE)
        y = run(zeros | weights.arrays, x)
        effects[vector] = float((y - without)[0, 0, start : start + count].min())
    return effects


def find_forget_gates(network: Network, run: Run, features: int) -> dict[int, GateRoles]:
    """Find the gate that, closed or open, makes a cell forget but lets the candidate pass."""
    found = dict(network.gates)
    for kind, roles in network.gates.items():
        cell = next(c for c in network.cells.values() if c.kind.gates == kind)
        if not cell.biases or kind == 1:
            continue
        first, then = cell.ordered(0, 1)
        x = _signal_at_first_step(cell, features)
        start = network.output_offset(cell)
        best: tuple[float, tuple[int, float] | None] = (np.inf, None)
        for gate, sign in product(range(kind), (-1.0, 1.0)):
            if gate == roles.candidate:
                continue
            weights = SignalWeights(network, remembering=list(network.cells.values()))
            weights.feed_mean(cell).route_to_output(cell)
            weights.add_gate_bias(cell, gate, sign * SATURATING_BIAS)
            y = run(weights.arrays, x)[:, 0, start]
            if y[first] > 1e-2 * AMPLITUDE * 0.25 ** (network.layers + 1):
                remembered = abs(y[then]) / y[first]
                best = min(best, (remembered, (gate, sign)), key=lambda pair: pair[0])
        if best[1] is not None:
            found[kind] = replace(roles, forget=best[1])
    return found


def check_directions(network: Network, run: Run, features: int) -> None:
    """Check that a signal at one step reaches each cell's next step through its recurrent weights.

    Raises:
        NotRecognizedError: it does not.
    """
    for cell in network.cells.values():
        if any(not c.biases for c in network.cells_below(cell)):
            continue  # cells without biases remember, so the check is not possible
        _, then = cell.ordered(0, 1)
        x = _signal_at_first_step(cell, features)
        identity = np.eye(cell.units, cell.recurrent_weights.columns)
        without, with_recurrent = (
            SignalWeights(network).feed_mean(cell).route_to_output(cell) for _ in range(2)
        )
        with_recurrent.set_recurrent(cell, identity)
        offset = network.output_offset(cell)
        y = [run(weights.arrays, x)[then, 0, offset] for weights in (without, with_recurrent)]
        if y[1] - y[0] <= 1e-6 * AMPLITUDE:
            name = cell.recurrent_weights.parameter.name
            raise NotRecognizedError(f"no signal reaches the next step through {name}")


def _signal_at_first_step(cell: Cell, features: int) -> Array:
    """Make an input `[2, D]` with a signal at the step that a cell runs first."""
    x = np.zeros((2, features))
    x[cell.ordered(0, 1)[0]] = AMPLITUDE
    return x
