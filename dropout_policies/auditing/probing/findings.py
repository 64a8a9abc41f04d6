"""The finding of an audit at one site: its verdict, and a mask's rate and lifetime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...policies.rules import Gates, Kind, Lifetime
from ...policies.sites import UPDATES, Site

Verdict = Literal["masked", "whole", "undecided"]

SiteKey = tuple[Site, int, int]
"""A site, with its layer and direction."""

INTERVAL_WIDENING = 1.6
"""The factor from a 99% interval to one of four standard deviations."""

SEVERAL_SCALES = "what is kept is multiplied by more than one number"
"""The note for a site with noise that is not a mask, or with more than one mask."""

SAME_FOR_ALL_GATES = "one mask for the weights of all gates"
"""The note for weights that are dropped for all gates alike."""

FEATURES_OR_WEIGHTS = "features are gone for a call more often than by the chance of their weights"
"""The note if the audit cannot tell whether weights or their features are dropped."""

BEFORE_PROJECTION = "before the projection"
"""The note for a mask on an h that is projected afterwards."""

UNEXPLAINED_STATE = "no site explains what is seen of the state"
"""The note for a state that no set of sites explains."""

UNEQUAL_GATES = "some gates see more of it than others"
"""The note for a site that gates see at different rates."""

WHOLE_VECTORS = "whole vectors go missing step by step"
"""The note for an input, also after an embedding, that is missing for all units at once."""

UNITS_WITHOUT_INPUT = "of units that may see nothing of their input"
"""The note for a hidden state that may be missing because its units had no input."""

UNKNOWN_NOISE = {SEVERAL_SCALES, UNEXPLAINED_STATE, UNEQUAL_GATES, WHOLE_VECTORS}
"""The notes for noise that no policy has."""


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """The finding of an audit at one site of one layer in one direction.

    Args:
        site, layer, direction: the place. Layers count from 0. Direction 0 is forward, 1 backward.
        verdict: whether masks fall here.
        rate: the share of elements that were dropped (for zoneout: that stayed).
        interval: the 99% confidence interval of the rate.
        elements: the number of independent elements that were seen.
        per: how long a mask lives. `call` means one mask for all steps and samples.
        shared: whether all samples of a batch share one mask.
        alike: whether all units share one mask.
        gates: whether the gates share one mask.
        scaled: whether what is kept is divided by 1 − rate.
        frozen: whether every call has the same masks.
        note: a further remark.

    None means that the audit cannot tell.
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
        """Describe the finding in one line, without the place."""
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
    """Name a site with its layer and direction, in words."""
    if layer < 0:
        return site.value
    return f"{site.value} of layer {layer + 1}{' backward' * direction}"


def widened_interval(finding: Finding) -> tuple[float, float]:
    """Widen the interval of a rate, so that chance alone leaves it in none of many audits."""
    bounds = [
        finding.rate + INTERVAL_WIDENING * (bound - finding.rate) for bound in finding.interval
    ]
    return max(bounds[0], 0.0), min(bounds[1], 1.0)
