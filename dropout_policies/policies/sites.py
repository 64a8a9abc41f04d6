"""The places in an unrolled, stacked recurrent network where noise may fall."""

from __future__ import annotations

import difflib
from enum import StrEnum

from ..argument_checks import short_repr
from ..errors import PolicyError


class Site(StrEnum):
    """A place where a mask may fall, for layer l = 1..L and step t = 1..T.

    The order of the members is part of the meaning of a seed: a site's position is one word of
    the key of its masks (see `keyed`). New sites are only ever added at the end.
    """

    EMBEDDING = "embedding"
    """A whole row (word type) of the embedding matrix."""
    INPUT = "input"
    """x_t on its way into layer 1 (vertical)."""
    BETWEEN = "between"
    """h^{l-1}_t on its way into layer l >= 2 (vertical)."""
    OUTPUT = "output"
    """h^L_t on its way out of the stack; the carried state stays whole (vertical)."""
    HIDDEN = "hidden"
    """h_{t-1} on its way into the gates; the carried h itself stays whole (recurrent)."""
    STATE = "state"
    """The carried h itself (recurrent)."""
    CELL = "cell"
    """The carried c (recurrent)."""
    CANDIDATE = "candidate"
    """g_t of an LSTM, n_t of a GRU, before it is added to the state (update)."""
    HIDDEN_UPDATE = "hidden_update"
    """Zoneout of h: keep the previous value instead of the new one (update)."""
    CELL_UPDATE = "cell_update"
    """Zoneout of c: keep the previous value instead of the new one (update)."""
    RECURRENT_WEIGHT = "recurrent_weight"
    """Single entries of W_hh, once per call (weight)."""
    INPUT_WEIGHT = "input_weight"
    """Single entries of W_ih, once per call (weight)."""

    @property
    def number(self) -> int:
        """The site's word in the key of its masks, 0 to 255."""
        return _NUMBER[self]

    @classmethod
    def of(cls, name: str) -> Site:
        """The site called `name`.

        Raises:
            PolicyError: no site has that name; the message lists them.
        """
        if isinstance(name, cls):
            return name
        known = {site.value: site for site in cls}
        text = str.__str__(name) if isinstance(name, str) else ""
        if text in known:
            return known[text]
        near = difflib.get_close_matches(text, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PolicyError(
            f"There is no site {short_repr(name)}.{hint} The sites are: {', '.join(known)}."
        )


_NUMBER = {site: number for number, site in enumerate(Site)}

VERTICAL = frozenset({Site.INPUT, Site.BETWEEN, Site.OUTPUT})
"""The L+1 vertical connections of a stack of L layers (Zaremba et al. 2014, figure 2)."""

CARRIED = (Site.HIDDEN, Site.STATE, Site.CELL)
"""Sites whose masks fall on what goes from step to step."""

COMPUTED = (Site.CANDIDATE, Site.CELL, Site.STATE)
"""Sites whose masks fall on what a cell makes at a step: a signal passes them at its own step too,
not only on its way from step to step."""

GATE_INPUTS = frozenset({Site.INPUT, Site.BETWEEN, Site.HIDDEN})
"""What goes into the gates, and may have a mask for each of them (`gates="untied"`)."""

CELL_STATE = frozenset({Site.CELL, Site.CELL_UPDATE})
"""What falls on the c of an LSTM, which no other layer has."""

UPDATES = frozenset({Site.HIDDEN_UPDATE, Site.CELL_UPDATE})
"""Where zoneout falls."""

WEIGHTS = frozenset({Site.RECURRENT_WEIGHT, Site.INPUT_WEIGHT})
"""Where masks fall on weights."""

MATRICES = WEIGHTS | {Site.EMBEDDING}
"""Where masks fall on a matrix of weights, and not on values."""
