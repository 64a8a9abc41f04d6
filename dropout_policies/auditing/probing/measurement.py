"""Runs an audit: find the network, observe many draws of its noise, analyze what was observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...policies.sites import Site
from .analysis import Measurement, NoiseAnalysis
from .cell_observer import CellObservation, observe_cells, observe_input_arrival
from .discovery import discover_network
from .findings import Finding
from .gate_observer import decoder_rows_agree, observe_gates, observe_projection
from .network import Cell, Network, Place
from .observations import Observations
from .preconditions import check_chain, check_evaluation, check_replay, next_noise
from .probe import Array, Probe
from .replayed_draw import FAINT_WEIGHT, ReplayedDraw
from .signal_weights import SignalWeights
from .signals import AMPLITUDE, BATCH, STEPS, gain

ENOUGH_ELEMENTS = 1500
"""The elements of the scarcest mask to see before the draws end."""

MIN_DRAWS, MAX_DRAWS = 8, 40
"""How many draws there are at least and at most."""

FEWEST_DRAWS = 3
"""How many draws of wide layers there are at least: one draw of a mask that all steps and samples
share has as many elements there as several draws of a narrow layer."""

COMPARED_DRAWS = 4
"""Draws in which training is compared with evaluation, if no masks are found."""

IDENTICAL_DRAWS = 32
"""Draws that have to be like evaluation before a module is said to have no noise, if the audit
cannot see all of its sites."""

WORD_DRAWS = 64
"""Draws in which words are looked at: a word may be dropped for a whole call."""

GATE_DRAWS = 6
"""Draws in which gates are looked at one by one."""

LONG_STEPS = 24
"""T of a call in which masks that seem to be held are looked at again."""

MakeDraw = Callable[..., ReplayedDraw]
"""`(noise, training, single_steps=False)` to a draw."""


def measure_module(probe: Probe, progress: Callable[[float], None]) -> Measurement:
    """Measure where a module masks.

    Args:
        probe: the module.
        progress: is told the share that is done.

    Raises:
        PolicyError: the audit cannot see into it, or its noise cannot be played again.
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
    for single_steps in (False, True):
        observations = _observe(probe, network, make_draw, noise, single_steps, progress)
        analysis = NoiseAnalysis(observations)
        if not analysis.needs_single_steps:
            break
    result = analysis.measurement()
    is_held = observations.forgets and _all_masks_held(result.findings)
    if is_held and _masks_change_in_long_call(probe, network, noise):
        result = _without_lifetimes(result)
    if result.is_ambiguous or any(f.verdict == "masked" for f in result.findings):
        return result
    is_unsure = any(f.verdict == "undecided" for f in result.findings)
    draws = IDENTICAL_DRAWS if is_unsure else COMPARED_DRAWS
    if _training_equals_evaluation(probe, network, noise, draws):
        whole = [_without_noise(f, draws) for f in result.findings]
        return result._replace(findings=whole, evaluation="identity")
    note = "training is otherwise than evaluation, and by no mask that the audit knows"
    doubtful = [replace(f, verdict="undecided", note=f.note or note) for f in result.findings]
    return result._replace(findings=doubtful, evaluation="undecided")


def _replaying_run(probe: Probe, noise: Any, training: bool) -> Callable[..., Array]:
    """A function that runs the module under the same noise each time."""

    def run(weights: Mapping[str, Array], x: Array, states: Sequence[Array] | None = None) -> Array:
        probe.replay(noise)
        return probe.run(weights, x, BATCH, states, training)

    return run


def _observe(
    probe: Probe,
    network: Network,
    make_draw: MakeDraw,
    noise: Any,
    single_steps: bool,
    progress: Callable[[float], None],
) -> Observations:
    """Observe draws until enough is seen, and evaluation."""
    evaluation = make_draw(noise, False)
    draws: list[dict[Place, CellObservation]] = []
    gates: list[dict[Place, dict[Site, Array]]] = []
    projections: list[dict[Place, Array]] = []
    rows_agree = True
    least = _least_draws(network)
    while len(draws) < MAX_DRAWS and (
        len(draws) < least or _fewest_elements(draws) < ENOUGH_ELEMENTS
    ):
        draw = make_draw(noise, True, single_steps)
        draws.append(observe_cells(draw))
        if len(gates) < min(GATE_DRAWS, least - 1):
            gates.append(observe_gates(draw))
            projections.append({p: observe_projection(draw, c) for p, c in network.cells.items()})
            rows_agree = rows_agree and decoder_rows_agree(draw)
        noise = next_noise(probe, noise)
        progress(0.1 + 0.8 * min(len(draws) / least, 1.0))
    word_arrivals: list[Array] = []
    has_tokens = probe.embedding is not None
    while has_tokens and len(draws) + len(word_arrivals) < WORD_DRAWS:
        word_arrivals.append(observe_input_arrival(make_draw(noise, True, single_steps)))
        noise = next_noise(probe, noise)
    return Observations(
        network,
        draws,
        gates,
        projections,
        evaluation,
        word_arrivals if has_tokens else None,
        rows_agree,
    )


