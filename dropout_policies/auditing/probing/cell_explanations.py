"""Finds out which masks fall on the state of a cell's units, from their responses.

`unit_explanations` proposes sets of sites. A set is kept if it also agrees with what the recurrent
weights see of h, with the scale of what is kept, and with a large signal. If several sets remain,
evaluation may tell which one is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

import numpy as np

from ...policies.sites import UPDATES, Site
from .arrays import safe_divide, typical_kept_value
from .evaluation import ExpectedMeans, expected_means
from .findings import UNEXPLAINED_STATE
from .mask_summary import summarize_mask
from .network import Cell, Place
from .probe import Array
from .signals import BATCH, LARGE_CANDIDATE, STEPS
from .unit_explanations import UnitExplanation, explain_units
from .unit_model import EXIT, KEPT_SHARE, UNIT_SITES

MAX_COMBINATIONS = 100
"""The largest number of combinations of explanations that are compared with evaluation."""


@dataclass(frozen=True)
class CellExplanation:
    """The masks on the state of a cell's units.

    Args:
        bits: the bits by site, `[N, T, B, n]`: 1 dropped, 0 not, NaN undecided. None if nothing
            explains the measurements.
        likely_rates: by site, the likeliest rate, and the number of elements that it rests on.
        output_scale: the factor of a kept h on its way out of the cell.
        state_scale: the factor of a kept state from step to step.
        reason: why nothing explains the measurements.
        possible_sites: the possible sites, if several explain the measurements equally well.
    """

    bits: Mapping[Site, Array] | None
    likely_rates: Mapping[Site, tuple[float, float]] = field(default_factory=dict)
    output_scale: float = 1.0
    state_scale: float = 1.0
    reason: str = ""
    possible_sites: tuple[Site, ...] = ()

    @property
    def keeps_old_values(self) -> bool:
        """Whether units keep an old value for a step, as under zoneout."""
        return self.bits is not None and bool(UPDATES & set(self.bits))

    @property
    def may_keep_old_values(self) -> bool:
        """Whether units keep an old value for a step, or may do so."""
        return self.bits is None or self.keeps_old_values

    @property
    def masks_hidden_inside(self) -> bool:
        """Whether masks within the cell may fall on h before it leaves."""
        outside = {EXIT, Site.HIDDEN, Site.CELL_UPDATE}
        return self.bits is None or bool(set(self.bits) - outside)

    @property
    def masks_state(self) -> bool:
        """Whether masks may fall on the state or on what is added to it."""
        return self.bits is None or not set(self.bits) <= {EXIT, Site.HIDDEN}

    def current_input_lost(self, shape: tuple[int, ...]) -> Array:
        """Find where a unit's h has nothing of the current step's input, `[N, T, B, n]`.

        An entry is 1 or 0, or NaN if this cannot be told.
        """
        if self.bits is None:
            return np.full(shape, np.nan)
        lost = np.zeros(shape)
        for site, bits in self.bits.items():
            if site not in (EXIT, Site.HIDDEN, Site.CELL_UPDATE):
                lost = np.where(bits == 1.0, 1.0, np.where(np.isnan(bits), np.nan, lost))
        return lost


def explain_cell(
    cell: Cell, responses: Array, hidden_bits: Array, large_signal_scale: float
) -> list[CellExplanation]:
    """Find all explanations of a cell's responses that are as good as any simpler one.

    Args:
        cell: the cell.
        responses: the responses, `[N, T, B, n, T+1]`. See `CellObservation.response`.
        hidden_bits: 1 where the recurrent weights see nothing of a unit, `[N, T, B, n]`.
        large_signal_scale: the factor of a kept large candidate. NaN if unknown.
    """
    if not np.isfinite(responses).any():
        reason = "nothing is seen of what it keeps from step to step"
        reason += "" if cell.biases else ", without biases"
        return [CellExplanation(None, reason=reason)]
    units = _flatten_in_cell_order(responses, cell.is_backward)
    at_once = np.stack([units[:, t, t] for t in range(STEPS)], axis=-1)
    output_scale = typical_kept_value(at_once)
    one_later = np.stack([units[:, t + 1, t] for t in range(STEPS - 1)], axis=-1)
    growth = safe_divide(one_later, at_once[:, :-1]) / KEPT_SHARE
    # Under zoneout, an old value that stays looks as if it had grown.
    stays = np.abs(growth - 1.0 / KEPT_SHARE) <= 1e-2
    units[..., :STEPS] /= output_scale if np.isfinite(output_scale) else 1.0
    explained: list[UnitExplanation] = []
    for values in (growth[~stays], growth[stays], np.ones(1)):
        state_scale = typical_kept_value(values)
        if np.isfinite(state_scale):
            rescaled = _undo_output_scale(units, state_scale)
            explained = explain_units(cell.kind.gates, rescaled, state_scale)
        if explained:
            break
    found = []
    for unit in explained:
        shape = (len(responses), BATCH, responses.shape[3], STEPS)
        bits = {
            site: _in_sequence_order(b.reshape(shape), cell.is_backward)
            for site, b in unit.bits.items()
        }
        exit_site = _resolve_exit_site(cell, bits, hidden_bits)
        if exit_site is None:
            continue
        scales_fit = _scales_fit(cell, unit.sites, exit_site, output_scale, state_scale)
        if scales_fit and _large_signal_fits(
            cell.kind.gates, unit.sites, output_scale, large_signal_scale
        ):
            named = {site: exit_site if site is EXIT else site for site in unit.sites}
            found.append(
                CellExplanation(
                    {named[site]: b for site, b in bits.items()},
                    {named[site]: rate for site, rate in unit.likely_rates.items()},
                    output_scale if np.isfinite(output_scale) else 1.0,
                    state_scale,
                )
            )
    return found or [CellExplanation(None, reason=UNEXPLAINED_STATE)]


def _scales_fit(
    cell: Cell, sites: Sequence[Site], exit_site: Site, output_scale: float, state_scale: float
) -> bool:
    """Whether masks at some sites can have both measured scales: at once, and from step to step."""
    if not np.isfinite(output_scale):
        return True
    drops = {exit_site if site is EXIT else site for site in sites} - UPDATES - {Site.HIDDEN}
    if not drops:
        return abs(output_scale - 1.0) < 3e-3
    carried_only = drops <= {Site.CELL} or (drops <= {Site.STATE} and cell.kind.gates == 3)
    return not carried_only or abs(output_scale - state_scale) < 3e-3 * state_scale


def _large_signal_fits(
    gates: int, sites: Sequence[Site], output_scale: float, large_signal_scale: float
) -> bool:
    """Whether masks at some sites can have the measured effect on a large candidate.

    Masks on an LSTM's c act before tanh squashes it into h. Masks on h act after that.
    """
    before_tanh = set(sites) & {Site.CANDIDATE, Site.CELL} if gates == 4 else set()
    after_tanh = set(sites) - before_tanh - UPDATES
    if not np.isfinite(large_signal_scale) or bool(before_tanh) == bool(after_tanh):
        return True
    expected = output_scale
    if before_tanh:
        h = np.tanh(output_scale * 0.5 * LARGE_CANDIDATE)
        expected = h / np.tanh(0.5 * LARGE_CANDIDATE)
    return bool(abs(large_signal_scale - expected) < 1e-2 * expected)


def _undo_output_scale(responses: Array, state_scale: float) -> Array:
    """Remove the scale of an initial state on its way out of the cell from responses."""
    scale = typical_kept_value(responses[:, 0, STEPS]) / (KEPT_SHARE * state_scale)
    if not np.isfinite(scale):
        return responses
    return np.concatenate([responses[..., :STEPS], responses[..., STEPS:] / scale], axis=-1)


def _flatten_in_cell_order(responses: Array, is_backward: bool) -> Array:
    """Reshape `[N, T, B, n, T+1]` to `[N*B*n, T, T+1]`, with steps in the cell's running order."""
    if is_backward:
        reversed_ = responses[:, ::-1]
        sources = [reversed_[..., STEPS - 1 :: -1], reversed_[..., STEPS:]]
        responses = np.concatenate(sources, axis=-1)
    return responses.transpose(0, 2, 3, 1, 4).reshape(-1, STEPS, STEPS + 1)


