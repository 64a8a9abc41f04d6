"""Finds the masks on a cell's hidden state, on its recurrent weights, and on its state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...policies.sites import WEIGHTS, Site
from .arrays import share_off_typical, typical_kept_value
from .cell_explanations import CellExplanation, explain_cell
from .feature_masks import hide_bits_without_input
from .findings import BEFORE_PROJECTION
from .network import Cell
from .observations import Observations
from .probe import Array
from .signals import STEPS
from .site_findings import INNER_SITES, MIXED_SHARE, SiteFindings
from .unit_model import CARRIED_SITES, UNIT_SITES

OUTER_SITES = {Site.EMBEDDING, Site.INPUT, Site.BETWEEN, Site.OUTPUT, Site.HIDDEN}
"""Sites whose masks show in the inputs of gates or in the output of a cell."""


def explain_observations(observations: Observations, cell: Cell) -> list[CellExplanation]:
    """Find the explanations of the measurements of a cell's state."""
    output_ratio = observations.stack(cell, "output_ratio")
    bits, features, *_ = observations.hidden_masks(cell)
    hidden_bits = np.full(output_ratio.shape, np.nan)
    visible = features < output_ratio.shape[-1]
    hidden_bits[..., features[visible]] = bits[..., visible]
    in_evaluation = observations.evaluation.large_candidate_response(cell)
    as_expected = bool((np.abs(in_evaluation - 1.0) < 1e-2).all())
    large_signal_scale = float("nan")
    if as_expected:
        large_signal_scale = typical_kept_value(observations.stack(cell, "large_signal_ratio"))
    responses = observations.stack(cell, "response")
    return explain_cell(cell, responses, hidden_bits, large_signal_scale)


def analyze_hidden(findings: SiteFindings, cell: Cell) -> None:
    """Find the masks on the hidden state that enters the gates, and on the recurrent weights."""
    observations, explanation = findings.observations, findings.explanations[cell.place]
    bits, features, entries, doubt = observations.hidden_masks(cell)
    output_ratio = observations.stack(cell, "output_ratio")
    lost = _current_input_lost(findings, cell, output_ratio.shape)
    for number, feature in enumerate(features):
        lost_here = lost[..., feature] if feature < lost.shape[-1] else np.nan
        bits[..., number] = np.where(lost_here == 0.0, bits[..., number], np.nan)
    input_weights = findings.by_site[Site.INPUT_WEIGHT, *cell.place]
    if input_weights.verdict != "whole":
        leaves = np.nan_to_num(output_ratio) != 0.0
        inside = features < leaves.shape[-1]
        visible = np.zeros(bits.shape, bool)
        visible[..., inside] = leaves[..., features[inside]]
        bits, missing_input = hide_bits_without_input(bits, visible)
        doubt = doubt or missing_input
    # The state of a simple cell passes only through the hidden state, so its response has the rate.
    likely_rate = explanation.likely_rates.get(Site.HIDDEN)
    sites = (Site.HIDDEN, Site.RECURRENT_WEIGHT)
    findings.add_gate_inputs(cell, sites, bits, entries, doubt, likely_rate)
    key = (Site.HIDDEN, *cell.place)
    unsure = input_weights.verdict == "masked" and explanation.may_keep_old_values
    if unsure and findings.by_site[key].verdict == "masked":
        note = "of units that keep their value, and do not see all of their input"
        findings.add_undecided(key, note)
    parts = [(site, *cell.place) for site in (*INNER_SITES, *sites)]
    findings.note_scale(observations.stack(cell, "hidden_ratio"), parts, False, 1.0)


def _current_input_lost(findings: SiteFindings, cell: Cell, shape: tuple[int, ...]) -> Array:
    """Find where h has nothing of the current step's input.

    Without biases this is unknown. Then only the inputs and outputs of cells are known.
    """
    if not findings.observations.shows_response(cell):
        return np.zeros(shape)
    return findings.explanations[cell.place].current_input_lost(shape)


def analyze_state(findings: SiteFindings, cell: Cell) -> None:
    """Find the masks on a cell's state, on its updates, and on the output of the last layer."""
    observations, explanation = findings.observations, findings.explanations[cell.place]
    network = observations.network
    responses = observations.stack(cell, "response")
    sites = [s for s in Site if s in cell.kind.sites and s not in OUTER_SITES | WEIGHTS]
    if cell.layer == network.layers - 1:
        sites.append(Site.OUTPUT)
    for site in sites:
        key = (site, *cell.place)
        possible = explanation.possible_sites
        if explanation.bits is None and (not possible or site in possible):
            findings.add_undecided(key, explanation.reason)
        elif explanation.bits is not None and site in explanation.bits:
            rate = explanation.likely_rates[site]
            findings.add(key, explanation.bits[site], likely_rate=rate)
        else:
            units = int(np.isfinite(responses).any(axis=(1, 4)).sum())
            findings.add(key, np.zeros((1, 1, 1, units * STEPS)))
    if explanation.bits is None:
        return
    if set(explanation.bits) == {Site.STATE}:
        _note_projection(findings, cell)
    leaving = [(Site.OUTPUT, *cell.place)]
    if upper := network.cells_above(cell)[:1]:
        leaving = [(site, *upper[0].place) for site in (Site.BETWEEN, Site.INPUT_WEIGHT)]
    inside = [(site, *cell.place) for site in INNER_SITES]
    findings.scale_products.append((explanation.output_scale, inside + leaving))
    carried = [site for site in CARRIED_SITES if site in UNIT_SITES[cell.kind.gates]]
    # A simple cell remembers through its recurrent weights.
    carried += [Site.RECURRENT_WEIGHT] * (cell.kind.gates == 1)
    keys = [(site, *cell.place) for site in carried]
    findings.scale_products.append((explanation.state_scale, keys))


def _note_projection(findings: SiteFindings, cell: Cell) -> None:
    """Note masks on h that fall before its projection."""
    if share_off_typical(findings.observations.stack_projections(cell)) > MIXED_SHARE:
        key = (Site.STATE, *cell.place)
        findings.by_site[key] = replace(findings.by_site[key], note=BEFORE_PROJECTION)