def _least_draws(network: Network) -> int:
    """How many draws there are at least: so many that even masks that live for a whole call show
    enough elements."""
    narrowest = min(min(cell.width, cell.units) for cell in network.cells.values())
    return max(FEWEST_DRAWS, min(MIN_DRAWS, math.ceil(ENOUGH_ELEMENTS / narrowest)))


def _fewest_elements(draws: Sequence[Mapping[Place, CellObservation]]) -> int:
    """How many elements were seen of the mask of which fewest were."""
    counts = [
        sum(int(np.isfinite(getattr(draw[place], name)).sum()) for draw in draws)
        for place in draws[0]
        for name in ("input_ratio", "hidden_ratio", "output_ratio")
    ]
    return min(counts)


def _without_noise(finding: Finding, draws: int) -> Finding:
    """The finding at a site of a module that gave the same in so many draws: at least one element a
    draw was not dropped there, whether the audit could see it or not."""
    if finding.verdict != "undecided":
        return finding
    elements = max(finding.elements, draws)
    bounds = (0.0, 1.0 - 0.01 ** (1.0 / elements))
    return replace(finding, verdict="whole", interval=bounds, elements=elements, note="")


def _training_equals_evaluation(probe: Probe, network: Network, noise: Any, draws: int) -> bool:
    """Whether training does what evaluation does in some draws, on random weights and a random
    input."""
    random = np.random.default_rng(0)
    weights = {
        p.name: np.asarray(0.5 * random.standard_normal(p.shape)) for p in network.parameters
    }
    x = random.standard_normal((STEPS, probe.features))
    evaluated = probe.run(weights, x, BATCH, None, training=False)
    for _ in range(draws):
        probe.replay(noise)
        trained = probe.run(weights, x, BATCH, None, training=True)
        if not np.allclose(trained, evaluated, 1e-3, 1e-4):
            return False
        noise = next_noise(probe, noise)
    return True


def _all_masks_held(findings: Sequence[Finding]) -> bool:
    """Whether there are masks, and all of them are the same at the steps that were looked at."""
    masked = [f for f in findings if f.verdict == "masked"]
    decided = all(f.verdict != "undecided" for f in findings)
    return bool(masked) and decided and all(f.per in ("sequence", "call") for f in masked)


def _masks_change_in_long_call(probe: Probe, network: Network, noise: Any) -> bool:
    """Whether the output of a constant signal, in cells that forget, changes within many steps."""
    x = np.full((LONG_STEPS, probe.features), AMPLITUDE)
    for _ in range(COMPARED_DRAWS):
        for cell in network.cells.values():
            weights = SignalWeights(network).feed_mean(cell).route_to_output(cell)
            identity = np.eye(cell.units, cell.recurrent_weights.columns)
            weights.set_recurrent(cell, FAINT_WEIGHT * identity)
            probe.replay(noise)
            try:
                y = probe.run(weights.arrays, x, BATCH, None, training=True)
            except Exception:  # whatever a module raises that takes no sequence so long
                return False
            y = y[STEPS:-STEPS]  # at both ends, the hidden state is not yet what it will be
            if not np.allclose(y, y[:1], rtol=2e-4, atol=1e-8):
                return True
        noise = next_noise(probe, noise)
    return False


def _without_lifetimes(result: Measurement) -> Measurement:
    """A measurement whose masks seemed to be held and are not."""
    note = f"masks that are the same for {STEPS} steps change within {LONG_STEPS}"
    findings = [replace(f, per=None) if f.verdict == "masked" else f for f in result.findings]
    return result._replace(findings=findings, notes=[*result.notes, note])


def _count_state_parts(probe: Probe, network: Network, noise: Any) -> int:
    """How many parts of an initial state the module takes, as its output shows; 0 if some
    direction ignores its own."""
    last = network.last_layer
    if not probe.takes_states:
        return 0
    for parts in (2, 1) if last[0].kind.states == 2 else (1,):
        run = _replaying_run(probe, noise, training=False)
        draw = ReplayedDraw(network, run, probe.features, parts)
        try:
            shares = [_remembered_share(cell, draw) for cell in last]
        except Exception:  # whatever a module raises that takes no such state
            continue
        if parts == last[0].kind.states and all((share > 0.05).all() for share in shares):
            return parts
    return 0


def _remembered_share(cell: Cell, draw: ReplayedDraw) -> Array:
    """The share of a cell's initial state that shows at its first step, `[B]`."""
    y = draw.run(draw.memory_weights(cell).arrays, draw.no_input(), draw.initial_state(cell))
    first = STEPS - 1 if cell.is_backward else 0
    return y[first, :, draw.network.output_offset(cell)] / (AMPLITUDE * gain(cell, True))
