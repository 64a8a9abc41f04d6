"""Which noise falls on the state of a cell's units, by what they were seen to remember."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

import numpy as np

from ...policies.sites import UPDATES, Site
from .events import EXIT, REMEMBERED, SITES, Events, explain
from .evidence import FOREIGN, finding, kept_value
from .network import Cell, Place
from .probe import Array
from .resting import Expected, expected
from .signals import BATCH, STEPS, over
from .views import LOUD

MOST = 100
"""How many combinations of explanations evaluation is asked about."""


@dataclass(frozen=True)
class Explanation:
    """What falls on the units of a cell.

    Args:
        bits: by site, where it fell, `[N, T, B, n]`: 1 where it did, 0 where not, NaN where that
            cannot be told; None if nothing explains what was seen.
        likely: by site, the likeliest rate, and on how many elements it rests.
        at_once: what an h that nothing has dropped is multiplied by on its way out of the cell.
        growth: what a state that nothing has dropped is multiplied by from step to step.
        why: why nothing explains it.
        either: the sites, where several explain it alike.
    """

    bits: Mapping[Site, Array] | None
    likely: Mapping[Site, tuple[float, float]] = field(default_factory=dict)
    at_once: float = 1.0
    growth: float = 1.0
    why: str = ""
    either: tuple[Site, ...] = ()

    @property
    def keeps_back(self) -> bool:
        """Whether units keep what was before, or do what is not understood."""
        return self.bits is None or bool(UPDATES & set(self.bits))

    @property
    def whole(self) -> bool:
        """Whether nothing falls on h within the cell."""
        return self.bits is not None and not set(self.bits) - {EXIT, Site.HIDDEN, Site.CELL_UPDATE}

    @property
    def bare(self) -> bool:
        """Whether nothing falls on the state at all."""
        return self.bits is not None and set(self.bits) <= {EXIT, Site.HIDDEN}

    def dead(self, shape: tuple[int, ...]) -> Array:
        """Where a unit's h has nothing in it of what comes in at the moment, `[N, T, B, n]`."""
        if self.bits is None:
            return np.full(shape, np.nan)
        dead = np.zeros(shape)
        for site, bits in self.bits.items():
            if site not in (EXIT, Site.HIDDEN, Site.CELL_UPDATE):
                dead = np.where(bits == 1.0, 1.0, np.where(np.isnan(bits), np.nan, dead))
        return dead


def explanations(cell: Cell, responses: Array, seen: Array, loud: float) -> list[Explanation]:
    """All that explains what was seen of a cell's units as well as anything simpler does.

    Args:
        cell: the cell.
        responses: `[N, T, B, n, T+1]`, see `View.response`.
        seen: where the recurrent weights see nothing of a unit (1), `[N, T, B, n]`.
        loud: what is kept of a large candidate is multiplied by; NaN if that is not known.
    """
    if not np.isfinite(responses).any():
        why = "nothing is seen of what it keeps from step to step"
        return [Explanation(None, why=why if cell.biases else f"{why}, without biases")]
    flat = _in_own_time(responses, cell.place[1])
    once = np.stack([flat[:, t, t] for t in range(STEPS)], axis=-1)
    at_once = kept_value(once)
    later = np.stack([flat[:, t + 1, t] for t in range(STEPS - 1)], axis=-1)
    grown = over(later, once[:, :-1]) / REMEMBERED
    # What stays as it was under zoneout looks as if it had grown.
    stays = np.abs(grown - 1.0 / REMEMBERED) <= 1e-2
    flat[..., :STEPS] /= at_once if np.isfinite(at_once) else 1.0
    explained: list[Events] = []
    for values in (grown[~stays], grown[stays], np.ones(1)):
        growth = kept_value(values)
        if np.isfinite(growth):
            explained = explain(cell.kind.gates, _leaving_whole(flat, growth), growth)
        if explained:
            break
    found = []
    for events in explained:
        shape = (len(responses), BATCH, responses.shape[3], STEPS)
        bits = {s: _in_order(b.reshape(shape), cell.place[1]) for s, b in events.bits.items()}
        name = _exit(cell, bits, seen)
        fits = name is not None and _grows(cell, events.sites, name, at_once, growth)
        squashed = _squashed(cell.kind.gates, events.sites, at_once, loud)
        if name is not None and fits and squashed:
            named = {site: name if site is EXIT else site for site in events.sites}
            found.append(
                Explanation(
                    {named[site]: b for site, b in bits.items()},
                    {named[site]: value for site, value in events.likely.items()},
                    at_once if np.isfinite(at_once) else 1.0,
                    growth,
                )
            )
    return found or [Explanation(None, why=FOREIGN)]


