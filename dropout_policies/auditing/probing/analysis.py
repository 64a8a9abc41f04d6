"""Combines all measurements into one finding for each site."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...policies.sites import Site
from .cell_explanations import CellExplanation, choose_explanations
from .cell_observer import observe_hidden_ratios
from .evaluation import ExpectedMeans, expected_means
from .findings import FEATURES_OR_WEIGHTS, Finding, SiteKey
from .input_analysis import analyze_input
from .network import Network, Place
from .observations import Observations
from .scaling import decide_scaling
from .shared_masks import merge_shared_masks
from .site_findings import SiteFindings
from .state_analysis import analyze_hidden, analyze_state, explain_observations


class Measurement(NamedTuple):
    """The result of measuring a module.

    Args:
        network: the module as a network.
        findings: the findings for every site of every cell, in order.
        evaluation: what evaluation computes.
        notes: sentences that name sites with a shared mask.
        is_ambiguous: whether there are masks whose site the audit cannot tell.
    """

    network: Network
    findings: list[Finding]
    evaluation: str
    notes: list[str]
    is_ambiguous: bool


class NoiseAnalysis:
    """Finds out from all observations where masks fall.

    Args:
        observations: the observations of the module.
    """

    def __init__(self, observations: Observations) -> None:
        self.observations = observations
        network = observations.network
        self.explanations = _explain_cells(observations)
        sites = SiteFindings(observations, self.explanations)
        for layer in range(network.layers):
            for cell in network.layer_cells(layer):
                analyze_input(sites, cell)
                analyze_hidden(sites, cell)
                analyze_state(sites, cell)
        if not observations.decoder_rows_agree:
            _withhold_output(sites)
        self.findings, self.notes = merge_shared_masks(sites.by_site, sites.bits)
        self._decide_scaling(sites)

    @property
    def needs_single_steps(self) -> bool:
        """Whether units may keep old values. Then signals must come in one step at a time."""
        return any(one.may_keep_old_values for one in self.explanations.values())

    @property
    def is_ambiguous(self) -> bool:
        """See `Measurement`."""
        return any(one.possible_sites for one in self.explanations.values()) or any(
            found.note == FEATURES_OR_WEIGHTS for found in self.findings.values()
        )

    @property
    def has_masks(self) -> bool:
        """Whether there are masks, even if the audit cannot tell where they fall."""
        return self.is_ambiguous or any(f.verdict == "masked" for f in self.findings.values())

    def measurement(self, evaluation: str) -> Measurement:
        """Make the result, with a description of evaluation."""
        findings = sorted(self.findings.values(), key=_order)
        network = self.observations.network
        return Measurement(network, findings, evaluation, self.notes, self.is_ambiguous)

    def _decide_scaling(self, sites: SiteFindings) -> None:
        """Decide whether what is kept is scaled. Without biases its size is unknown."""
        if not self.observations.forgets:
            return
        drops: dict[SiteKey, Finding] = {}
        unknown = set(sites.uncertain_scales)
        for key, found in self.findings.items():
            if found.verdict == "masked" and found.kind == "drop":
                drops[key] = found
            if found.verdict == "undecided":
                unknown.add(key)
        known = [row for row in sites.scale_products if not unknown & set(row[1])]
        self.findings |= decide_scaling(drops, known)

    def describe_evaluation(self) -> str:
        """Describe in words what evaluation computes."""
        observations = self.observations
        ratios = observe_hidden_ratios(observations.evaluation)
        hidden = [np.round(ratio[np.isfinite(ratio)], 3) for ratio in ratios]
        unchanged = all(np.abs(h - 1.0).max(initial=0.0) < 3e-3 for h in hidden)
        if unchanged and observations.evaluation_agrees(ExpectedMeans({})):
            return "identity"
        findings = list(self.findings.values())
        if any(f.verdict == "undecided" for f in findings):
            return "undecided"
        # A site that is scaled in training needs no mean in place of its mask.
        unscaled = [f for f in findings if f.verdict == "masked" and f.scaled is not True]
        if unscaled and observations.evaluation_agrees(expected_means(findings)):
            return "mean of the masks"
        # Without biases the audit cannot see whether code adds something to the gates.
        if not observations.forgets:
            return "undecided"
        return "neither the identity nor the mean of the masks"


def keeps_old_values(observations: Observations) -> bool:
    """Whether units of some cell keep old values, as under zoneout."""
    return any(one.keeps_old_values for one in _explain_cells(observations).values())


def _explain_cells(observations: Observations) -> dict[Place, CellExplanation]:
    """Find the explanation of the measurements of each cell's state."""
    possible = {
        place: explain_observations(observations, cell)
        for place, cell in observations.network.cells.items()
    }
    return choose_explanations(possible, observations.evaluation_agrees)


def _withhold_output(sites: SiteFindings) -> None:
    """Leave the output of the last layer undecided if something may be masked after it."""
    note = "it cannot be told from what falls behind it, on what comes after the last layer"
    for cell in sites.observations.network.last_layer:
        sites.add_undecided((Site.OUTPUT, *cell.place), note)


def _order(found: Finding) -> tuple[int, int, int]:
    return (found.layer, found.direction, found.site.number)
