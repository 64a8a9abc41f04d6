"""An audit's course: find the network, look at many draws of its noise, say what fell where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import PolicyError
from ...policies.sites import Site
from .discovery import discover
from .evidence import Finding
from .network import Cell, Network, Place, Setting
from .probe import Array, Probe
from .reading import Measured, Reading
from .signals import AMPLITUDE, BATCH, STEPS, gain
from .views import FAINT, View, Viewer, initial

ENOUGH = 1500
"""Elements of the scarcest mask that are seen before the draws end."""

FEW, MOST = 8, 40
"""How many draws there are at least and at most."""

PLAIN = 4
"""Draws in which training is compared with evaluation, where no masks are found."""

WORDS = 64
"""Draws in which words are looked at: a word may be gone for a whole call."""

GATED = 6
"""In how many of them gates are looked at one by one."""

MANY = 24
"""T of a call in which masks that seem to be held are looked at again."""


def measure(probe: Probe) -> Measured:
    """Measure a module.

    Raises:
        PolicyError: the audit cannot see into it, or its noise cannot be played again.
    """
    _check_rest(probe)
    network = discover(probe)
    _check_chain(probe, network)
    noise = probe.noise()
    memory = _memory(probe, network, noise)

    def viewer(noise: Any, training: bool, apart: bool = False) -> Viewer:
        def run(weights: Any, x: Array, states: Sequence[Array] | None = None) -> Array:
            probe.replay(noise)
            return probe.run(weights, x, BATCH, states, training)

        return Viewer(network, run, probe.features, memory, apart)

    _check_replay(probe, viewer(noise, True))
    for apart in (False, True):
        reading = _read(probe, network, viewer, noise, apart)
        if not reading.keeps_back:
            break
    found = reading.measured()
    if reading.forgets and _is_held(found.findings) and _changes(probe, network, noise):
        found = _without_lifetimes(found)
    if found.torn or any(f.verdict == "masked" for f in found.findings):
        return found
    if _plain(probe, network, noise):
        return found._replace(evaluation="identity")
    why = "training is otherwise than evaluation, and by no mask that the audit knows"
    doubtful = [replace(f, verdict="undecided", note=f.note or why) for f in found.findings]
    return found._replace(findings=doubtful, evaluation="undecided")


def _plain(probe: Probe, network: Network, noise: Any) -> bool:
    """Whether training does what evaluation does, on weights and an input of no particular form."""
    random = np.random.default_rng(0)
    weights = {
        p.name: np.asarray(0.5 * random.standard_normal(p.shape)) for p in network.parameters
    }
    x = random.standard_normal((STEPS, probe.features))
    rests = probe.run(weights, x, BATCH, None, training=False)
    for _ in range(PLAIN):
        probe.replay(noise)
        if not np.allclose(probe.run(weights, x, BATCH, None, training=True), rests, 1e-3, 1e-4):
            return False
        noise = _next(probe, noise)
    return True


def _is_held(findings: Sequence[Finding]) -> bool:
    """Whether masks fall, and are all the same at the steps that were looked at."""
    masked = [f for f in findings if f.verdict == "masked"]
    known = all(f.verdict != "undecided" for f in findings)
    return bool(masked) and known and all(f.per in ("sequence", "call") for f in masked)


def _changes(probe: Probe, network: Network, noise: Any) -> bool:
    """Whether what a constant signal leaves, in cells that forget, is another at some of many
    steps."""
    x = np.full((MANY, probe.features), AMPLITUDE)
    for _ in range(PLAIN):
        for cell in network.cells.values():
            setting = Setting(network).feed(cell).pass_up(cell)
            setting.back(cell, FAINT * np.eye(cell.units, cell.back.columns))
            probe.replay(noise)
            try:
                y = probe.run(setting.arrays, x, BATCH, None, training=True)
            except Exception:  # whatever a module raises that takes no sequence so long
                return False
            y = y[STEPS:-STEPS]  # at both ends, what goes back is not there yet
            if not np.allclose(y, y[:1], rtol=2e-4, atol=1e-8):
                return True
        noise = _next(probe, noise)
    return False


def _without_lifetimes(found: Measured) -> Measured:
    """What was measured, where masks that seemed to be held are not, in the end."""
    note = f"masks that are the same for {STEPS} steps change within {MANY}"
    findings = [replace(f, per=None) if f.verdict == "masked" else f for f in found.findings]
    return found._replace(findings=findings, notes=[*found.notes, note])


def _read(probe: Probe, network: Network, viewer: Any, noise: Any, apart: bool) -> Reading:
    """Look at draws until enough is seen, and at evaluation."""
    rests = viewer(noise, False)
    draws: list[dict[Place, View]] = []
    gates: list[dict[Place, dict[Site, Array]]] = []
    projected: list[dict[Place, Array]] = []
    as_one = True
    while len(draws) < MOST and (len(draws) < FEW or _scarcest(draws) < ENOUGH):
        looks = viewer(noise, True, apart)
        draws.append(looks.look())
        if len(gates) < GATED:
            gates.append(looks.gates())
            projected.append({p: looks.projected(cell) for p, cell in network.cells.items()})
            as_one = as_one and looks.leaves_as_one()
        noise = _next(probe, noise)
    words: list[Array] = []
    tokens = probe.embedding is not None
    while tokens and len(draws) + len(words) < WORDS:
        words.append(viewer(noise, True, apart).words())
        noise = _next(probe, noise)
    return Reading(network, draws, gates, projected, rests, words if tokens else None, as_one)


def _memory(probe: Probe, network: Network, noise: Any) -> int:
    """How many parts of an initial state the module takes, as is seen at its output; none where
    some direction leaves its own out."""
    last = network.layer(network.layers - 1)
    if not probe.takes_states:
        return 0
    for parts in (2, 1) if last[0].kind.states == 2 else (1,):

        def run(weights: Any, x: Array, states: Sequence[Array] | None = None) -> Array:
            probe.replay(noise)
            return probe.run(weights, x, BATCH, states, training=False)

        looks = Viewer(network, run, probe.features, parts)
        try:
            seen = [_remembered(cell, looks) for cell in last]
        except Exception:  # whatever a module raises that takes no such state
            continue
        if parts == last[0].kind.states and all((share > 0.05).all() for share in seen):
            return parts
    return 0


def _remembered(cell: Cell, looks: Viewer) -> Array:
    """The share of a cell's initial state that is seen at its first step, `[B, H]`."""
    setting = looks.remembering(cell)
    y = looks.run(setting.arrays, np.zeros((STEPS, looks.features)), initial(cell, looks))
    first = 0 if cell.place[1] == 0 else STEPS - 1
    return y[first, :, looks.network.leaves_at(cell)] / (AMPLITUDE * gain(cell, True))


