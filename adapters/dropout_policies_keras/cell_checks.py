"""Checks of a recurrent layer's cells: whether a policy can go on them, and their own dropout."""

from __future__ import annotations

from typing import Any

import keras

from dropout_policies.adapter import (
    Policy,
    Site,
    check_sites,
)

from .custom_cell import check_custom_cell
from .planning import cells_of
from .policy_cells import TYPES, cell_type_of

LAYERS_OF_UNITS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
"""The layers that make their cell from `units`; the others take one."""


def check_cells(layer: Any, policy: Policy, name: str) -> None:
    """Make sure that a policy can go on every cell of a layer.

    Args:
        layer: the layer.
        policy: the policy.
        name: what an error calls the layer.

    Raises:
        PolicyError: it cannot; the message names the cell, the site, and the sites it has.
    """
    for cell in cells_of(layer):
        kind = type(cell).__name__
        cell_name = name
        if isinstance(layer.cell, keras.layers.StackedRNNCells):
            cell_name = f"{name}: {kind}"
        elif not isinstance(layer, LAYERS_OF_UNITS):
            cell_name = f"{name} of {kind}"
        if type(cell) in TYPES:
            check_sites(policy, cell_name, cell_type_of(cell).sites)
        else:
            check_custom_cell(cell, policy, cell_name)


def sites_of_cells(layer: Any) -> frozenset[Site]:
    """The sites that the cells of a layer have, all together."""
    return frozenset().union(*(cell_type_of(cell).sites for cell in cells_of(layer)))


def native_dropout(layer: Any) -> str:
    """A layer's own dropout as its constructor takes it, such as "dropout=0.5", or ""."""
    found: dict[str, None] = {}
    for cell in cells_of(layer):
        if type(cell) in TYPES:
            rates = {"dropout": cell.dropout, "recurrent_dropout": cell.recurrent_dropout}
            found |= dict.fromkeys(f"{name}={rate:g}" for name, rate in rates.items() if rate)
    return ", ".join(found)
