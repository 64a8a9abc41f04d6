"""Refuses modules that the audit cannot measure. The error says what was seen and what to do.

A module must have an evaluation without noise that training does not change, a single path through
its layers, and noise that can be repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import PolicyError
from .network import Network
from .probe import Array, Probe
from .replayed_draw import ReplayedDraw
from .signal_weights import SignalWeights
from .signals import AMPLITUDE, BATCH, STEPS


def next_noise(probe: Probe, noise: Any) -> Any:
    """Return the noise of the call after the one that `noise` belongs to."""
    probe.replay(noise)
    probe.run({}, np.zeros((STEPS, probe.features)), BATCH, None, training=True)
    return probe.noise()


def check_evaluation(probe: Probe) -> None:
    """Check that evaluation gives the same result before and after a call in training.

    Raises:
        PolicyError: it does not.
    """
    noise, x = probe.noise(), np.ones((STEPS, probe.features))

    def evaluate() -> Array:
        return probe.run({}, x, BATCH, None, training=False)

    first = evaluate()
    probe.replay(next_noise(probe, noise))
    same_after_training = np.array_equal(first, evaluate())
    probe.replay(noise)
    if same_after_training:
        return
    if np.array_equal(first, evaluate()):  # all random state was the same as in the first call
        raise PolicyError(
            f"{probe.name}: its evaluation is random: two calls gave different outputs, because "
            "masks fall there too, or because the initial state is random. The audit needs an "
            "evaluation to compare training with."
        )
    raise PolicyError(
        f"{probe.name}: a call in training changes its evaluation, as averages of batch "
        f"normalization do, or weights that are overwritten by what a mask leaves of them, and the "
        f"audit needs an evaluation to compare training with. Give it the model without such "
        f"layers, or the recurrent layer alone."
    )


def check_chain(probe: Probe, network: Network) -> None:
    """Check that a signal passes through every layer exactly once.

    The output must vanish with the input weights of any layer, and double with them.

    Raises:
        PolicyError: there are branches, or a layer is used twice.
    """
    x = np.full((STEPS, probe.features), AMPLITUDE)

    def output_size(layer: int, input_gain: float) -> float:
        weights = SignalWeights(network).route_to_output(network.last_layer[0])
        for cell in network.last_layer:
            weights.feed_mean(cell)
        for cell in network.layer_cells(layer):
            columns = cell.input_weights.columns
            weights.set_input(cell, np.full((cell.units, columns), input_gain / columns))
        return float(np.abs(probe.run(weights.arrays, x, BATCH, None, training=False)).max())

    once = output_size(0, 1.0)
    for layer in range(network.layers):
        without, twice = (output_size(layer, gain) for gain in (0.0, 2.0))
        if without > 0.01 * once or abs(twice - 2.0 * once) > 0.05 * once:
            raise PolicyError(
                f"{probe.name}: a signal does not pass through its layers one after the other, "
                f"each once: a layer is used twice, or a connection bypasses one. Give the audit "
                f"one layer, or a stack without branches."
            )


def check_replay(probe: Probe, draw: ReplayedDraw) -> None:
    """Check that a draw of noise can be repeated.

    Raises:
        PolicyError: two calls with the same noise gave different outputs.
    """
    cell = draw.network.layer_cells(0)[0]
    weights = draw.memory_weights(cell).feed_mean(cell).arrays
    x = draw.constant_signal()
    if not np.array_equal(draw.run(weights, x), draw.run(weights, x)):
        raise PolicyError(
            f"{probe.name}: its noise cannot be repeated: two calls from one state of every "
            "random generator that the audit knows gave different outputs."
        )
