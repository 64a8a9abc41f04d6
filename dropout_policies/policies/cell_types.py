"""What the kinds of recurrent layers are: how many gates, and where noise may fall in them."""

from __future__ import annotations

from dataclasses import dataclass

from .sites import VERTICAL, WEIGHTS, Site

_EVERY = VERTICAL | WEIGHTS | {Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE}


@dataclass(frozen=True, slots=True)
class CellType:
    """A kind of recurrent layer.

    Args:
        name: as papers and frameworks call it.
        gates: G: the weights are `[G*H, D]` and `[G*H, P]`, gate after gate; 0 where that is not
            known.
        sites: where noise may fall.
        states: how many arrays are carried from step to step: h, or h and c.
    """

    name: str
    gates: int
    sites: frozenset[Site]
    states: int = 1


LSTM = CellType("LSTM", 4, _EVERY | {Site.CELL, Site.CANDIDATE, Site.CELL_UPDATE}, states=2)
"""Gates in the order i, f, g, o."""

GRU = CellType("GRU", 3, _EVERY | {Site.CANDIDATE})
"""Gates in the order r, z, n, whatever a framework's own order is."""

RNN = CellType("RNN", 1, _EVERY)
"""The simple recurrent layer, whose new state is its only gate."""

CUSTOM = CellType("own cell", 0, VERTICAL | {Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE})
"""A cell of the user's own, around which noise may fall, but not inside."""
