"""All measurements of a module: many draws of noise in training, and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ...policies.sites import Site
from .cell_observer import CellObservation
from .evaluation import ExpectedMeans, response_agrees
from .feature_masks import FeatureMasks, hide_doubtful_bits, separate_masks
from .network import Cell, Network, Place
from .probe import Array
from .replayed_draw import ReplayedDraw
from .signals import STEPS, Routes


class Observations:
    """All measurements of a module.

    Args:
        network: the module as a network.
        draws: the observations of each draw of noise.
        gates: the bits of each gate in some of the draws. See `observe_gates`.
        projections: the outputs of projections in some of the draws. See `observe_projection`.
        evaluation: the module in evaluation, as a draw without noise.
        word_arrivals: for a module that takes tokens, the steps that arrive in further draws,
            `[T, B]` each. Otherwise None.
        decoder_rows_agree: whether a feature that is missing is missing at all rows of the decoder.
    """

    def __init__(
        self,
        network: Network,
        draws: Sequence[Mapping[Place, CellObservation]],
        gates: Sequence[Mapping[Place, Mapping[Site, Array]]],
        projections: Sequence[Mapping[Place, Array]],
        evaluation: ReplayedDraw,
        word_arrivals: Sequence[Array] | None,
        decoder_rows_agree: bool,
    ) -> None:
        self.network, self.draws = network, draws
        self.gates, self.projections = gates, projections
        self.evaluation, self.word_arrivals = evaluation, word_arrivals
        self.decoder_rows_agree = decoder_rows_agree

    @cached_property
    def _evaluation_responses(self) -> dict[Place, Array]:
        cells = self.network.cells.items()
        return {place: self.evaluation.memory_response(cell) for place, cell in cells}

    @property
    def forgets(self) -> bool:
        """Whether cells can be made to forget their state at every step, which needs biases."""
        return self.evaluation.forgets

    def stack(self, cell: Cell, name: str) -> Array:
        """Return one field of a cell's observations, stacked over all draws."""
        return np.stack([getattr(draw[cell.place], name) for draw in self.draws])

    def stack_projections(self, cell: Cell) -> Array:
        return np.stack([each[cell.place] for each in self.projections])

    def gate_bits(self, cell: Cell, site: Site) -> list[Array]:
        """Return what each gate of a cell saw at a site, for some draws."""
        return [draw[cell.place][site] for draw in self.gates if site in draw[cell.place]]

    def input_columns(self, cell: Cell) -> Routes:
        return self.draws[0][cell.place].input_columns

    def hidden_masks(self, cell: Cell) -> FeatureMasks:
        """Return the masks on h as the recurrent weights see them."""
        columns = self.draws[0][cell.place].hidden_columns
        masks = separate_masks(self.stack(cell, "hidden_ratio"), columns)
        input_known = np.isfinite(self.stack(cell, "input_arrives"))
        return masks._replace(bits=hide_doubtful_bits(masks.bits, input_known))

    def shows_response(self, cell: Cell) -> bool:
        """Whether it is known what the cell's units keep from step to step."""
        return bool(np.isfinite(self.stack(cell, "response")).any())

    def evaluation_agrees(self, expected: ExpectedMeans) -> bool:
        """Whether evaluation has these means in place of the masks, in every cell."""
        return all(self._cell_agrees(cell, expected) for cell in self.network.cells.values())

    def _cell_agrees(self, cell: Cell, expected: ExpectedMeans) -> bool:
        response = self._evaluation_responses[cell.place].copy()
        response[..., :STEPS] /= self.evaluation.gain_below(cell)
        return response_agrees(self.network, cell, response, expected, self.forgets)