def _grows(
    cell: Cell, sites: Sequence[Site], exit_name: Site, at_once: float, growth: float
) -> bool:
    """Whether sites can multiply h at once, and a state from step to step, by what was seen."""
    if not np.isfinite(at_once):
        return True
    drops = {exit_name if site is EXIT else site for site in sites} - UPDATES - {Site.HIDDEN}
    if not drops:
        return abs(at_once - 1.0) < 3e-3
    lasting = drops <= {Site.CELL} or (drops <= {Site.STATE} and cell.kind.gates == 3)
    return not lasting or abs(at_once - growth) < 3e-3 * growth


def _squashed(gates: int, sites: Sequence[Site], at_once: float, loud: float) -> bool:
    """Whether sites can multiply what a large candidate becomes by what was seen: an LSTM's c,
    before it is squashed into h, or h."""
    before = set(sites) & {Site.CANDIDATE, Site.CELL} if gates == 4 else set()
    after = set(sites) - before - UPDATES
    if not np.isfinite(loud) or bool(before) == bool(after):
        return True
    wanted = np.tanh(at_once * 0.5 * LOUD) / np.tanh(0.5 * LOUD) if before else at_once
    return bool(abs(loud - wanted) < 1e-2 * wanted)


def _leaving_whole(responses: Array, growth: float) -> Array:
    """Responses without what an initial state is multiplied by on its way out of the cell."""
    first = kept_value(responses[:, 0, STEPS]) / (REMEMBERED * growth)
    if not np.isfinite(first):
        return responses
    return np.concatenate([responses[..., :STEPS], responses[..., STEPS:] / first], axis=-1)


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
    # Held masks say the same at every step.
    independent = max(int(out.sum()) / STEPS, 1.0)
    spread = 5.0 * np.sqrt(max(rate * (1.0 - rate), 1e-3) / independent)
    return EXIT if abs(without - rate) <= spread + 0.02 else None


def chosen(
    found: Mapping[Place, Sequence[Explanation]], agrees: Callable[[Expected], bool]
) -> dict[Place, Explanation]:
    """One explanation for each cell: where there are several, those that evaluation agrees with.

    Args:
        found: by cell.
        agrees: whether evaluation has the means that it is given.
    """
    if all(len(those) == 1 for those in found.values()):
        return {place: those[0] for place, those in found.items()}
    fitting = [one for one in islice(_combined(found), MOST) if agrees(_expected(one))]
    if len(fitting) == 1:
        return fitting[0]
    return {place: those[0] if len(those) == 1 else _alike(those) for place, those in found.items()}


def _combined(
    found: Mapping[Place, Sequence[Explanation]],
) -> Iterator[dict[Place, Explanation]]:
    for one in product(*found.values()):
        yield dict(zip(found, one, strict=True))


def _alike(those: Sequence[Explanation]) -> Explanation:
    sites = sorted({site for one in those for site in one.bits or ()}, key=lambda s: s.value)
    names = ", ".join(site.value for site in sites)
    return Explanation(None, why=f"{names} would do the same here", either=tuple(sites))


def _expected(one: Mapping[Place, Explanation]) -> Expected:
    """What evaluation puts in the masks' places, if it is their mean."""
    found = []
    for (layer, direction), explanation in one.items():
        for site, bits in (explanation.bits or {}).items():
            likely = explanation.likely[site]
            unscaled = max(explanation.at_once, explanation.growth) < 1.0 + 2e-3
            made = finding(site, layer, direction, bits, likely=likely)
            found.append(replace(made, scaled=not unscaled))
    return expected(found)
