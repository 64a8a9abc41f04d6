"""`Site`: the places in an unrolled, stacked recurrent network where a mask can be."""

from __future__ import annotations

import difflib
from enum import StrEnum

from ..argument_checks import short_repr
from ..errors import PolicyError


class Site(StrEnum):
    """A place where a mask can be, for layers l = 1..L and steps t = 1..T.

    The order of the members is part of the meaning of a seed: the position of a site is part of
    the key of its masks (see `keyed`). New sites are only ever added at the end.
    """

    EMBEDDING = "embedding"
    """Whole rows of the embedding matrix, that is, word types."""
    INPUT = "input"
    """x_t, where it enters layer 1 (vertical)."""
    BETWEEN = "between"
    """h^{l-1}_t, where it enters layer l >= 2 (vertical)."""
    OUTPUT = "output"
    """h^L_t, where it leaves the stack; the h that is carried on stays unmasked (vertical)."""
    HIDDEN = "hidden"
    """h_{t-1}, where it enters the gates; the h that is carried on stays unmasked (recurrent)."""
    STATE = "state"
    """h itself, as it is carried from step to step (recurrent)."""
    CELL = "cell"
    """c itself, as it is carried from step to step (recurrent)."""
    CANDIDATE = "candidate"
    """g_t of an LSTM or n_t of a GRU, before it is added to the state (update)."""
    HIDDEN_UPDATE = "hidden_update"
    """Zoneout of h: the previous value stays instead of the new one (update)."""
    CELL_UPDATE = "cell_update"
    """Zoneout of c: the previous value stays instead of the new one (update)."""
    RECURRENT_WEIGHT = "recurrent_weight"
    """Single entries of W_hh, drawn once per call (weight)."""
    INPUT_WEIGHT = "input_weight"
    """Single entries of W_ih, drawn once per call (weight)."""

    @property
    def number(self) -> int:
        """The position of the site in the list, 0 to 255: a part of the key of its masks."""
        return _NUMBER[self]

    @classmethod
    def of(cls, name: str) -> Site:
        """Return the site with a name.

        Args:
            name: the name of a site, or a site.

        Raises:
            PolicyError: no site has that name. The message lists all names.
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
"""Sites whose masks are on what goes from step to step."""

COMPUTED = (Site.CANDIDATE, Site.CELL, Site.STATE)
"""Sites whose masks are on what a cell computes at a step. A signal passes them at its own step,
and not only on its way from step to step."""

GATE_INPUTS = frozenset({Site.INPUT, Site.BETWEEN, Site.HIDDEN})
"""What enters the gates, and can have a mask for each of them (`gates="untied"`)."""

CELL_STATE = frozenset({Site.CELL, Site.CELL_UPDATE})
"""The sites on the c of an LSTM. No other layer has them."""

UPDATES = frozenset({Site.HIDDEN_UPDATE, Site.CELL_UPDATE})
"""The sites of zoneout."""

WEIGHTS = frozenset({Site.RECURRENT_WEIGHT, Site.INPUT_WEIGHT})
"""The sites of masks on weights."""

MATRICES = WEIGHTS | {Site.EMBEDDING}
"""The sites of masks on a matrix of parameters, not on values."""
