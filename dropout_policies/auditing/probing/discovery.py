"""Finding out, in evaluation, which of a module's weights do what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ...errors import PolicyError
from .constants import with_half_open
from .network import SHUT, TYPES, Bias, Block, Cell, Gates, Network, Place, Setting
from .probe import Array, Parameter, Probe
from .signals import AMPLITUDE

Run = Callable[[Mapping[str, Array], Array], Array]

TOKENS = 8
"""How many rows of an embedding are left to tokens, where it is the decoder's matrix too."""


def discover(probe: Probe) -> Network:
    """The network that a module is.

    Raises:
        PolicyError: it is none that the audit can see into.
    """
    last = ""
    parameters = _that_matter(probe)
    ways = product(_orientations(parameters), (_random, _without_vectors))
    for parameters, weights in ways:
        try:
            return _discover(tuple(parameters), weights(parameters), probe)
        except _NotSeenError as error:
            last = last or str(error)
    raise PolicyError(
        f"{probe.name}: the audit cannot see into it: {last}. It sees LSTM, GRU and simple "
        f"recurrent cells, their gates side by side in one matrix and not normalized, in layers, "
        f"from an input of features or tokens to an output for every step, that may come through "
        f"one linear layer. Give it the recurrent layer alone, or the model without what comes "
        f"before or after."
    )


class _NotSeenError(Exception):
    """A way to read the module that does not fit."""


def _that_matter(probe: Probe) -> Sequence[Parameter]:
    """The parameters but for those that evaluation does not depend on and that are no matrices.

    Those may say how much is dropped, and have the module's own values from here on.
    """
    parameters = probe.parameters()
    weights, noise = _random(parameters), probe.noise()
    x = np.ones((2, probe.features))

    def run(changed: Mapping[str, Array]) -> Array:
        probe.replay(noise)
        return probe.run(changed, x, 1, None, training=False)

    def matters(p: Parameter) -> bool:
        return not np.array_equal(run(weights | {p.name: weights[p.name] + 0.3}), base)

    base = run(weights)
    idle = [p for p in parameters if not p.is_matrix and not matters(p)]
    run(weights | {p.name: probe.own(p.name) for p in idle})
    return [p for p in parameters if p not in idle]


def _orientations(parameters: Sequence[Parameter]) -> Iterator[Sequence[Parameter]]:
    """The framework's own way to lay matrices out, and the other one."""
    yield parameters
    yield [p._replace(transposed=not p.transposed) for p in parameters]


def _discover(
    parameters: Sequence[Parameter], weights: Mapping[str, Array], probe: Probe
) -> Network:
    """The network, found by what changes under weights that let everything through."""
    noise = probe.noise()

    def run(weights: Mapping[str, Array], x: Array) -> Array:
        probe.replay(noise)
        return probe.run(weights, x, 1, None, training=False)

    matrices = [p for p in parameters if p.is_matrix]
    if not matrices:
        raise _NotSeenError("it has no weights of its own that are matrices")
    back = _recurrent(matrices, weights, run, probe.features)
    cells, decoder = _layers(matrices, back, weights, run, probe.features)
    network = Network(parameters, cells, {}, decoder)
    if decoder is None:
        width = run(weights, np.ones((1, probe.features))).shape[-1]
        network = _without_decoder(network, probe.embedding, width)
    network = network.with_gates(_candidates(network, run, probe.features))
    network = _with_biases(network, run, probe.features)
    network = network.with_gates(_memories(network, run, probe.features))
    network = with_half_open(network, run, probe.features)
    _check_directions(network, run, probe.features)
    return network


def _random(parameters: Sequence[Parameter]) -> dict[str, Array]:
    """Weights under which everything depends on everything, through many layers too."""
    random = np.random.default_rng(0)
    found = {}
    for p in parameters:
        if p.is_matrix:
            found[p.name] = random.uniform(0.5, 1.5, p.shape) / _size(p)[1]
        else:
            # What has more axes is none of a cell's weights: a state to begin with, for instance.
            found[p.name] = np.asarray(random.uniform(0.1, 0.5, p.shape) * (len(p.shape) < 3))
    return found


def _without_vectors(parameters: Sequence[Parameter]) -> dict[str, Array]:
    """The same without what may be biases, and may be a state to begin with."""
    vectors = {p.name: np.zeros(p.shape) for p in parameters if not p.is_matrix}
    return _random(parameters) | vectors


def _recurrent(
    matrices: Sequence[Parameter], weights: Mapping[str, Array], run: Run, features: int
) -> list[Parameter]:
    """The matrices that a single step does not depend on, and two do."""
    found = []
    x = np.ones((2, features))
    one, two = run(weights, x[:1]), run(weights, x)
    for matrix in matrices:
        changed = {**weights, matrix.name: weights[matrix.name] * 1.5}
        if np.array_equal(run(changed, x[:1]), one):
            if np.array_equal(run(changed, x), two):
                raise _NotSeenError(
                    f"nothing that it gives back is seen to depend on {matrix.name}"
                )
            found.append(matrix)
    return found


