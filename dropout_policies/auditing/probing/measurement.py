"""Runs an audit: finds the network, observes draws of its noise, and analyzes the observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .analysis import Measurement, NoiseAnalysis, keeps_old_values
from .discovery import discover_network
from .draw_series import DrawSeries
from .findings import Finding
from .network import Cell, Network
from .preconditions import check_chain, check_evaluation, check_replay, next_noise
from .probe import Array, Probe
from .replayed_draw import FAINT_WEIGHT, ReplayedDraw
from .signal_weights import SignalWeights
from .signals import AMPLITUDE, BATCH, STEPS, gain
from .training_comparison import TrainingComparison

IDENTICAL_DRAWS = 32
"""If the audit cannot see all sites, this many draws must equal evaluation before a module is said
to have no noise."""

LONG_STEPS, LONG_CALLS = 24, 4
"""T and the number of the calls in which masks that seem to be held are observed again."""


def measure_module(probe: Probe, progress: Callable[[float], None]) -> Measurement:
    """Measure where a module masks.

    Args:
        probe: the module.
        progress: a function that is called with the share of the work that is done.

    Raises:
        PolicyError: the audit cannot measure the module, or its noise cannot be repeated.
    """
    check_evaluation(probe)
    network = discover_network(probe)
    check_chain(probe, network)
    noise = probe.noise()
    state_parts = _count_state_parts(probe, network, noise)

    def make_draw(noise: Any, training: bool, single_steps: bool = False) -> ReplayedDraw:
        run = _replaying_run(probe, noise, training)
        return ReplayedDraw(network, run, probe.features, state_parts, single_steps)

    check_replay(probe, make_draw(noise, True))
    comparison = TrainingComparison(probe, network, noise)
    for single_steps in (False, True):
        make_one = partial(make_draw, single_steps=single_steps)
        series = DrawSeries(probe, network, make_one, noise, comparison, progress)
        if not single_steps and _shows_old_values(series, comparison):
            continue
        analysis = _analyze(series)
        if not analysis.needs_single_steps:
            break
    if analysis.has_masks:
        result = analysis.measurement(analysis.describe_evaluation())
        is_held = analysis.observations.forgets and _all_masks_held(result.findings)
        if is_held and _masks_change_in_long_call(probe, network, noise):
            result = _without_lifetimes(result)
        return result
    result = analysis.measurement("identity")
    is_unsure = any(f.verdict == "undecided" for f in result.findings)
    if comparison.all_same(IDENTICAL_DRAWS if is_unsure else 0):
        return result._replace(findings=[_without_noise(f) for f in result.findings])
    note = "training differs from evaluation, and not by a mask that the audit knows"
    doubtful = [replace(f, verdict="undecided", note=f.note or note) for f in result.findings]
    return result._replace(findings=doubtful, evaluation="undecided")


def _shows_old_values(series: DrawSeries, comparison: TrainingComparison) -> bool:
    """Whether the first draw has noise and shows that units keep old values.

    Further draws with several signals in a call are then useless.
    """
    return not comparison.all_same(1) and keeps_old_values(series.observe_first())


def _analyze(series: DrawSeries) -> NoiseAnalysis:
    """Analyze one draw for all if there is no noise, otherwise many draws."""
    observations = series.observe_without_noise()
    if observations is not None:
        analysis = NoiseAnalysis(observations)
        if not analysis.has_masks:
            return analysis
    return NoiseAnalysis(series.observe())


def _replaying_run(probe: Probe, noise: Any, training: bool) -> Callable[..., Array]:
    """Make a function that runs the module with the same noise each time."""

    def run(weights: Mapping[str, Array], x: Array, states: Sequence[Array] | None = None) -> Array:
        probe.replay(noise)
        return probe.run(weights, x, BATCH, states, training)

    return run


def _without_noise(finding: Finding) -> Finding:
    """Adapt a finding for a module that gave the same in many draws.

    At least one element per draw was not dropped at the site, whether the audit could see it or
    not.
    """
    if finding.verdict != "undecided":
        return finding
    elements = max(finding.elements, IDENTICAL_DRAWS)
    bounds = (0.0, 1.0 - 0.01 ** (1.0 / elements))
    return replace(finding, verdict="whole", interval=bounds, elements=elements, note="")


def _all_masks_held(findings: Sequence[Finding]) -> bool:
    """Whether there are masks, and all of them are the same at the steps that were observed."""
    masked = [f for f in findings if f.verdict == "masked"]
    decided = all(f.verdict != "undecided" for f in findings)
    return bool(masked) and decided and all(f.per in ("sequence", "call") for f in masked)


def _masks_change_in_long_call(probe: Probe, network: Network, noise: Any) -> bool:
    """Whether the output for a constant signal changes within many steps, in cells that forget."""
    x = np.full((LONG_STEPS, probe.features), AMPLITUDE)
    for _ in range(LONG_CALLS):
        for cell in network.cells.values():
            weights = SignalWeights(network).feed_mean(cell).route_to_output(cell)
            identity = np.eye(cell.units, cell.recurrent_weights.columns)
            weights.set_recurrent(cell, FAINT_WEIGHT * identity)
            probe.replay(noise)
            try:
                y = probe.run(weights.arrays, x, BATCH, None, training=True)
            except Exception:  # a module may raise anything if it takes no sequence this long
                return False
            y = y[STEPS:-STEPS]  # at both ends, the hidden state has not settled yet
            if not np.allclose(y, y[:1], rtol=2e-4, atol=1e-8):
                return True
        noise = next_noise(probe, noise)
    return False


def _without_lifetimes(result: Measurement) -> Measurement:
    """Adapt a measurement with masks that seemed to be held but are not."""
    note = f"masks that are the same for {STEPS} steps change within {LONG_STEPS}"
    findings = [replace(f, per=None) if f.verdict == "masked" else f for f in result.findings]
    return result._replace(findings=findings, notes=[*result.notes, note])


def _count_state_parts(probe: Probe, network: Network, noise: Any) -> int:
    """Find how many parts of an initial state the module takes, as its output shows.

    The result is 0 if a direction of the last layer ignores its part.
    """
    last = network.last_layer
    if not probe.takes_states:
        return 0
    for parts in (2, 1) if last[0].kind.states == 2 else (1,):
        run = _replaying_run(probe, noise, training=False)
        draw = ReplayedDraw(network, run, probe.features, parts)
        try:
            shares = [_remembered_share(cell, draw) for cell in last]
        except Exception:  # a module may raise anything if it takes no such state
            continue
        if parts == last[0].kind.states and all((share > 0.05).all() for share in shares):
            return parts
    return 0


def _remembered_share(cell: Cell, draw: ReplayedDraw) -> Array:
    """Measure the share of a cell's initial state that shows at its first step, `[B]`."""
    y = draw.run(draw.memory_weights(cell).arrays, draw.no_input(), draw.initial_state(cell))
    first = STEPS - 1 if cell.is_backward else 0
    return y[first, :, draw.network.output_offset(cell)] / (AMPLITUDE * gain(cell, True))
