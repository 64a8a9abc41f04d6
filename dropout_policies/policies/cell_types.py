"""The kinds of recurrent layers: how many gates they have, and which sites."""

from __future__ import annotations

from dataclasses import dataclass

from .sites import VERTICAL, WEIGHTS, Site

_EVERY = VERTICAL | WEIGHTS | {Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE}


@dataclass(frozen=True, slots=True)
class CellType:
    """A kind of recurrent layer.

    Args:
        name: its name in papers and frameworks.
        gates: G. The weights are `[G*H, D]` and `[G*H, P]`, gate after gate. 0: not known.
        sites: the sites that it has.
        states: how many arrays it carries from step to step: 1 (h), or 2 (h and c).
    """

    name: str
    gates: int
    sites: frozenset[Site]
    states: int = 1


LSTM = CellType("LSTM", 4, _EVERY | {Site.CELL, Site.CANDIDATE, Site.CELL_UPDATE}, states=2)
"""Gates in the order i, f, g, o."""

GRU = CellType("GRU", 3, _EVERY | {Site.CANDIDATE})
"""Gates in the order r, z, n, whatever the framework's own order."""

RNN = CellType("RNN", 1, _EVERY)
"""The simple recurrent layer. Its new state is its only gate."""

CUSTOM = CellType("own cell", 0, VERTICAL | {Site.HIDDEN, Site.STATE, Site.HIDDEN_UPDATE})
"""A user's own cell. Masks can be around it, but not inside."""
