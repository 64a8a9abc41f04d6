"""The cells of a recurrent layer object: checks, places in a stack, and planned masks."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import keras

from dropout_policies.adapter import (
    CellType,
    Geometry,
    Placement,
    Plan,
    Policy,
    PolicyError,
    Site,
    check_sites,
    number_text,
    plan_masks,
)

from .custom_cell import check_custom_cell, state_and_output_width
from .policy_cells import CELL_TYPES, Cell, cell_type_of, is_cell, is_convolutional, is_keras_cell

LAYERS_WITH_CELL = (
    *(keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN),
    *(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D),
)
"""The layers that make their own cell. Other layers take a cell as an argument."""


@dataclass(frozen=True)
class PlacedCell:
    """One cell of a recurrent layer object, its type, and its place in the stack."""

    cell: Cell
    type: CellType
    placement: Placement


def cells_of(layer: Any) -> list[Cell]:
    """Return a recurrent layer's cells: one, or those of a `StackedRNNCells`.

    For a cell that code calls step by step, return the cell itself.
    """
    if is_cell(layer):
        return [layer]
    cell = layer.cell
    return list(cell.cells) if type(cell) is keras.layers.StackedRNNCells else [cell]


def keras_cells(layer: Any) -> list[Cell]:
    """Return a layer's cells of Keras's own classes, whose dropout a policy takes over.

    A layer without cells has none.
    """
    if is_cell(layer):
        return [layer]
    cells = cells_of(layer) if hasattr(layer, "cell") else []
    return [cell for cell in cells if is_keras_cell(cell)]


def check_cells(layer: Any, policy: Policy, name: str) -> None:
    """Make sure that every cell of a layer can take a policy.

    Args:
        layer: the layer.
        policy: the policy.
        name: the name of the layer in errors.

    Raises:
        PolicyError: a cell cannot. The message names the cell, the site, and the sites that it has.
    """
    if is_cell(layer):
        check_sites(policy, name, sites_of_cells(layer))
        return
    for cell in cells_of(layer):
        kind = type(cell).__name__
        cell_name = name
        if isinstance(layer.cell, keras.layers.StackedRNNCells):
            cell_name = f"{name}: {kind}"
        elif not isinstance(layer, LAYERS_WITH_CELL):
            cell_name = f"{name} of {kind}"
        if getattr(cell, "placement", None) is not None:
            raise PolicyError(
                f"{cell_name}: {cell.name} is under policy {cell.placement.policy.name!r} already, "
                f"and {policy.name!r} would come on top. Give the layer {kind} of keras.layers."
            )
        if is_keras_cell(cell):
            check_sites(policy, cell_name, cell_type_of(cell).sites)
        else:
            check_custom_cell(cell, policy, cell_name)


def sites_of_cells(layer: Any) -> frozenset[Site]:
    """Return the sites of all cells of a layer together."""
    if is_cell(layer):
        return next(kind.sites for stock, kind in CELL_TYPES.items() if isinstance(layer, stock))
    return frozenset().union(*(cell_type_of(cell).sites for cell in cells_of(layer)))


def native_dropout(layer: Any) -> str:
    """Return a layer's own dropout as its constructor takes it, such as "dropout=0.5", or ""."""
    found: dict[str, None] = {}
    for cell in keras_cells(layer):
        rates = {"dropout": cell.dropout, "recurrent_dropout": cell.recurrent_dropout}
        found |= dict.fromkeys(
            f"{name}={number_text(rate)}" for name, rate in rates.items() if rate
        )
    return ", ".join(found)


def placed_cells(layer: Any, placement: Placement) -> list[PlacedCell]:
    """Return a layer object's cells, each at its place in the stack.

    Args:
        layer: the object.
        placement: the place of the object.
    """
    cells, policy = cells_of(layer), placement.policy
    return [
        PlacedCell(
            cell,
            cell_type_of(cell),
            Placement(
                policy,
                placement.layer + number,
                placement.first and number == 0,
                placement.last and number == len(cells) - 1,
                placement.depth + number,
            ),
        )
        for number, cell in enumerate(cells)
    ]


def plan_call(cells: list[PlacedCell], width: int, batch: Any, steps: Any, direction: int) -> Plan:
    """Plan the masks of one call of some cells, each of which feeds the next.

    Args:
        cells: the cells.
        width: D of the first cell.
        batch: B.
        steps: T.
        direction: 1 for an object that runs backward, otherwise 0.
    """
    plan: Plan = {}
    for each in cells:
        sizes = _sizes(each.cell, width)

        def plan_cell(hidden: int, each: PlacedCell = each, sizes: Sizes = sizes) -> Plan:
            geometry = Geometry(
                sizes.input,
                hidden,
                1,
                (direction,),
                batch=batch,
                steps=steps,
                cell=each.type,
                input_positions=sizes.input_positions,
                positions=sizes.positions,
                taps=sizes.taps,
            )
            return plan_masks(each.placement, geometry)

        # The output of a user's own cell may have another width than its h.
        of_output, of_state = plan_cell(sizes.output), plan_cell(sizes.state)
        plan |= {slot: mask for slot, mask in of_output.items() if slot.site is Site.OUTPUT}
        plan |= {slot: mask for slot, mask in of_state.items() if slot.site is not Site.OUTPUT}
        width = sizes.output
    return plan


class Sizes(NamedTuple):
    """The sizes of a cell's input and output: channels, and positions if it is convolutional.

    Args:
        input, state, output: the number of channels of x, of h and of the output.
        input_positions, positions: the number of positions of x, and of h and the output.
        taps: the number of positions of a kernel.
    """

    input: int
    state: int
    output: int
    input_positions: int = 1
    positions: int = 1
    taps: int = 1


def _sizes(cell: Cell, width: int) -> Sizes:
    """Return the sizes of a built cell, for an input of this width."""
    if not is_convolutional(cell):
        return Sizes(width, *state_and_output_width(cell))
    inside, outside, taps = cell.spatial_dims, spatial_shape_of_state(cell), cell.kernel_size
    filters = cell.filters
    return Sizes(cell.input_dim, filters, filters, prod(inside), prod(outside), prod(taps))


def spatial_shape_of_state(cell: Cell) -> tuple[int, ...]:
    """Return the spatial shape of the states of a built convolutional cell."""
    shape = tuple(cell.get_initial_state(batch_size=1)[0].shape[1:])
    return shape[1:] if cell.data_format == "channels_first" else shape[:-1]
