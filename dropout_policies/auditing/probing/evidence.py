"""From many draws of masks to what can be said of them: rate, lifetime, and who shares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ...policies.rules import Gates, Kind, Lifetime
from ...policies.sites import UPDATES, Site
from .chance import behind_groups, clustered, differs, proportion, together, uneven
from .probe import Array
from .signals import Routes

Verdict = Literal["masked", "whole", "undecided"]

GONE = 5.0
"""Standard deviations by which features may be gone by the chance of their entries."""

SEEN = 3
"""How often an entry is to be seen in a call, before it counts among those of a feature that is
gone."""

MOSTLY = 0.5
"""The share of the units that are not seen at the output, of which h is missing, from which on that
may be a mask."""

FEWEST = 50
"""Elements to see before a connection is called whole."""

CERTAINLY = 5.0
"""Elements that must have been dropped, if it is only likely of each that it was."""

MORE = "what is kept is multiplied by more than one number"
"""What is said of a site where something falls that is no mask, or more than one."""

ALIKE = "one mask for the weights of all gates"
"""What is said of weights that are dropped for all gates alike."""

TORN = "features are gone for a call more often than by the chance of their weights"
"""What is said of weights that are dropped, and what goes into them, where it is not told apart."""

PROJECTED = "before the projection"
"""What is said of a mask on an h that is projected behind it."""

FOREIGN = "no site explains what is seen of the state"
"""What is said of a state that nothing explains."""

UNEQUAL = "some gates see more of it than others"
"""What is said where what goes into a cell is another for each of its gates, at other rates."""

VECTORS = "whole vectors go missing step by step"
"""What is said of what comes in, behind an embedding too, and is gone for all units at once."""

UNFED = "of units that may see nothing of what comes in"
"""What is said of a hidden state that may be missing because nothing came into its units."""

UNKNOWN = {MORE, FOREIGN, UNEQUAL, VECTORS}
"""What is said of noise that no policy has."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit found at one site of one layer in one direction.

    Args:
        site, layer, direction: where; layers from 0, direction 0 forward and 1 backward.
        verdict: whether masks fall here.
        rate: the share of elements that were dropped (zoneout: that stayed).
        interval: in which the rate lies, with 99% confidence.
        elements: how many independent elements were seen.
        per: how long a mask lives; `call` is one for all steps and samples.
        shared: whether all samples of a batch have one mask.
        alike: whether all units have one.
        gates: whether the gates have one mask.
        scaled: whether what is kept is divided by 1 − rate.
        frozen: whether every call has the same masks.
        note: what else there is to say.

    What cannot be told is None.
    """

    site: Site
    layer: int
    direction: int
    verdict: Verdict
    rate: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    elements: int = 0
    per: Lifetime | None = None
    shared: bool | None = None
    alike: bool | None = None
    gates: Gates | None = None
    scaled: bool | None = None
    frozen: bool | None = None
    note: str = ""

    @property
    def kind(self) -> Kind:
        return "zoneout" if self.site in UPDATES else "drop"

    def text(self) -> str:
        """In one line, without the place."""
        if self.verdict == "undecided":
            return f"undecided{f': {self.note}' if self.note else ''}"
        low, high = self.interval
        if self.verdict == "whole":
            return f"whole (rate below {high:.2g})"
        parts = [f"{self.kind} {self.rate:.3g} [{low:.3g}, {high:.3g}]"]
        parts.append(f"per {self.per}" if self.per else "lifetime undecided")
        parts += ["one mask for the batch"] if self.shared and self.per != "call" else []
        parts += ["one mask for all units"] if self.alike else []
        parts += ["untied gates"] if self.gates == "untied" else []
        parts += ["not scaled"] if self.scaled is False and self.kind == "drop" else []
        parts += ["the same at every call"] if self.frozen else []
        parts += [self.note] if self.note else []
        return ", ".join(parts)


def finding(
    site: Site,
    layer: int,
    direction: int,
    bits: Array,
    gates: Gates | None = None,
    per: Lifetime | None = None,
    likely: tuple[float, float] | None = None,
    in_part: bool = False,
) -> Finding:
    """What draws of a mask say.

    Args:
        site, layer, direction: where.
        bits: `[N, T, B, F]`: 1 where dropped, 0 where not, NaN where that could not be seen; of
            weights, which have one mask for a call, `[N, 1, R, n]`.
        gates: whether they share the mask.
        per: how long it lives, where that is known.
        likely: the rate, and on how many elements it rests, where that does not show in the bits
            alone.
        in_part: whether units that are dropped for all of a call are not seen to be.
    """
    seen = np.isfinite(bits)
    fell = likely is not None and likely[0] * likely[1] > CERTAINLY
    if not fell and not (bits == 1.0).any():
        number = int(seen.sum())
        if number < FEWEST:
            why = f"only {number} elements could be seen"
            return Finding(site, layer, direction, "undecided", elements=number, note=why)
        bound = (0.0, 1.0 - 0.01 ** (1.0 / number))
        return Finding(site, layer, direction, "whole", 0.0, bound, number)
    of_weights = per == "call"
    ways = [differs(bits, axis) for axis in range(4)]
    over_draws, over_steps, over_batch, over_units = ways
    # One of each that are the same is an element of its own.
    single = bits
    for axis, apart in reversed(list(enumerate(ways))):
        if apart is False:
            single = _first(single, axis)
    known = single[np.isfinite(single)]
    hits, count = float(known.sum()), float(len(known))
    if likely is not None:
        shared = bits.shape[2] if over_batch is False else 1
        shared *= bits.shape[3] if over_units is False else 1
        hits, count = likely[0] * likely[1] / shared, likely[1] / shared
    if likely is None:
        effect = together(single)
        hits, count = hits / effect, count / effect
    rate, interval = proportion(hits, count)
    if in_part:
        sizes = np.isfinite(single).sum(axis=(1, 2))
        size = float(sizes[sizes > 0].mean())
        rate, *bounds = (behind_groups(share, size) for share in (rate, *interval))
        interval = (bounds[0], bounds[1])
    if hits == count:
        return Finding(site, layer, direction, "undecided", note="nothing arrives from here")
    note = uneven(single) if likely is None else ""
    names = ("steps", "weights of a unit" if of_weights else "samples", "units")
    partly = "" if note else clustered(single, names)
    if of_weights:
        partly = partly or names[1] * (over_batch is False)
        over_batch = False
    if per is None and over_steps is not None and partly != "steps":
        if over_steps:
            per = "step"
        elif over_batch is not None:
            per = "sequence" if over_batch else "call"
    return Finding(
        site,
        layer,
        direction,
        "masked",
        rate,
        interval,
        round(count),
        per,
        None if over_batch is None else not over_batch,
        None if over_units is None or bits.shape[3] == 1 else not over_units,
        gates,
        None,
        None if over_draws is None else not over_draws,
        note or (f"{partly} are dropped together more often than by chance" if partly else ""),
    )


def _first(bits: Array, axis: int) -> Array:
    """The first of what was seen along an axis, which stays with length 1."""
    known = np.isfinite(bits)
    place = np.expand_dims(known.argmax(axis=axis), axis)
    return np.take_along_axis(bits, place, axis)


def by_feature(values: Array, columns: Routes) -> tuple[Array, Routes, bool]:
    """What several units see of a feature, put together.

    Args:
        values: `[..., R, n]`, what unit k sees on route r of feature `columns[r, k]`.
        columns: `[R, n]`.

    Returns:
        bits `[..., F]` (1 dropped, 0 not, NaN not seen) and the features `[F]` that they are of;
        and whether some units saw a feature that others did not see at the same time.
    """
    flat, order = values.reshape(*values.shape[:-2], -1), columns.ravel()
    features = np.unique(order)
    bits = np.full((*flat.shape[:-1], len(features)), np.nan)
    conflict = False
    for number, feature in enumerate(features):
        part = flat[..., order == feature]
        zero, there = (part == 0.0).any(axis=-1), (np.abs(part) > 0.0).any(axis=-1)
        conflict = conflict or bool((zero & there).any())
        bits[..., number] = np.where(there, 0.0, np.where(zero, 1.0, np.nan))
    return bits, features, conflict


def without_doubtful(bits: Array, fed: npt.NDArray[np.bool_]) -> Array:
    """Bits of which a mask is to be told.

    What is missing where nobody knows whether anything came in at all may be missing for that; it
    counts only if something is missing elsewhere too.

    Args:
        bits: `[N, T, B, F]`.
        fed: where that is known, `[N, T, B]`.
    """
    missing, known = bits == 1.0, fed[..., None]
    return bits if (missing & known).any() else np.where(missing, np.nan, bits)


def without_unfed(bits: Array, seen: npt.NDArray[np.bool_]) -> tuple[Array, str]:
    """Bits of the hidden state, where some units may see nothing of what comes in; and why nothing
    can be told of it, where these are too many, or "".

    Of a unit that is seen at the output, that is known. What is missing of others counts only if
    something is missing of those too.

    Args:
        bits: `[N, T, B, F]`.
        seen: which units are seen at the output, likewise.
    """
    missing = bits == 1.0
    if not missing.any() or (missing & seen).any():
        return bits, ""
    others = np.isfinite(bits) & ~seen
    doubt = UNFED if missing.sum() > MOSTLY * others.sum() else ""
    return np.where(missing, np.nan, bits), doubt


def kept_value(values: Array) -> float:
    """The commonest of what is there and not 0; NaN if nothing is."""
    there = values[np.isfinite(values) & (values != 0.0)]
    return float(np.median(there)) if len(there) else float("nan")


def off_commonest(values: Array) -> float:
    """The share of what is there and not 0 that is not the commonest of it; 0 if nothing is."""
    there = values[np.isfinite(values) & (values != 0.0)]
    return float((np.abs(there / kept_value(values) - 1.0) > 1e-2).mean()) if len(there) else 0.0


class Told(NamedTuple):
    """What units see of what comes in, as masks.

    Args:
        bits: of the features, `[N, T, B, F]`.
        features: which they are, `[F]`.
        entries: of single entries of the matrix, `[N, 1, R, n]`, where some are dropped.
        doubt: why it is no work of masks on features and on entries for a call, or "".
    """

    bits: Array
    features: Routes
    entries: Array | None
    doubt: str


def told(values: Array, columns: Routes) -> Told:
    """Masks on features, told from masks on the entries of the matrix that they go through.

    Args:
        values: `[N, T, B, R, n]`, over what there is without noise.
        columns: `[R, n]`, which feature it is.
    """
    bits, features, conflict = by_feature(values, columns)
    if not conflict:
        return Told(bits, features, None, "")
    entries, left = dropped_entries(values, columns)
    bits, _, conflict = by_feature(left, columns)
    why = "some units see what others do not, and not throughout a call" if conflict else ""
    if not why and _gone_together(values, entries, columns):
        why = TORN
    return Told(bits, features, entries, why)


def dropped_entries(values: Array, columns: Routes) -> tuple[Array, Array]:
    """Masks on the single entries of a matrix.

    Args:
        values: `[N, T, B, R, n]`, where some units see a feature that others do not.
        columns: `[R, n]`, which feature it is.

    Returns:
        bits of entries `[N, 1, R, n]`, and the values that go through those that are left.
    """
    alive, there = _alive(values), np.abs(values) > 0.0
    shown = np.zeros(alive.shape, int)
    for feature in np.unique(columns):
        of = columns == feature
        others = there[..., of].sum(axis=-1, keepdims=True) > there[..., of]
        shown[:, of] = (others & np.isfinite(values[..., of])).sum(axis=(1, 2))
    # Where no other unit sees a feature, it may be the feature that is dropped.
    known = shown > 0
    entries = np.where(known, np.where(alive, 0.0, 1.0), np.nan)  # [N, R, n]
    left = np.where(alive[:, None, None], values, np.nan)
    return entries[:, None], left


def _alive(values: Array) -> npt.NDArray[np.bool_]:
    """Which entries anything ever goes through, `[N, R, n]`."""
    there: npt.NDArray[np.bool_] = np.asarray((np.abs(values) > 0.0).any(axis=(1, 2)))
    return there


def _gone_together(values: Array, entries: Array, columns: Routes) -> bool:
    """Whether no unit sees a feature more often than if each entry were dropped by chance."""
    if not np.isfinite(entries).any():
        return False
    rate, alive = float(np.nanmean(entries)), _alive(values)
    seen = np.isfinite(values).sum(axis=(1, 2)) >= SEEN
    gone = expected = variance = 0.0
    for feature in np.unique(columns):
        of = columns == feature
        count = seen[:, of].sum(axis=-1)
        chance = np.where(count > 0, rate**count, 0.0)
        gone += float(((count > 0) & ~(alive[:, of] & seen[:, of]).any(axis=-1)).sum())
        expected += float(chance.sum())
        variance += float((chance * (1.0 - chance)).sum())
    return bool(gone > 1.0 + expected + GONE * np.sqrt(variance))
