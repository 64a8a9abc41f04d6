"""What an audit reports of one site: its verdict, and of a mask its rate and how long it lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...policies.rules import Gates, Kind, Lifetime
from ...policies.sites import UPDATES, Site

Verdict = Literal["masked", "whole", "undecided"]

SiteKey = tuple[Site, int, int]
"""A site of a layer in a direction."""

INTERVAL_WIDENING = 1.6
"""From a 99% interval to one of four standard deviations."""

SEVERAL_SCALES = "what is kept is multiplied by more than one number"
"""The note of a site with noise that is no mask, or with more than one mask."""

SAME_FOR_ALL_GATES = "one mask for the weights of all gates"
"""The note of weights that are dropped for all gates alike."""

FEATURES_OR_WEIGHTS = "features are gone for a call more often than by the chance of their weights"
"""The note of weights and their features, where the audit cannot tell which of them are dropped."""

BEFORE_PROJECTION = "before the projection"
"""The note of a mask on an h that is projected afterwards."""

UNEXPLAINED_STATE = "no site explains what is seen of the state"
"""The note of a state that no set of sites explains."""

UNEQUAL_GATES = "some gates see more of it than others"
"""The note of a site whose gates see it at different rates."""

WHOLE_VECTORS = "whole vectors go missing step by step"
"""The note of an input, after an embedding too, that is missing for all units at once."""

UNITS_WITHOUT_INPUT = "of units that may see nothing of what comes in"
"""The note of a hidden state that may be missing because its units had no input."""

UNKNOWN_NOISE = {SEVERAL_SCALES, UNEXPLAINED_STATE, UNEQUAL_GATES, WHOLE_VECTORS}
"""The notes of noise that no policy has."""


@dataclass(frozen=True, slots=True, repr=False)
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
        alike: whether all units have one mask.
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

    def __repr__(self) -> str:
        return f"<Finding at {site_name(self.site, self.layer, self.direction)}: {self.text()}>"


def site_name(site: Site, layer: int, direction: int) -> str:
    """A site with its layer and direction, in words."""
    if layer < 0:
        return site.value
    return f"{site.value} of layer {layer + 1}{' backward' * direction}"


def widened_interval(finding: Finding) -> tuple[float, float]:
    """Bounds of a rate that chance alone does not pass in any of many audits."""
    bounds = [
        finding.rate + INTERVAL_WIDENING * (bound - finding.rate) for bound in finding.interval
    ]
    return max(bounds[0], 0.0), min(bounds[1], 1.0)
