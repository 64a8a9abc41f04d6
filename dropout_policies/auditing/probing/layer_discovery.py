"""Finds the role of each matrix: input and recurrent weights, projections, the decoder.

A matrix is recurrent if the output of two steps depends on it, but not the output of one step. The
others are taken in the order of their creation, from the input to the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .network import CELL_TYPES, Block, Cell, Place
from .probe import Array, Parameter
from .signals import Run


class NotRecognizedError(Exception):
    """The parameters of a module are not those of a network that the audit knows."""


def out_in_shape(matrix: Parameter) -> tuple[int, int]:
    """Return a matrix's shape as `(out, in)`."""
    rows, columns = matrix.shape
    return (columns, rows) if matrix.transposed else (rows, columns)


def find_recurrent_matrices(
    matrices: Sequence[Parameter], weights: Mapping[str, Array], run: Run, features: int
) -> list[Parameter]:
    """Find the matrices on which the output of two steps depends, but not that of one step.

    Raises:
        NotRecognizedError: the output does not depend on a matrix at all.
    """
    recurrent = []
    x = np.ones((2, features))
    one_step, two_steps = run(weights, x[:1]), run(weights, x)
    for matrix in matrices:
        changed = {**weights, matrix.name: weights[matrix.name] * 1.5}
        if np.array_equal(run(changed, x[:1]), one_step):
            if np.array_equal(run(changed, x), two_steps):
                raise NotRecognizedError(f"its output does not depend on {matrix.name}")
            recurrent.append(matrix)
    return recurrent


def assign_layers(
    matrices: Sequence[Parameter],
    recurrent: Sequence[Parameter],
    weights: Mapping[str, Array],
    run: Run,
    features: int,
) -> tuple[dict[Place, Cell], Block | None]:
    """Assign the matrices to cells, and the last one to the decoder.

    Args:
        matrices: all matrices, in the order of their creation.
        recurrent: the recurrent matrices.
        weights: values with which every output depends on every input.
        run: the function that runs the module.
        features: D.

    Returns:
        The cells by place, and the decoder's matrix, or None.

    Raises:
        NotRecognizedError: the matrices do not fit one another.
    """
    waiting = [m for m in matrices if m not in recurrent]
    unpaired = list(recurrent)
    names = {m.name for m in matrices}
    matrices_only = {n: w if n in names else np.zeros_like(w) for n, w in weights.items()}
    signals = [np.eye(2)[:, [step]] * np.ones(features) for step in range(2)]
    unchanged = [run(matrices_only, x) for x in signals]
    cells: dict[Place, Cell] = {}
    # The width of the current layer's input, and the width of its cells so far.
    width, leaving, layer = features, 0, -1
    decoder: Block | None = None
    while waiting:
        matrix = waiting.pop(0)
        rows, columns = out_in_shape(matrix)
        partner = _find_partner(matrix, unpaired, matrices)
        if decoder is not None:
            raise NotRecognizedError(f"{matrix.name} comes after the output's own weights")
        if partner is None and columns == (leaving or width) and cells:
            decoder = Block(matrix, 0, columns)
            continue
        if partner is None:
            input_block, recurrent_block, units = _split_matrix(matrix, (leaving or width, width))
        else:
            unpaired.remove(partner)
            input_block = Block(matrix, 0, columns)
            recurrent_block = Block(partner, 0, out_in_shape(partner)[1])
            units = recurrent_block.columns
        projection = None
        if waiting and _is_projection(waiting[0], recurrent_block, rows):
            projection = Block(waiting.pop(0), 0, out_in_shape(matrix)[0] // 4)
            units = projection.columns
        if rows % units or rows // units not in CELL_TYPES:
            raise NotRecognizedError(
                f"{matrix.name} is not a weight of an LSTM, GRU or simple cell"
            )
        changed = _with_larger_block(matrices_only, recurrent_block)
        affected = [
            not np.array_equal(run(changed, x), y) for x, y in zip(signals, unchanged, strict=True)
        ]
        direction = _find_direction(recurrent_block, affected)
        completes_layer = (
            (layer, 0) in cells and (layer, 1) not in cells and input_block.columns == width
        )
        if direction is None:  # above a bidirectional layer
            direction = int(completes_layer)
        if not (direction == 1 and completes_layer):
            width = leaving or width
            layer, leaving = layer + 1, 0
        if input_block.columns != width:
            raise NotRecognizedError(f"{matrix.name} does not take the {width} features before it")
        place = (layer, direction)
        cells[place] = Cell(place, input_block, recurrent_block, units, projection)
        leaving += cells[place].width
    if unpaired or not cells:
        raise NotRecognizedError("its weights do not pair up as those of recurrent cells")
    return cells, decoder


def _find_partner(
    matrix: Parameter, unpaired: Sequence[Parameter], matrices: Sequence[Parameter]
) -> Parameter | None:
    """Find the recurrent weights for some input weights: the nearest ones with as many rows."""
    order = {m.name: number for number, m in enumerate(matrices)}

    def distance(other: Parameter) -> int:
        return abs(order[other.name] - order[matrix.name])

    fitting = [m for m in unpaired if out_in_shape(m)[0] == out_in_shape(matrix)[0]]
    adjacent = [m for m in fitting if distance(m) == 1]
    return min(adjacent or fitting, key=distance, default=None)


def _split_matrix(matrix: Parameter, widths: tuple[int, int]) -> tuple[Block, Block, int]:
    """Split a matrix for input and hidden state side by side. Return both parts and H."""
    rows, columns = out_in_shape(matrix)
    for width in widths:
        units = columns - width
        if units > 0 and rows % units == 0 and rows // units in CELL_TYPES:
            return Block(matrix, 0, width), Block(matrix, width, columns), units
    raise NotRecognizedError(
        f"{matrix.name} {tuple(matrix.shape)} does not fit what comes before it"
    )


def _is_projection(matrix: Parameter, recurrent: Block, rows: int) -> bool:
    out, units = out_in_shape(matrix)
    return out == recurrent.columns and rows == 4 * units and units != recurrent.columns


def _with_larger_block(weights: Mapping[str, Array], block: Block) -> dict[str, Array]:
    """Make weights in which one block is larger."""
    array = weights[block.parameter.name].copy()
    (array.T if block.parameter.transposed else array)[:, block.start : block.stop] *= 1.5
    return {**weights, block.parameter.name: array}


def _find_direction(recurrent: Block, affected: Sequence[bool]) -> int | None:
    """Find the direction of some recurrent weights.

    Args:
        recurrent: the weights.
        affected: whether they affect the output if there is an input only at the first of two
            steps, and if there is one only at the second.

    Returns:
        0 if an earlier input affects later outputs, 1 if a later input affects earlier ones. None
        if both do, because of the layers below.

    Raises:
        NotRecognizedError: they affect the output in neither case.
    """
    if not any(affected):
        name = recurrent.parameter.name
        raise NotRecognizedError(f"no input affects a later output through {name} alone")
    return None if all(affected) else affected.index(True)
