"""Finds the masks on a cell's input: on its features, on its weights, and on words before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...policies.sites import Site
from .feature_masks import hide_doubtful_bits, separate_masks
from .findings import WHOLE_VECTORS
from .mask_summary import summarize_mask
from .network import Cell
from .probe import Array
from .signals import Routes
from .site_findings import EMBEDDING, INNER_SITES, SiteFindings

NOISY_SHARE = 0.7
"""If masks fall below, there must be noise once more than this share of kept values is off the
typical value. Masks below move few values off it. Noise moves nearly all."""

CROWDED_CHANCE, BLIND_CHANCE = 0.03, 0.3
"""If the chance that all features are dropped at once is higher than this, the audit reports no
scale, or no rate either: perhaps nothing came in."""

MIN_WORD_FEATURES = 8
"""The number of features needed to tell a word's dropout from the dropout of its features."""


def analyze_input(findings: SiteFindings, cell: Cell) -> None:
    """Find the masks on a cell's input and on its input weights."""
    observations = findings.observations
    site = Site.INPUT if cell.layer == 0 else Site.BETWEEN
    key = (site, *cell.place)
    values = observations.stack(cell, "input_ratio")
    bits, features, entries, doubt = separate_masks(values, observations.input_columns(cell))
    below = observations.network.layer_cells(cell.layer - 1) if cell.layer else []
    if below:
        known = [np.isfinite(observations.stack(lower, "input_arrives")) for lower in below]
        bits = hide_doubtful_bits(bits, np.logical_and.reduce(known))
    for lower in below:
        _hide_bits_masked_below(findings, lower, bits, features)
    if cell.layer == 0 and observations.word_arrivals is not None:
        _analyze_embedding(findings, cell, observations.word_arrivals)
        # A dropped word says nothing of the masks of its features.
        bits[observations.stack(cell, "input_arrives") == 0.0] = np.nan
    findings.add_gate_inputs(cell, (site, Site.INPUT_WEIGHT), bits, entries, doubt)
    parts = [key, (Site.INPUT_WEIGHT, *cell.place)]
    parts += [] if cell.layer else [EMBEDDING]
    if cell.layer == 0 and observations.word_arrivals is not None:
        vectors_missing = findings.by_site[EMBEDDING].note == WHOLE_VECTORS
        if vectors_missing and findings.by_site[key].verdict == "whole":
            findings.withdraw(key, WHOLE_VECTORS)
    for lower in below:
        parts += [(inner, *lower.place) for inner in INNER_SITES]
    masked_below = any(
        f.verdict != "whole" for f in findings.by_site.values() if f.layer < cell.layer
    )
    findings.note_scale(values, parts, not masked_below, NOISY_SHARE if masked_below else 0.0)
    if not masked_below:
        return
    chance = findings.by_site[key].rate ** len(features)
    if chance > CROWDED_CHANCE:
        findings.uncertain_scales.add(key)
    if chance > BLIND_CHANCE:
        findings.withdraw(key, f"{len(features)} features are too few to measure so high a rate")


def _hide_bits_masked_below(
    findings: SiteFindings, lower: Cell, bits: Array, features: Routes
) -> None:
    """Hide in place the bits that a mask inside a lower cell may explain.

    If the lower cell's recurrent weights see a part of h, it is not masked inside that cell, and
    its bits stay.
    """
    observations = findings.observations
    masked_inside = findings.explanations[lower.place].masks_hidden_inside
    if not masked_inside or not observations.shows_response(lower):
        return
    first = observations.network.feature_offset(lower)
    hidden_bits, units, *_ = observations.hidden_masks(lower)
    for number, feature in enumerate(features):
        if first <= feature < first + lower.width:
            index = np.flatnonzero(units == feature - first)
            is_seen = hidden_bits[..., index[0]] == 0.0 if len(index) else False
            bits[..., number] = np.where(is_seen, bits[..., number], np.nan)


def _analyze_embedding(findings: SiteFindings, cell: Cell, word_arrivals: Sequence[Array]) -> None:
    """Find dropped word types. No step with such a word arrives."""
    observations = findings.observations
    in_draws = observations.stack(cell, "input_arrives")
    arrives = np.concatenate([in_draws, *(each[None] for each in word_arrivals)])[..., None]
    width = len(np.unique(observations.input_columns(cell)))
    if not (arrives == 0.0).any():  # a word is dropped for a whole call, or not at all
        arrives = np.where(np.isfinite(arrives).any(axis=(1, 2), keepdims=True), 1.0, np.nan)
    found = summarize_mask(EMBEDDING, 1.0 - arrives)
    doubt = ""
    if found.verdict == "masked" and width < MIN_WORD_FEATURES:
        doubt = f"{width} features are too few to tell a word's dropout from that of its features"
    elif found.per == "step":
        doubt = WHOLE_VECTORS
    findings.by_site[EMBEDDING] = (
        replace(found, verdict="undecided", note=doubt) if doubt else found
    )
