"""Which noise falls on the state of a cell's units, by what they were seen to remember."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import numpy as np

from ..sites import UPDATES, Site
from .events import EXIT, SITES, explain
from .evidence import kept_value
from .network import Cell, Place
from .probe import Array
from .resting import Means, mean_at
from .views import BATCH, STEPS

MOST = 100
"""How many combinations of explanations evaluation is asked about."""


@dataclass(frozen=True)
class Explanation:
    """What falls on the units of a cell.

    Args:
        bits: by site, where it fell, `[N, T, B, n]`: 1 where it did, 0 where not, NaN where that
            cannot be told; None if nothing explains what was seen.
        kept: by site, what is multiplied with what is not dropped.
        why: why nothing explains it.
    """

    bits: Mapping[Site, Array] | None
    kept: Mapping[Site, float] = field(default_factory=dict)
    why: str = ""

    @property
    def keeps_back(self) -> bool:
        """Whether units keep what was before, or do what is not understood."""
        return self.bits is None or bool(UPDATES & set(self.bits))

    def dead(self, shape: tuple[int, ...]) -> Array:
        """Where a unit's h has nothing in it of what comes in at the moment, `[N, T, B, n]`."""
        if self.bits is None:
            return np.full(shape, np.nan)
        dead = np.zeros(shape)
        for site, bits in self.bits.items():
            if site not in (EXIT, Site.HIDDEN, Site.CELL_UPDATE):
                dead = np.where(bits == 1.0, 1.0, np.where(np.isnan(bits), np.nan, dead))
        return dead

    def scale(self) -> float:
        """What an h that nothing falls on is multiplied by within the cell."""
        inside = [kept for site, kept in self.kept.items() if site not in (EXIT, Site.HIDDEN)]
        return float(np.prod(inside)) if inside else 1.0


def explanations(
    cell: Cell, responses: Array, hidden: Array, exits: Array, seen: Array
) -> list[Explanation]:
    """All that explains what was seen of a cell's units as well as anything simpler does.

    Args:
        cell: the cell.
        responses: `[N, T, B, n, T+1]`, see `View.response`.
        hidden, exits: what its recurrent weights, and what comes next, see of h.
        seen: where the recurrent weights see nothing of a unit (1), `[N, T, B, n]`.
    """
    if not np.isfinite(responses).any():
        return [Explanation(None, why="a layer without biases cannot be seen through")]
    n = responses.shape[3]
    flat = _in_own_time(responses, cell.place[1])
    total = kept_value(np.stack([flat[:, t, t] for t in range(STEPS)]))
    into_gates, leaving = kept_value(hidden), kept_value(exits)
    ratio = leaving / into_gates if np.isfinite(into_gates) and into_gates else 1.0
    scales: dict[Site, tuple[float, ...]] = {
        site: (1.0, total, total / ratio) for site in Site if site not in UPDATES
    }
    scales[EXIT] = (1.0, total, ratio)
    scales[Site.HIDDEN] = (1.0, into_gates, into_gates / total)
    found = []
    for events in explain(cell.kind.gates, flat, scales):
        shape = (len(responses), BATCH, n, STEPS)
        bits = {s: _in_order(b.reshape(shape), cell.place[1]) for s, b in events.bits.items()}
        name = _exit(cell, bits, seen)
        if name is not None:
            kept = {name if s is EXIT else s: value for s, value in events.kept.items()}
            found.append(Explanation({name if s is EXIT else s: b for s, b in bits.items()}, kept))
    return found or [Explanation(None, why="what falls on the state is none of the sites")]


def _in_own_time(responses: Array, direction: int) -> Array:
    """`[N, T, B, n, T+1]` to `[N*B*n, T, T+1]`, in the order in which the cell runs."""
    if direction == 1:
        turned = responses[:, ::-1]
        responses = np.concatenate([turned[..., STEPS - 1 :: -1], turned[..., STEPS:]], axis=-1)
    return responses.transpose(0, 2, 3, 1, 4).reshape(-1, STEPS, STEPS + 1)


def _in_order(bits: Array, direction: int) -> Array:
    """`[N, B, n, T]` in a cell's own time to `[N, T, B, n]` in that of the sequence."""
    bits = bits[..., ::-1] if direction == 1 else bits
    return bits.transpose(0, 3, 1, 2)


def _exit(cell: Cell, bits: Mapping[Site, Array], seen: Array) -> Site | None:
    """What a mask on h at the output is: on its way out if the recurrent weights see h all the
    same, and on h itself if they do not; None if they contradict the explanation."""
    drops = [b for site, b in bits.items() if site not in UPDATES | {EXIT, Site.HIDDEN}]
    if any(((b == 1.0) & (seen == 0.0)).any() for b in drops):
        return None
    if EXIT not in bits or Site.STATE in SITES[cell.kind.gates]:
        return EXIT
    fallen = bits[EXIT]
    there = np.isfinite(seen) & np.isfinite(fallen)
    out, stays = there & (fallen == 1.0), there & (fallen == 0.0)
    if not out.any() or not stays.any():
        return EXIT
    without, rate = float(seen[out].mean()), float(seen[stays].mean())
    if without == 1.0 and rate < 1.0:
        return Site.STATE
    spread = 4.0 * np.sqrt(max(rate * (1.0 - rate), 1e-3) / int(out.sum()))
    return EXIT if abs(without - rate) <= spread + 0.02 else None


def chosen(found: Mapping[Place, Sequence[Explanation]], agrees: Any) -> dict[Place, Explanation]:
    """One explanation for each cell: where there are several, those that evaluation agrees with.

    Args:
        found: by cell.
        agrees: whether evaluation has the means that it is given.
    """
    if all(len(those) == 1 for those in found.values()):
        return {place: those[0] for place, those in found.items()}
    fitting = [one for one in islice(_combined(found), MOST) if agrees(_means(one))]
    if len(fitting) == 1:
        return fitting[0]
    return {place: those[0] if len(those) == 1 else _alike(those) for place, those in found.items()}


def _combined(
    found: Mapping[Place, Sequence[Explanation]],
) -> Iterator[dict[Place, Explanation]]:
    for one in product(*found.values()):
        yield dict(zip(found, one, strict=True))


def _alike(those: Sequence[Explanation]) -> Explanation:
    sites = sorted({site.value for one in those for site in one.bits or ()})
    return Explanation(None, why=f"{', '.join(sites)} would do the same here")


def _means(one: Mapping[Place, Explanation]) -> list[Means]:
    """What evaluation puts in the masks' places, at the measured rates and at their bounds."""
    made: list[dict[Place, dict[Site, float]]] = [{}, {}, {}]
    for place, explanation in one.items():
        for site, bits in (explanation.bits or {}).items():
            values = mean_at(site, bits, explanation.kept.get(site, 1.0))
            for means, value in zip(made, values, strict=True):
                means.setdefault(place, {})[site] = value
    return list(made)