def _in_sequence_order(bits: Array, is_backward: bool) -> Array:
    """Reshape bits `[N, B, n, T]` in running order to `[N, T, B, n]` in the sequence's order."""
    bits = bits[..., ::-1] if is_backward else bits
    return bits.transpose(0, 3, 1, 2)


def _resolve_exit_site(cell: Cell, bits: Mapping[Site, Array], hidden_bits: Array) -> Site | None:
    """Decide which site a mask at `EXIT` is.

    It is the output if the recurrent weights still see h, and the state if they do not. None if
    what they see contradicts the explanation.
    """
    drops = [b for site, b in bits.items() if site not in UPDATES | {EXIT, Site.HIDDEN}]
    if any(((b == 1.0) & (hidden_bits == 0.0)).any() for b in drops):
        return None
    if EXIT not in bits or Site.STATE in UNIT_SITES[cell.kind.gates]:
        return EXIT
    exit_bits = bits[EXIT]
    known = np.isfinite(hidden_bits) & np.isfinite(exit_bits)
    dropped, kept = known & (exit_bits == 1.0), known & (exit_bits == 0.0)
    if not dropped.any() or not kept.any():
        return EXIT
    rate_where_dropped = float(hidden_bits[dropped].mean())
    rate_where_kept = float(hidden_bits[kept].mean())
    if rate_where_dropped == 1.0 and rate_where_kept < 1.0:
        return Site.STATE
    # Masks that are held are the same at every step.
    independent = max(int(dropped.sum()) / STEPS, 1.0)
    variance = max(rate_where_kept * (1.0 - rate_where_kept), 1e-3)
    spread = 5.0 * np.sqrt(variance / independent)
    return EXIT if abs(rate_where_dropped - rate_where_kept) <= spread + 0.02 else None


