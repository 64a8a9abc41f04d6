"""What evaluation computes: the identity, or the mean of each mask in place of the mask.

The audit predicts the signals in the network if certain means replace the masks. It compares the
prediction with its measurement in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...policies.sites import UPDATES, WEIGHTS, Site
from .findings import Finding, widened_interval
from .network import Cell, Network, Place
from .probe import Array
from .signals import STEPS
from .unit_model import KEPT_SHARE, run_unit

MaskMeans = Mapping[Place, Mapping[Site, float]]
"""The mean that replaces a mask, by cell and site."""


class ExpectedMeans(NamedTuple):
    """The means that should replace the masks in evaluation.

    Args:
        means: the means at the measured rates.
        bounds: for each mask, the means with its rate at the lower end of its interval, and with
            its rate at the upper end.
    """

    means: MaskMeans
    bounds: Sequence[tuple[MaskMeans, MaskMeans]] = ()


def expected_means(findings: Sequence[Finding]) -> ExpectedMeans:
    """Compute the means of the masks that were found."""
    means: dict[Place, dict[Site, float]] = {}
    ends: list[tuple[Place, Site, list[float]]] = []
    for found in findings:
        if found.verdict != "masked" or found.site in (Site.EMBEDDING, Site.HIDDEN, *WEIGHTS):
            continue
        if found.site not in UPDATES and found.scaled is not False:
            continue
        site = Site.INPUT if found.site is Site.BETWEEN else found.site
        rates = [found.rate, *widened_interval(found)]
        values = rates if found.site in UPDATES else [1.0 - rate for rate in rates]
        place = (found.layer, found.direction)
        means.setdefault(place, {})[site] = values[0]
        ends.append((place, site, values[1:]))

    def replaced(place: Place, site: Site, value: float) -> MaskMeans:
        return {**means, place: {**means[place], site: value}}

    bounds = [(replaced(p, s, low), replaced(p, s, high)) for p, s, (low, high) in ends]
    return ExpectedMeans(means, bounds)


def predict_response(network: Network, cell: Cell, means: MaskMeans, forgets: bool) -> Array:
    """Predict the response at step t to a signal at step s, and to an initial state.

    Args:
        network: the network. Every cell sees the mean of its input.
        cell: the cell that remembers.
        means: the means that replace the masks.
        forgets: whether the other cells forget.

    Returns:
        The response `[T, T+1]`, relative to a signal without noise at its own step.
    """

    def run_cell(current: Cell, signal: Array, state: float = 0.0) -> Array:
        of_cell = means.get(current.place, {})
        factors = {site: np.full((1, STEPS), mean) for site, mean in of_cell.items()}
        input_mean = of_cell.get(Site.INPUT, 1.0)
        remembers = current is cell or (not forgets and current.kind.gates > 1)
        order = -1 if current.is_backward else 1
        output = run_unit(
            current.kind.gates,
            factors,
            input_mean * signal[None, ::order],
            np.array([state]),
            KEPT_SHARE if remembers else 0.0,
        )
        return output[0, ::order]

    response = np.zeros((STEPS, STEPS + 1))
    for source in range(STEPS + 1):
        signal = np.zeros(STEPS)
        signal[source : source + 1] = 1.0
        for layer in range(cell.layer):
            cells = network.layer_cells(layer)
            widths = [c.width for c in cells]
            signal = np.average([run_cell(c, signal) for c in cells], axis=0, weights=widths)
        signal = run_cell(cell, signal, float(source == STEPS))
        for upper in network.cells_above(cell):
            signal = run_cell(upper, signal)
        response[:, source] = signal
    return response


def response_agrees(
    network: Network, cell: Cell, response: Array, expected: ExpectedMeans, forgets: bool
) -> bool:
    """Whether a response in evaluation, `[T, B, n, T+1]`, matches the prediction from the means."""
    predicted = predict_response(network, cell, expected.means, forgets)
    tolerance = 1e-3 + 3e-3 * np.abs(predicted)
    for pair in expected.bounds:
        distances = [
            np.abs(predict_response(network, cell, means, forgets) - predicted) for means in pair
        ]
        tolerance = tolerance + np.max(distances, axis=0)
    known = np.isfinite(response)
    error = np.abs(response - predicted[:, None, None])
    return bool((error <= np.broadcast_to(tolerance[:, None, None], error.shape))[known].all())