def _layers(
    matrices: Sequence[Parameter],
    back: Sequence[Parameter],
    weights: Mapping[str, Array],
    run: Run,
    features: int,
) -> tuple[dict[Place, Cell], Block | None]:
    """Walk through the matrices in the order in which they were made, from the input to the
    output."""
    forward = [m for m in matrices if m not in back]
    free = list(back)
    names = {m.name for m in matrices}
    alone = {n: w if n in names else np.zeros_like(w) for n, w in weights.items()}
    cells: dict[Place, Cell] = {}
    width, leaving, layer = features, 0, -1
    decoder: Block | None = None
    while forward:
        matrix = forward.pop(0)
        rows, columns = _size(matrix)
        partner = _partner(matrix, free, matrices)
        if decoder is not None:
            raise _NotSeenError(f"{matrix.name} comes after the output's own weights")
        if partner is None and columns == (leaving or width) and cells:
            decoder = Block(matrix, 0, columns)
            continue
        if partner is None:
            into, recurrent, units = _joined(matrix, (leaving or width, width))
        else:
            free.remove(partner)
            into, recurrent = Block(matrix, 0, columns), Block(partner, 0, _size(partner)[1])
            units = recurrent.columns
        projection = None
        if forward and _is_projection(forward[0], recurrent, rows):
            projection = Block(forward.pop(0), 0, _size(matrix)[0] // 4)
            units = projection.columns
        if rows % units or rows // units not in TYPES:
            raise _NotSeenError(f"{matrix.name} is no weight of an LSTM, GRU or simple cell")
        direction = _direction(recurrent, alone, run, features)
        half = (layer, 0) in cells and (layer, 1) not in cells and into.columns == width
        if direction is None:  # above a layer that goes both ways
            direction = int(half)
        joins = direction == 1 and half
        if not joins:
            width = leaving or width
            layer, leaving = layer + 1, 0
        if into.columns != width:
            raise _NotSeenError(f"{matrix.name} does not take the {width} features before it")
        place = (layer, direction)
        cells[place] = Cell(place, into, recurrent, units, projection)
        leaving += cells[place].width
    if free or not cells:
        raise _NotSeenError("its weights do not pair up as those of recurrent cells")
    return cells, decoder


def _size(matrix: Parameter) -> tuple[int, int]:
    """Its rows and columns as `[out, in]`."""
    rows, columns = matrix.shape
    return (columns, rows) if matrix.transposed else (rows, columns)


def _partner(
    matrix: Parameter, free: Sequence[Parameter], matrices: Sequence[Parameter]
) -> Parameter | None:
    """The recurrent weights that belong to some weights of the input: nearest by."""
    order = {m.name: number for number, m in enumerate(matrices)}
    fitting = [m for m in free if _size(m)[0] == _size(matrix)[0]]
    near = [m for m in fitting if abs(order[m.name] - order[matrix.name]) == 1]
    return min(near or fitting, key=lambda m: abs(order[m.name] - order[matrix.name]), default=None)


def _joined(matrix: Parameter, widths: tuple[int, int]) -> tuple[Block, Block, int]:
    """One matrix for what comes in and the hidden state, side by side."""
    rows, columns = _size(matrix)
    for width in widths:
        units = columns - width
        if units > 0 and rows % units == 0 and rows // units in TYPES:
            return Block(matrix, 0, width), Block(matrix, width, columns), units
    raise _NotSeenError(f"{matrix.name} {tuple(matrix.shape)} does not fit what comes before it")


def _is_projection(matrix: Parameter, recurrent: Block, rows: int) -> bool:
    out, units = _size(matrix)
    return out == recurrent.columns and rows == 4 * units and units != recurrent.columns


def _direction(
    recurrent: Block, weights: Mapping[str, Array], run: Run, features: int
) -> int | None:
    """0 if what comes first is seen later, through these weights; 1 the other way round; None if
    both are so, by what is below."""
    view = slice(recurrent.start, recurrent.stop)
    changed = {name: array.copy() for name, array in weights.items()}
    array = changed[recurrent.parameter.name]
    (array.T if recurrent.parameter.transposed else array)[:, view] *= 1.5
    seen = []
    for step in range(2):
        x = np.zeros((2, features))
        x[step] = 1.0
        seen.append(not np.array_equal(run(weights, x), run(changed, x)))
    if not any(seen):
        raise _NotSeenError(f"nothing is seen to go on through {recurrent.parameter.name} alone")
    return None if all(seen) else seen.index(True)


def _without_decoder(network: Network, embedding: Parameter | None, width: int) -> Network:
    """A network that has no matrix of its own for its output: it gives what leaves its last layer,
    or leads it to the words through the embedding's matrix, where `width` is their number."""
    leaving = sum(cell.width for cell in network.layer(network.layers - 1))
    if width == leaving:
        return network
    if embedding is None or embedding.shape != (width, leaving):
        raise _NotSeenError(
            f"its output has {width} features, and {leaving} leave its last layer, of all its "
            f"directions"
        )
    if width < 2 * TOKENS:
        raise _NotSeenError(f"{embedding.name} has too few rows for tokens and for its output")
    return replace(network, decoder=Block(embedding, 0, leaving), first=TOKENS)


def _candidates(network: Network, run: Run, features: int) -> dict[int, Gates]:
    """Which gate carries a signal that is alone."""
    kinds = sorted({cell.kind.gates for cell in network.cells.values()})
    x = np.zeros((2, features))
    bottom = network.layer(0)[0]
    x[0 if bottom.place[1] == 0 else 1] = AMPLITUDE
    for chosen in product(*(range(kind) for kind in kinds)):
        gates = {kind: Gates(gate) for kind, gate in zip(kinds, chosen, strict=True)}
        tried = network.with_gates(gates)
        arrays = Setting(tried).feed(bottom).pass_up(bottom).arrays
        y, twice = run(arrays, x), run(arrays, 2.0 * x)
        start, count = tried.leaves_at(bottom), tried.visible(bottom)
        first = y[:, 0, start : start + count]
        row, doubled = first[bottom.place[1]], twice[:, 0, start : start + count]
        linear = np.abs(doubled - 2.0 * first).max() < 1e-3 * np.abs(first).max()
        if row.min(initial=np.inf) > 1e-6 * AMPLITUDE and np.ptp(row) < 1e-3 * row.max() and linear:
            return gates
    raise _NotSeenError("a signal does not come through its cells as through an LSTM's or a GRU's")


def _with_biases(network: Network, run: Run, features: int) -> Network:
    """The vectors that are added to the gates of a cell: they are seen at the output though
    nothing comes in, as long as the cells above let it through; from the top down, since those of
    the cells above are seen too."""
    vectors: list[Bias] = []
    for p in network.parameters:
        if len(p.shape) == 1:
            vectors.append(Bias(p))
        elif not p.is_matrix and p.shape[0] == 2:
            vectors += [Bias(p, 0), Bias(p, 1)]
    x = np.zeros((1, features))
    cells = dict(network.cells)
    taken: set[Bias] = set()
    for place, cell in sorted(network.cells.items(), reverse=True):
        start, count = network.leaves_at(cell), network.visible(cell)
        own: dict[Bias, float] = {}
        for vector in vectors:
            if vector in taken or vector.size != cell.into.rows:
                continue
            tried = replace(cell, biases=(vector,))
            setting = Setting(replace(network, cells=cells | {place: tried})).pass_up(cell)
            for other in vectors:
                setting.arrays.setdefault(other.parameter.name, np.zeros(other.parameter.shape))
            base = run(setting.arrays, x)
            y = run(setting.drive(tried, AMPLITUDE).arrays, x)
            moved = float((y - base)[0, 0, start : start + count].min())
            if moved > 1e-3 * AMPLITUDE * 0.25 ** (network.layers - place[0]):
                own[vector] = moved
        taken.update(own)
        # A GRU's recurrent bias is seen through the reset gate, and so half as large.
        cells[place] = replace(cell, biases=tuple(sorted(own, key=lambda v: -round(own[v], 6))))
    rows = 0 if network.decoder is None else network.decoder.rows
    added = tuple(v for v in vectors if v not in taken and v.size == rows)
    return replace(network, cells=cells, added=added)


def _memories(network: Network, run: Run, features: int) -> dict[int, Gates]:
    """Which gate, shut or open, makes a cell forget at once, and lets all else through."""
    found = dict(network.gates)
    for kind, gates in network.gates.items():
        cell = next(c for c in network.cells.values() if c.kind.gates == kind)
        if not cell.biases or kind == 1:
            continue
        first, then = (0, 1) if cell.place[1] == 0 else (1, 0)
        x = np.zeros((2, features))
        x[first] = AMPLITUDE
        start = network.leaves_at(cell)
        best: tuple[float, tuple[int, float] | None] = (np.inf, None)
        for gate, sign in product(range(kind), (-1.0, 1.0)):
            if gate == gates.candidate:
                continue
            setting = Setting(network, remembers=list(network.cells.values()))
            setting.feed(cell).pass_up(cell).open(cell, gate, sign * SHUT)
            y = run(setting.arrays, x)[:, 0, start]
            if y[first] > 1e-2 * AMPLITUDE * 0.25 ** (network.layers + 1):
                best = min(best, (abs(y[then]) / y[first], (gate, sign)), key=lambda pair: pair[0])
        if best[1] is not None:
            found[kind] = replace(gates, memory=best[1])
    return found


def _check_directions(network: Network, run: Run, features: int) -> None:
    """That what is at one step is seen at the next, in the direction of each cell."""
    for cell in network.cells.values():
        if any(not c.biases for c in network.below(cell)):
            continue  # which remember, and so do not tell
        first, then = (0, 1) if cell.place[1] == 0 else (1, 0)
        x = np.zeros((2, features))
        x[first] = AMPLITUDE
        settings = [Setting(network).feed(cell).pass_up(cell) for _ in range(2)]
        settings[1].back(cell, np.eye(cell.units, cell.back.columns))
        y = [run(setting.arrays, x)[then, 0, network.leaves_at(cell)] for setting in settings]
        if y[1] - y[0] <= 1e-6 * AMPLITUDE:
            name = cell.back.parameter.name
            raise _NotSeenError(f"what {name} carries is not seen to arrive at the next step")
