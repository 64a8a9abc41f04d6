"""Collects the findings of an analysis, and the data that they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...policies.rules import Gates
from ...policies.sites import Site
from .arrays import share_off_typical, typical_kept_value
from .cell_explanations import CellExplanation
from .findings import SAME_FOR_ALL_GATES, SEVERAL_SCALES, UNEQUAL_GATES, Finding, SiteKey
from .mask_summary import summarize_mask
from .network import Cell, Place
from .observations import Observations
from .probe import Array
from .scaling import ScaleProduct
from .shared_masks import compare_gate_masks

EMBEDDING: SiteKey = (Site.EMBEDDING, -1, 0)
"""The key of an embedding's finding."""

INNER_SITES = (Site.CANDIDATE, Site.CELL, Site.STATE)
"""Sites within a cell whose masks already affect h when it leaves the cell."""

MIXED_SHARE = 0.25
"""The share of kept values that may be off the typical value if masks fall below."""


class SiteFindings:
    """The findings of an analysis in progress.

    Args:
        observations: the observations of the module.
        explanations: the explanation of each cell's state.

    Attributes:
        by_site: the findings.
        bits: the bits that the findings rest on.
        scale_products: the factors of kept values, each with the sites that contribute to it.
        uncertain_scales: the sites whose scale cannot be told.
    """

    def __init__(
        self, observations: Observations, explanations: Mapping[Place, CellExplanation]
    ) -> None:
        self.observations, self.explanations = observations, explanations
        self.by_site: dict[SiteKey, Finding] = {}
        self.bits: dict[SiteKey, Array] = {}
        self.scale_products: list[ScaleProduct] = []
        self.uncertain_scales: set[SiteKey] = set()

    def add(self, key: SiteKey, bits: Array, **details: Any) -> None:
        """Add the finding of a mask's bits. `details` are passed to `summarize_mask`."""
        self.by_site[key] = summarize_mask(key, bits, **details)
        self.bits[key] = bits

    def add_undecided(self, key: SiteKey, note: str) -> None:
        self.by_site[key] = Finding(*key, "undecided", note=note)

    def withdraw(self, key: SiteKey, note: str) -> None:
        """Make a finding undecided, with a note that says why."""
        self.by_site[key] = replace(self.by_site[key], verdict="undecided", note=note)

    def add_gate_inputs(
        self,
        cell: Cell,
        sites: tuple[Site, Site],
        bits: Array,
        entries: Array | None,
        doubt: str,
        likely_rate: tuple[float, float] | None = None,
    ) -> None:
        """Add the findings for the inputs of a cell's gates, and for the weights of these inputs.

        Args:
            cell: the cell.
            sites: the site of the features, and the site of the weights.
            bits: the bits of the features, `[N, T, B, F]`.
            entries: the bits of the weights, `[N, 1, R, n]`. None if none is dropped.
            doubt: why masks there cannot be told, or "".
            likely_rate: see `summarize_mask`.
        """
        features, weights = ((site, *cell.place) for site in sites)
        if doubt:
            self.add_undecided(features, doubt)
            self.add_undecided(weights, doubt)
            return
        if entries is None:
            entries = np.zeros((1, 1, 1, int(np.isfinite(bits).any(axis=(1, 2)).sum())))
        gates, equal = self._compare_gates(cell, sites[0])
        dropped = bool((entries == 1.0).any())
        # Each gate misses on its own what its own weights drop.
        known_gates = None if dropped and gates == "untied" else gates
        likely_rate = None if dropped else likely_rate
        self.add(
            features, bits, gates=known_gates, likely_rate=likely_rate, hides_whole_calls=dropped
        )
        self.add(weights, entries, per="call")
        if dropped and gates == "tied" and cell.kind.gates > 1:
            self.by_site[weights] = replace(self.by_site[weights], note=SAME_FOR_ALL_GATES)
        if not equal:
            self.withdraw(features, UNEQUAL_GATES)
            self.withdraw(weights, UNEQUAL_GATES)

    def _compare_gates(self, cell: Cell, site: Site) -> tuple[Gates | None, bool]:
        """Compare the gates' masks at a site. See `compare_gate_masks`."""
        if cell.kind.gates == 1:
            return "tied", True
        # Masks on the state hide the part of some gates in it.
        all_visible = site is not Site.HIDDEN or not self.explanations[cell.place].masks_state
        return compare_gate_masks(self.observations.gate_bits(cell, site), all_visible)

    def note_scale(
        self, values: Array, sites: Sequence[SiteKey], is_certain: bool, max_off_share: float
    ) -> None:
        """Note the factor of kept values, if it is a single number.

        Args:
            values: the measured values.
            sites: the sites that contribute to the factor.
            is_certain: whether no masks fall below. Otherwise some values are off because a part of
                the signal is missing.
            max_off_share: if the share of values that are off is higher, there must be noise at the
                first of the sites.
                first of the sites.
        """
        off_share = share_off_typical(values)
        if off_share <= (0.0 if is_certain else MIXED_SHARE):
            self.scale_products.append((typical_kept_value(values), sites))
        elif off_share > max_off_share:
            found = self.by_site[sites[0]]
            # There is noise even if nothing is missing.
            verdict = "undecided" if found.verdict == "whole" else found.verdict
            note = found.note or SEVERAL_SCALES
            self.by_site[sites[0]] = replace(found, verdict=verdict, note=note)