def _check_rest(probe: Probe) -> None:
    noise, x = probe.noise(), np.ones((STEPS, probe.features))

    def rest() -> Array:
        return probe.run({}, x, BATCH, None, training=False)

    first = rest()
    probe.replay(_next(probe, noise))
    same = np.array_equal(first, rest())
    probe.replay(noise)
    if same:
        return
    if np.array_equal(first, rest()):  # all that has to do with chance is as it was
        raise PolicyError(
            f"{probe.name}: its evaluation is random: two calls gave different outputs, be it for "
            f"masks that fall there too or for a random initial state, and the audit needs an "
            f"evaluation to compare training with."
        )
    raise PolicyError(
        f"{probe.name}: a call in training changes its evaluation, as averages of batch "
        f"normalization do, or weights that are overwritten by what a mask leaves of them, and the "
        f"audit needs an evaluation to compare training with. Give it the model without such "
        f"layers, or the recurrent layer alone."
    )


def _check_chain(probe: Probe, network: Network) -> None:
    """Make sure that a signal goes through every layer, once, and past none: it comes with what a
    layer takes in, twice as large with twice that, and not at all without."""
    x = np.full((STEPS, probe.features), AMPLITUDE)
    last = network.layer(network.layers - 1)

    def strength(layer: int, times: float) -> float:
        setting = Setting(network).pass_up(last[0])
        for cell in last:
            setting.feed(cell)
        for cell in network.layer(layer):
            mean = np.full((cell.units, cell.into.columns), times / cell.into.columns)
            setting.into(cell, mean)
        return float(np.abs(probe.run(setting.arrays, x, BATCH, None, training=False)).max())

    for layer in range(network.layers):
        without, once, twice = (strength(layer, times) for times in (0.0, 1.0, 2.0))
        if without > 0.01 * once or abs(twice - 2.0 * once) > 0.05 * once:
            raise PolicyError(
                f"{probe.name}: what it gives back does not come through its layers one after the "
                f"other, each once: a layer is used twice, or something goes past it. Give the "
                f"audit one layer, or a stack without branches."
            )


def _check_replay(probe: Probe, looks: Viewer) -> None:
    x = np.full((STEPS, probe.features), AMPLITUDE)
    cell = looks.network.layer(0)[0]
    arrays = looks.remembering(cell).feed(cell).arrays
    if not np.array_equal(looks.run(arrays, x), looks.run(arrays, x)):
        raise PolicyError(
            f"{probe.name}: its noise cannot be played again: two calls from one state of every "
            f"random generator that the audit knows gave different outputs."
        )


def _next(probe: Probe, noise: Any) -> Any:
    """The noise of the call after one."""
    probe.replay(noise)
    probe.run({}, np.zeros((STEPS, probe.features)), BATCH, None, training=True)
    return probe.noise()


def _scarcest(draws: Sequence[dict[Place, View]]) -> int:
    """How many elements were seen of the mask of which fewest were."""
    counts = [
        sum(int(np.isfinite(getattr(draw[place], name)).sum()) for draw in draws)
        for place in draws[0]
        for name in ("entry", "hidden", "exits")
    ]
    return min(counts)
