"""Compares training with evaluation as a whole. If both give the same, there is no noise.

This takes one run for a draw of noise. Observing every connection takes dozens of runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .layer_discovery import out_in_shape
from .network import Network
from .probe import Array, Parameter, Probe
from .signals import BATCH, STEPS

MATRIX_SCALE = 4.0
"""The size of what units see. With it, the loss of one element shows after many layers. Signals
of unit size die out on their way through eight LSTM layers. Larger ones saturate the gates."""

VECTOR_SCALE = 0.5
"""The size of biases."""


class TrainingComparison:
    """Compares training with evaluation, draw by draw, for random weights and a random input.

    Args:
        probe: the module.
        network: the module as a network.
        noise: the noise of the first draw.
    """

    def __init__(self, probe: Probe, network: Network, noise: Any) -> None:
        self._probe, self._noise = probe, noise
        random = np.random.default_rng(0)
        parameters = {p.name: p for p in network.parameters}
        if network.decoder is not None:  # it may be the embedding's matrix
            parameters[network.decoder.parameter.name] = network.decoder.parameter
        self._weights = {name: _random_weight(p, random) for name, p in parameters.items()}
        self._x = random.standard_normal((STEPS, probe.features))
        self._evaluated = self._run(training=False)
        self._same = 0
        self.first_difference: int | None = None
        """The number, from 0, of the first draw in which they differ. None if none is known."""

    def all_same(self, draws: int) -> bool:
        """Whether training equals evaluation in `draws` draws and in all compared before."""
        while self._same < draws and self.first_difference is None:
            self._probe.replay(self._noise)
            trained = self._run(training=True)
            self._noise = self._probe.noise()
            if np.allclose(trained, self._evaluated, 1e-3, 1e-4):
                self._same += 1
            else:
                self.first_difference = self._same
        return self.first_difference is None

    def _run(self, training: bool) -> Array:
        return self._probe.run(self._weights, self._x, BATCH, None, training)


def _random_weight(parameter: Parameter, random: np.random.Generator) -> Array:
    scale = VECTOR_SCALE
    if parameter.is_matrix:
        scale = MATRIX_SCALE / np.sqrt(out_in_shape(parameter)[1])
    return np.asarray(scale * random.standard_normal(parameter.shape))