def choose_explanations(
    found: Mapping[Place, Sequence[CellExplanation]],
    evaluation_agrees: Callable[[ExpectedMeans], bool],
) -> dict[Place, CellExplanation]:
    """Choose one explanation for each cell. Of several, take the one that evaluation agrees with.

    Args:
        found: the explanations, by cell.
        evaluation_agrees: a function that tells whether evaluation has the means that it is given.
    """
    if all(len(explanations) == 1 for explanations in found.values()):
        return {place: explanations[0] for place, explanations in found.items()}
    combinations = (dict(zip(found, one, strict=True)) for one in product(*found.values()))
    fitting = [
        combination
        for combination in islice(combinations, MAX_COMBINATIONS)
        if evaluation_agrees(_expected_means(combination))
    ]
    if len(fitting) == 1:
        return fitting[0]
    return {
        place: explanations[0] if len(explanations) == 1 else _undecided_between(explanations)
        for place, explanations in found.items()
    }


def _undecided_between(explanations: Sequence[CellExplanation]) -> CellExplanation:
    sites = {site for one in explanations for site in one.bits or ()}
    ordered = sorted(sites, key=lambda site: site.value)
    names = ", ".join(site.value for site in ordered)
    reason = f"{names} would do the same here"
    return CellExplanation(None, reason=reason, possible_sites=tuple(ordered))


def _expected_means(explanations: Mapping[Place, CellExplanation]) -> ExpectedMeans:
    """Compute the means that evaluation should have if these explanations are right."""
    findings = []
    for place, explanation in explanations.items():
        for site, bits in (explanation.bits or {}).items():
            rate = explanation.likely_rates[site]
            is_scaled = not max(explanation.output_scale, explanation.state_scale) < 1.0 + 2e-3
            found = summarize_mask((site, *place), bits, likely_rate=rate)
            findings.append(replace(found, scaled=is_scaled))
    return expected_means(findings)
