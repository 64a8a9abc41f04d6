"""Observes draws of a module's noise until enough has been seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...policies.sites import Site
from .cell_observer import CellObservation, observe_cells, observe_input_arrival
from .gate_observer import decoder_rows_agree, observe_gates, observe_projection
from .network import Network, Place
from .observations import Observations
from .preconditions import next_noise
from .probe import Array, Probe
from .replayed_draw import ReplayedDraw
from .training_comparison import TrainingComparison

ENOUGH_ELEMENTS = 1500
"""The draws may end once this many elements of the scarcest mask were seen."""

MIN_DRAWS, MAX_DRAWS = 8, 40
"""The smallest and the largest number of draws."""

FEWEST_DRAWS = 3
"""The smallest number of draws for wide layers. If all steps and samples share a mask, one draw of
a wide layer shows as many elements as several draws of a narrow layer."""

WORD_DRAWS = 64
"""The number of draws in which words are observed. A word may be dropped for a whole call."""

GATE_DRAWS, GATE_UNITS = 6, 512
"""Gates are observed one by one in this many draws, or in as many as show this many units of the
narrowest cell. One draw of 512 units has five times the gates of six draws of 16 units."""

COMPARED_PER_OBSERVED = 2
"""How many draws are compared with evaluation instead of one whose connections are observed.

A mask is missed if no draw shows a dropped element of it. If n elements of a mask of rate p are
drawn once a call, N draws have no dropped element with probability (1 - p)^(n N). A draw whose
connections are observed shows nearly every element. A comparison shows a single lost element of an
LSTM's bottom layer in 7 to 10 of 10 draws, under up to eight layers. It shows one of zoneout's
cells in 5 of 10, and one entry of a matrix in 2 or more. But a matrix has as many times more
entries as a layer has units. Twice as many draws make up for that."""

MakeDraw = Callable[[Any, bool], ReplayedDraw]
"""A function that maps `(noise, training)` to a draw."""


class DrawSeries:
    """A series of draws of a module's noise.

    Args:
        probe: the module.
        network: the module as a network.
        make_draw: the function that makes a draw.
        noise: the noise of the first draw.
        comparison: the comparison of the same draws with evaluation.
        progress: a function that is called with the share of the work that is done.
    """

    def __init__(
        self,
        probe: Probe,
        network: Network,
        make_draw: MakeDraw,
        noise: Any,
        comparison: TrainingComparison,
        progress: Callable[[float], None],
    ) -> None:
        self._probe, self._network, self._make_draw = probe, network, make_draw
        self._noise, self._comparison, self._progress = noise, comparison, progress

    def observe_without_noise(self) -> Observations | None:
        """Observe one draw for all if training equals evaluation in every draw. Otherwise None.

        Gates are not observed one by one. Without noise they have no masks that could differ.
        """
        compared = COMPARED_PER_OBSERVED * _fewest_draws(self._network)
        for number in range(1, compared + 1):
            if not self._comparison.all_same(number):
                return None
            self._progress(0.1 * number / compared)
        draw, first = self._first_draw, self._first_observation
        draws = _count_draws(self._network, first)
        compared = COMPARED_PER_OBSERVED * draws
        word_arrivals: list[Array] | None = None
        if self._probe.embedding is not None:
            compared = max(compared, WORD_DRAWS)
            arrives = first[self._network.layer_cells(0)[0].place].input_arrives
            word_arrivals = [arrives] * max(WORD_DRAWS - draws, 0)
        if not self._comparison.all_same(compared):
            return None
        return Observations(
            self._network,
            draws=[first] * draws,
            gates=[],
            projections=[_observe_projections(draw)],
            evaluation=self._make_draw(self._noise, False),
            word_arrivals=word_arrivals,
            decoder_rows_agree=True,
        )

    @cached_property
    def _first_draw(self) -> ReplayedDraw:
        return self._make_draw(self._noise, True)

    @cached_property
    def _first_observation(self) -> dict[Place, CellObservation]:
        return observe_cells(self._first_draw)

    def observe_first(self) -> Observations:
        """Observe what one draw shows of the cells' state. `observe` does not repeat this."""
        evaluation = self._make_draw(self._noise, False)
        draws = [self._first_observation]
        return Observations(self._network, draws, [], [], evaluation, None, decoder_rows_agree=True)

    def observe(self) -> Observations:
        """Observe draws until enough has been seen, and observe evaluation."""
        noise = self._noise
        evaluation = self._make_draw(noise, False)
        draws: list[dict[Place, CellObservation]] = []
        gates: list[dict[Place, dict[Site, Array]]] = []
        projections: list[dict[Place, Array]] = []
        rows_agree = True
        fewest = _fewest_draws(self._network)
        gate_draws = min(GATE_DRAWS, math.ceil(GATE_UNITS / _narrowest(self._network)))
        # The observed draws include the first one that is known to have noise.
        least = max(fewest, min((self._comparison.first_difference or 0) + 1, MAX_DRAWS))
        while len(draws) < MAX_DRAWS and (
            len(draws) < least or _scarcest_elements(draws) < ENOUGH_ELEMENTS
        ):
            draw = self._make_draw(noise, True) if draws else self._first_draw
            draws.append(observe_cells(draw) if draws else self._first_observation)
            if len(gates) < gate_draws:
                gates.append(observe_gates(draw))
            if len(projections) < min(GATE_DRAWS, fewest - 1):
                projections.append(_observe_projections(draw))
                rows_agree = rows_agree and decoder_rows_agree(draw)
            noise = next_noise(self._probe, noise)
            self._progress(0.1 + 0.8 * min(len(draws) / least, 1.0))
        word_arrivals: list[Array] = []
        has_tokens = self._probe.embedding is not None
        while has_tokens and len(draws) + len(word_arrivals) < WORD_DRAWS:
            word_arrivals.append(observe_input_arrival(self._make_draw(noise, True)))
            noise = next_noise(self._probe, noise)
        return Observations(
            self._network,
            draws,
            gates,
            projections,
            evaluation,
            word_arrivals if has_tokens else None,
            rows_agree,
        )


def _observe_projections(draw: ReplayedDraw) -> dict[Place, Array]:
    return {place: observe_projection(draw, cell) for place, cell in draw.network.cells.items()}


def _fewest_draws(network: Network) -> int:
    """Return the smallest number of draws. Even masks that live for a whole call then show enough
    elements."""
    return max(FEWEST_DRAWS, min(MIN_DRAWS, math.ceil(ENOUGH_ELEMENTS / _narrowest(network))))


def _narrowest(network: Network) -> int:
    """Return the number of units or features of the narrowest cell."""
    return min(min(cell.width, cell.units) for cell in network.cells.values())


def _count_draws(network: Network, first: Mapping[Place, CellObservation]) -> int:
    """Return how many draws show enough, if each shows as much as the first one."""
    elements = _scarcest_elements([first])
    enough = math.ceil(ENOUGH_ELEMENTS / elements) if elements else MAX_DRAWS
    return min(max(_fewest_draws(network), enough), MAX_DRAWS)


def _scarcest_elements(draws: Sequence[Mapping[Place, CellObservation]]) -> int:
    """Return the number of observed elements of the mask with the fewest."""
    counts = [
        sum(int(np.isfinite(getattr(draw[place], name)).sum()) for draw in draws)
        for place in draws[0]
        for name in ("input_ratio", "hidden_ratio", "output_ratio")
    ]
    return min(counts)
