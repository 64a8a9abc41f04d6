"""What many draws of noise say of every site."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...policies.rules import Gates
from ...policies.sites import WEIGHTS, Site
from .events import LASTING, SITES
from .evidence import (
    ALIKE,
    MORE,
    PROJECTED,
    TORN,
    UNEQUAL,
    VECTORS,
    Finding,
    Told,
    finding,
    kept_value,
    off_commonest,
    told,
    without_doubtful,
    without_unfed,
)
from .network import Cell, Network, Place
from .probe import Array
from .resting import Expected, agrees, expected
from .scales import Key, with_scales
from .signals import STEPS
from .ties import gates_tied, with_ties
from .units import Explanation, chosen, explanations
from .views import View, Viewer

EMBEDDED: Key = (Site.EMBEDDING, -1, 0)
"""Where the finding of an embedding stands."""

INSIDE = (Site.CANDIDATE, Site.CELL, Site.STATE)
"""Sites within a cell whose masks are on h already when it leaves."""

MIXED = 0.25
"""How much of what one number multiplies may be seen as other than the commonest, where something
falls below."""

SCATTERED = 0.7
"""How much of it may be so before noise must fall: of what is masked below, hardly any is off, and
under noise, nearly all."""

CROWDED, BLIND = 0.03, 0.3
"""How often everything that comes in may be dropped, while it may not have come in at all, before
scales cannot be told, and before rates cannot."""

AROUND = {Site.EMBEDDING, Site.INPUT, Site.BETWEEN, Site.OUTPUT, Site.HIDDEN}
"""Sites that are seen by what goes into gates, and out of a cell."""


class Measured(NamedTuple):
    """What was measured.

    Args:
        network: the module.
        findings: for every site of every cell, in order.
        evaluation: what evaluation does.
        notes: which sites have one mask in common.
        torn: whether masks were seen of which it cannot be told where they fall.
    """

    network: Network
    findings: list[Finding]
    evaluation: str
    notes: list[str]
    torn: bool


class Reading:
    """All that was seen, and what it says.

    Args:
        network: the module.
        draws: what was seen in each draw of noise.
        gates: what the gates were seen to see, in some of them.
        projected: what was seen to leave projections that make a mean, in some of them.
        rests: looks at evaluation.
        words: where tokens come in, what arrived of them in further draws, `[T, B]` each.
        as_one: whether what leaves the last layer is missing everywhere where it is missing.
    """

    def __init__(
        self,
        network: Network,
        draws: list[dict[Place, View]],
        gates: list[dict[Place, dict[Site, Array]]],
        projected: list[dict[Place, Array]],
        rests: Viewer,
        words: list[Array] | None,
        as_one: bool,
    ) -> None:
        self.network, self.draws, self.gates, self.projected = network, draws, gates, projected
        self.rests, self.words = rests, words
        self.forgets = rests.forgets
        self.resting = {cell.place: rests.remembered(cell) for cell in network.cells.values()}
        self.findings: dict[Key, Finding] = {}
        self.bits: dict[Key, Array] = {}
        self.scales: list[tuple[float, list[Key]]] = []
        self.crowded: set[Key] = set()
        found = {cell.place: self._explanations(cell) for cell in network.cells.values()}
        self.units = chosen(found, self._all_agree)
        for layer in range(network.layers):
            for cell in network.layer(layer):
                self._entry(cell)
                self._hidden(cell)
                self._state(cell)
        if not as_one:
            self._behind()
        self.findings, self.ties = with_ties(self.findings, self.bits)
        self._scale()

    @property
    def keeps_back(self) -> bool:
        """Whether units keep what was before, or do what is not understood: then signals have to
        come in one at a time."""
        return any(one.keeps_back for one in self.units.values())

    def measured(self) -> Measured:
        order = sorted(self.findings.values(), key=_order)
        torn = any(one.either for one in self.units.values()) or any(f.note == TORN for f in order)
        return Measured(self.network, order, self._evaluation(), self.ties, torn)

    def _all(self, cell: Cell, name: str) -> Array:
        return np.stack([getattr(draw[cell.place], name) for draw in self.draws])

    def _add(self, cell: Cell, site: Site, bits: Array, **more: Any) -> None:
        key = (site, *cell.place)
        self.findings[key] = finding(*key, bits, **more)
        self.bits[key] = bits

    # What comes into a cell

    def _entry(self, cell: Cell) -> None:
        layer = cell.place[0]
        site = Site.INPUT if layer == 0 else Site.BETWEEN
        values, columns = self._all(cell, "entry"), self.draws[0][cell.place].entry_columns
        bits, features, entries, why = told(values, columns)
        below = self.network.layer(layer - 1) if layer else []
        if below:
            known = [np.isfinite(self._all(lower, "fed")) for lower in below]
            bits = without_doubtful(bits, np.logical_and.reduce(known))
        for lower in below:
            if self.units[lower.place].whole or not self._sees_units(lower):
                continue
            # What the recurrent weights see of h is there, whatever becomes of it above.
            first, (unseen, units, *_) = self.network.offset(lower), self._seen(lower)
            for number, feature in enumerate(features):
                at = np.flatnonzero(units == feature - first)
                if first <= feature < first + lower.width:
                    there = unseen[..., at[0]] == 0.0 if len(at) else False
                    bits[..., number] = np.where(there, bits[..., number], np.nan)
        if layer == 0 and self.words is not None:
            self._embedding(cell, self.words)
            # A dropped word says nothing of the masks of its features.
            bits[self._all(cell, "fed") == 0.0] = np.nan
        self._into(cell, site, Site.INPUT_WEIGHT, bits, entries, why)
        parts = [(site, *cell.place), (Site.INPUT_WEIGHT, *cell.place)]
        parts += [] if layer else [EMBEDDED]
        if layer == 0 and self.words is not None and self.findings[EMBEDDED].note == VECTORS:
            self._as_one(parts[0])
        for lower in below:
            parts += [(inner, *lower.place) for inner in INSIDE]
        noisy_below = any(f.verdict != "whole" for f in self.findings.values() if f.layer < layer)
        self._keeps(values, parts, not noisy_below, SCATTERED if noisy_below else 0.0)
        if noisy_below:
            self._count_features(parts[0], len(features))

    def _as_one(self, key: Key) -> None:
        """Say of what comes in, and is gone as one, only that it is not whole."""
        if self.findings[key].verdict == "whole":
            self.findings[key] = replace(self.findings[key], verdict="undecided", note=VECTORS)

    def _count_features(self, key: Key, features: int) -> None:
        """Say nothing of what few features do not tell: whether they fell, or never came in."""
        rate = self.findings[key].rate
        if rate**features > CROWDED:
            self.crowded.add(key)
        if rate**features > BLIND:
            why = f"{features} features are too few to tell so high a rate"
            self.findings[key] = replace(self.findings[key], verdict="undecided", note=why)

    def _into(
        self,
        cell: Cell,
        site: Site,
        weight: Site,
        bits: Array,
        entries: Array | None,
        why: str,
        likely: tuple[float, float] | None = None,
    ) -> None:
        """What goes into the gates, and the weights through which it does; `why` says why that
        cannot be told."""
        if why:
            for key in ((site, *cell.place), (weight, *cell.place)):
                self.findings[key] = Finding(*key, "undecided", note=why)
            return
        if entries is None:
            entries = np.zeros((1, 1, 1, int(np.isfinite(bits).any(axis=(1, 2)).sum())))
        gates, equal = self._tied(cell, site)
        dropped = bool((entries == 1.0).any())
        # What single weights drop, each gate misses by itself.
        tied = None if dropped and gates == "untied" else gates
        likely = None if dropped else likely
        self._add(cell, site, bits, gates=tied, likely=likely, in_part=dropped)
        self._add(cell, weight, entries, per="call")
        if dropped and gates == "tied" and cell.kind.gates > 1:
            key = (weight, *cell.place)
            self.findings[key] = replace(self.findings[key], note=ALIKE)
        for key in () if equal else ((site, *cell.place), (weight, *cell.place)):
            self.findings[key] = replace(self.findings[key], verdict="undecided", note=UNEQUAL)

    def _tied(self, cell: Cell, site: Site) -> tuple[Gates | None, bool]:
        """Whether a mask is one for all gates, as far as they can be seen one by one; and whether
        they see as much of what comes in, or some more than the candidate, or less."""
        if cell.kind.gates == 1:
            return "tied", True
        seen = [draw[cell.place][site] for draw in self.gates if site in draw[cell.place]]
        # What falls on the state hides some gates' part in it.
        shows = site is not Site.HIDDEN or self.units[cell.place].bare
        return gates_tied(seen, shows)

    def _embedding(self, cell: Cell, words: list[Array]) -> None:
        """Word types that are dropped: nothing comes in at any step where one is."""
        fed = np.concatenate([self._all(cell, "fed"), *(each[None] for each in words)])[..., None]
        width = len(np.unique(self.draws[0][cell.place].entry_columns))
        if not (fed == 0.0).any():  # a word is gone for a call, or is not
            fed = np.where(np.isfinite(fed).any(axis=(1, 2), keepdims=True), 1.0, np.nan)
        found = finding(*EMBEDDED, 1.0 - fed)
        why = ""
        if found.verdict == "masked" and width < 8:
            why = f"{width} features are too few to tell a word's dropout from that of its features"
        elif found.per == "step":
            why = VECTORS
        self.findings[EMBEDDED] = replace(found, verdict="undecided", note=why) if why else found

    # What becomes of h

    def _seen(self, cell: Cell) -> Told:
        """What the recurrent weights do not see of h (1), and of which units."""
        seen = told(self._all(cell, "hidden"), self.draws[0][cell.place].hidden_columns)
        fed = np.isfinite(self._all(cell, "fed"))
        return seen._replace(bits=without_doubtful(seen.bits, fed))

    def _explanations(self, cell: Cell) -> list[Explanation]:
        exits, (bits, features, *_) = self._all(cell, "exits"), self._seen(cell)
        seen = np.full(exits.shape, np.nan)
        inside = features < exits.shape[-1]
        seen[..., features[inside]] = bits[..., inside]
        rest = self.rests.loud(cell)
        known = bool((np.abs(rest - 1.0) < 1e-2).all())  # as of a cell without noise
        loud = kept_value(self._all(cell, "loud")) if known else float("nan")
        return explanations(cell, self._all(cell, "response"), seen, loud)

    def _hidden(self, cell: Cell) -> None:
        bits, features, entries, why = self._seen(cell)
        dead = self._dead(cell)
        for number, feature in enumerate(features):
            known = dead[..., feature] if feature < dead.shape[-1] else np.nan
            bits[..., number] = np.where(known == 0.0, bits[..., number], np.nan)
        incoming = self.findings[Site.INPUT_WEIGHT, *cell.place]
        if incoming.verdict != "whole":
            leaves = np.nan_to_num(self._all(cell, "exits")) != 0.0
            inside = features < leaves.shape[-1]
            seen = np.zeros(bits.shape, bool)
            seen[..., inside] = leaves[..., features[inside]]
            bits, doubt = without_unfed(bits, seen)
            why = why or doubt
        # A simple cell's state goes by the hidden state alone, and what can be told by the mask.
        likely = self.units[cell.place].likely.get(Site.HIDDEN)
        self._into(cell, Site.HIDDEN, Site.RECURRENT_WEIGHT, bits, entries, why, likely)
        key = (Site.HIDDEN, *cell.place)
        unsure = incoming.verdict == "masked" and self.units[cell.place].keeps_back
        if unsure and self.findings[key].verdict == "masked":
            why = "of units that keep what was before, and do not see all that comes in"
            self.findings[key] = Finding(*key, "undecided", note=why)
        parts = (*INSIDE, Site.HIDDEN, Site.RECURRENT_WEIGHT)
        keys = [(site, *cell.place) for site in parts]
        self._keeps(self._all(cell, "hidden"), keys, False, 1.0)

    def _dead(self, cell: Cell) -> Array:
        """Where there is nothing of the moment in h; without biases that is not known, and only
        what goes into and out of cells is."""
        shape = self._all(cell, "exits").shape
        one = self.units[cell.place]
        return one.dead(shape) if self._sees_units(cell) else np.zeros(shape)

    def _sees_units(self, cell: Cell) -> bool:
        return bool(np.isfinite(self._all(cell, "response")).any())

    def _state(self, cell: Cell) -> None:
        one, responses = self.units[cell.place], self._all(cell, "response")
        inner = [s for s in Site if s in cell.kind.sites and s not in AROUND | WEIGHTS]
        if cell.place[0] == self.network.layers - 1:
            inner.append(Site.OUTPUT)
        for site in inner:
            if one.bits is None and (not one.either or site in one.either):
                key = (site, *cell.place)
                self.findings[key] = Finding(*key, "undecided", note=one.why)
            elif one.bits is not None and site in one.bits:
                self._add(cell, site, one.bits[site], likely=one.likely[site])
            else:
                units = int(np.isfinite(responses).any(axis=(1, 4)).sum())
                self._add(cell, site, np.zeros((1, 1, 1, units * STEPS)))
        if one.bits is None:
            return
        if set(one.bits) == {Site.STATE}:
            self._projection(cell)
        last = [(Site.OUTPUT, *cell.place)]
        if upper := self.network.above(cell)[:1]:
            last = [(site, *upper[0].place) for site in (Site.BETWEEN, Site.INPUT_WEIGHT)]
        inside = [(site, *cell.place) for site in INSIDE]
        self.scales.append((one.at_once, inside + last))
        lasting = [site for site in LASTING if site in SITES[cell.kind.gates]]
        # What makes a simple cell remember goes through its recurrent weights.
        lasting += [Site.RECURRENT_WEIGHT] * (cell.kind.gates == 1)
        self.scales.append((one.growth, [(site, *cell.place) for site in lasting]))

    def _projection(self, cell: Cell) -> None:
        """Note where what falls on h does so before it is projected."""
        leaving = np.stack([each[cell.place] for each in self.projected])
        if off_commonest(leaving) > MIXED:
            key = (Site.STATE, *cell.place)
            self.findings[key] = replace(self.findings[key], note=PROJECTED)

    def _keeps(self, values: Array, parts: list[Key], certain: bool, most: float) -> None:
        """Note what is kept is multiplied by, if it is one number.

        Args:
            values: what was seen of it.
            parts: the sites that have a part in it.
            certain: whether nothing falls below, so that what is seen is just that; else some of it
                is off for what is missing of the signal.
            most: the share of it that may be off before noise must fall at the first of the sites.
        """
        off = off_commonest(values)
        if off <= (0.0 if certain else MIXED):
            self.scales.append((kept_value(values), parts))
        elif off > most:
            found = self.findings[parts[0]]
            # Where nothing is missing, it is not whole all the same.
            verdict = "undecided" if found.verdict == "whole" else found.verdict
            self.findings[parts[0]] = replace(found, verdict=verdict, note=found.note or MORE)

    def _behind(self) -> None:
        """Say nothing of what leaves the last layer, where something may fall behind it."""
        why = "it cannot be told from what falls behind it, on what comes after the last layer"
        for cell in self.network.layer(self.network.layers - 1):
            key = (Site.OUTPUT, *cell.place)
            self.findings[key] = Finding(*key, "undecided", note=why)

    def _scale(self) -> None:
        """Say whether what is kept is scaled; without biases nobody knows how large it was."""
        drops = {
            key: found
            for key, found in self.findings.items()
            if found.verdict == "masked" and found.kind == "drop"
        }
        if self.forgets:
            unknown = self.crowded | {
                key for key, found in self.findings.items() if found.verdict == "undecided"
            }
            known = [row for row in self.scales if not unknown & set(row[1])]
            self.findings |= with_scales(drops, known)

    def _all_agree(self, wanted: Expected) -> bool:
        return all(self._agrees(cell, wanted) for cell in self.network.cells.values())

    def _agrees(self, cell: Cell, wanted: Expected) -> bool:
        seen = self.resting[cell.place].copy()
        seen[..., :STEPS] /= self.rests.below(cell)
        return agrees(self.network, cell, seen, wanted, self.forgets)

    # What holds for the whole

    def _evaluation(self) -> str:
        hidden = {place: view.hidden for place, view in self.rests.look().items()}
        shares = {p: np.unique(np.round(h[np.isfinite(h)], 3)) for p, h in hidden.items()}
        even = all(np.abs(values - 1.0).max(initial=0.0) < 3e-3 for values in shares.values())
        if even and self._all_agree(Expected({})):
            return "identity"
        if any(f.verdict == "undecided" for f in self.findings.values()):
            return "undecided"
        found = list(self.findings.values())
        # What is scaled in training has no mean to put in its place.
        unscaled = [f for f in found if f.verdict == "masked" and f.scaled is not True]
        if unscaled and self._all_agree(expected(found)):
            return "mean of the masks"
        # Without biases nobody can see whether code adds something to the gates.
        if not self.forgets:
            return "undecided"
        return "neither the identity nor the mean of the masks"


def _order(found: Finding) -> tuple[int, int, int]:
    return (found.layer, found.direction, found.site.number)
