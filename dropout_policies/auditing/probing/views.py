"""What one draw of noise does to the signals of a network, seen place by place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...policies.sites import Site
from .network import Cell, Network, Place, Setting
from .probe import Array
from .signals import (
    AMPLITUDE,
    BATCH,
    STEPS,
    Routes,
    back_gain,
    clean,
    common,
    commonest,
    gain,
    one_to_one,
    over,
    routes,
    wide,
)

RECURRENT = 0.5
"""The weight of the hidden state where that is what makes a simple cell remember."""

FAINT = 0.01
"""Its weight where it is to be seen at the next step, but not at the one after that."""

OPEN = 2.0
"""What a gate sees when it is to move."""

LOUD = 0.9
"""What a candidate gives that is no small signal; half of it is an LSTM's c."""

Run = Callable[..., Array]
"""`(weights, x, states=None)` to `[T, B, F]`, under the draw's noise."""


@dataclass
class View:
    """A draw of noise as it is seen at the places of one cell; NaN where nothing can be seen.

    Args:
        entry: what its weights see of what comes in, over what there is without noise,
            `[T, B, R, n]`: on route r, unit k sees feature `columns[r, k]`.
        hidden: what its recurrent weights see of the h of a step, likewise; of the last step
            nothing is seen.
        exits: its h as it arrives above, `[T, B, n]`, over what there is without noise.
        fed: whether anything at all of what comes into the network arrives at the cell, `[T, B]`.
        response: what is seen at step t of a signal that came in at step s alone, or, at the end,
            of an initial state: `[T, B, n, T+1]`.
        loud: as `exits`, where c is so large that tanh squashes it on its way into h.
        entry_columns, hidden_columns: `[R, n]`.
    """

    entry: Array
    hidden: Array
    exits: Array
    fed: Array
    response: Array
    loud: Array
    entry_columns: Routes
    hidden_columns: Routes


class Driven(NamedTuple):
    """What becomes of the mean of x in a cell.

    Args:
        path: how much of what a unit's candidate sees arrives at the output, `[T, B, n]`; 0 also
            where it sees nothing.
        size: how much of the mean of x it sees, `[T, B, n]`; NaN of a unit that once sees nothing
            of it, though it hands on what else it is driven by.
        fed: whether that is anything, `[T, B]`; NaN where no unit could show it.
        through: `path`, also where nothing comes in.
    """

    path: Array
    size: Array
    fed: Array
    through: Array


class Viewer:
    """Looks at the noise of the draw that `run` replays.

    Signals come in at every other step, so that what a unit keeps of the step before is nothing.

    Args:
        network: what is looked at.
        run: runs it.
        features: D.
        memory: how many parts of an initial state it takes.
        apart: whether signals come in one at a time: slower, but also where a unit keeps for more
            than a step what was before.
    """

    def __init__(
        self, network: Network, run: Run, features: int, memory: int, apart: bool = False
    ) -> None:
        self.network, self.run, self.features = network, run, features
        self.memory = memory
        self.forgets = all(
            cell.biases and (cell.kind.gates == 1 or network.of(cell).memory is not None)
            for cell in network.cells.values()
        )
        self.apart = apart
        self.combs = [[step] for step in range(STEPS)]
        if self.forgets and not apart:
            self.combs = [list(range(first, STEPS, 2)) for first in range(2)]

    def look(self) -> dict[Place, View]:
        """Everything that can be seen, by place."""
        cells = [c for layer in range(self.network.layers) for c in self.network.layer(layer)]
        driven = {cell.place: self._driven(cell) for cell in cells}
        return {cell.place: self._view(cell, driven) for cell in cells}

    def _view(self, cell: Cell, driven: Mapping[Place, Driven]) -> View:
        path, size, fed, through = driven[cell.place]
        above = self.network.above(cell)
        upper = driven[above[0].place].through if above else np.ones_like(path)
        n = min(path.shape[-1], upper.shape[-1])
        entry, entry_columns = self._entry(cell, through, driven)
        hidden, hidden_columns = self._hidden(cell, through, size)
        exits = over(path[..., :n], upper[..., :n])
        response = self._response(cell, upper[..., :n], size, np.isfinite(fed))
        loud = over(self.loud(cell)[..., :n], upper[..., :n])
        return View(entry, hidden, exits, fed, response, loud, entry_columns, hidden_columns)

    def words(self) -> Array:
        """Whether anything at all of what comes into the network arrives, see `View.fed`."""
        return self._driven(self.network.layer(0)[0]).fed

    def leaves_as_one(self) -> bool:
        """Whether a feature of the last layer that is missing is missing wherever the decoder leads
        it: if not, what is missing may be an entry of that matrix, or something behind it. Where
        there is but one place, nobody can tell."""
        decoder, first = self.network.decoder, self.network.first
        if decoder is None:
            return True
        rows = decoder.rows - first
        x = np.full((STEPS, self.features), AMPLITUDE)
        for cell in self.network.layer(self.network.layers - 1):
            units = np.arange(self.network.visible(cell))
            seen = []
            for down in (0, 1):
                y = self.run(Setting(self.network).feed(cell).pass_up(cell, down).arrays, x)
                seen.append(y[..., first + (units + down) % rows])
            near = 1e-4 * float(np.abs(seen[0]).max())
            if not np.allclose(seen[0], seen[1], rtol=1e-3, atol=near):
                return False
            if rows == 1 and (np.abs(seen[0]) <= near).any():
                return False
        return True

    def remembering(self, cell: Cell) -> Setting:
        """Weights under which one cell alone remembers, and nothing comes in."""
        setting = Setting(self.network, remembers=[cell]).pass_up(cell)
        if cell.kind.gates == 1:
            setting.back(cell, RECURRENT * np.eye(cell.units, cell.back.columns))
        return setting

    def loud(self, cell: Cell) -> Array:
        """How much arrives at the output of a candidate that gives `LOUD`, over what does without
        noise, `[T, B, n]`: noise before it, or before the c that is made of it, is squashed. NaN
        of cells that nothing drives."""
        if not self.forgets:
            return np.full((STEPS, BATCH, self.network.visible(cell)), np.nan)
        times = AMPLITUDE if self.network.above(cell) else 1.0
        setting = Setting(self.network).pass_up(cell, first=times).drive(cell, np.arctanh(LOUD))
        y = self._seen(cell, self.run(setting.arrays, np.zeros((STEPS, self.features))))
        whole = 0.5 * np.tanh(0.5 * LOUD) if cell.kind.gates == 4 else LOUD
        return clean(y / (whole * times * self._above(cell)))

    def projected(self, cell: Cell) -> Array:
        """What leaves a projection that makes the mean of h of each of its features, `[T, B, n]`;
        masks that fall behind it leave all of that, or nothing. Nothing at all of other cells."""
        if cell.projection is None:
            return np.zeros((STEPS, BATCH, 0))
        setting = Setting(self.network).feed(cell).pass_up(cell)
        setting.project(cell, np.full((cell.width, cell.units), 1.0 / cell.units))
        return clean(self._now_and_next(setting, cell)[0] / self._gain(cell))

    def gates(self) -> dict[Place, dict[Site, Array]]:
        """What each gate sees of what comes in at a cell's first step, and of the hidden state at
        its second: `[1 + others, B, R*n]`, the candidate first; 1 dropped, 0 not, NaN not seen.
        Nothing at all where cells do not forget."""
        if not self.forgets:
            return {place: {} for place in self.network.cells}
        return {
            cell.place: {
                Site.INPUT if cell.place[0] == 0 else Site.BETWEEN: self._gates(cell, False),
                Site.HIDDEN: self._gates(cell, True),
            }
            for cell in self.network.cells.values()
            if cell.kind.gates > 1
        }

    def _gates(self, cell: Cell, hidden: bool) -> Array:
        """The candidate sees the mean of x, so that there is something for a gate to open for."""
        forward = cell.place[1] == 0
        steps = (0, 1) if forward else (STEPS - 1, STEPS - 2)
        x = np.zeros((STEPS, self.features))
        x[list(steps)] = AMPLITUDE
        count = self.network.visible(cell)
        columns = routes(count, cell.width if hidden else cell.into.columns, int(hidden))
        strong = OPEN / (AMPLITUDE * self.below(cell))
        block = cell.back if hidden else cell.into
        base = Setting(self.network, remembers=[cell]).feed(cell).pass_up(cell)
        look = steps[int(hidden)]
        plain = self._seen(cell, self.run(base.arrays, x))[look]
        rows = []
        candidate = self.network.of(cell).candidate
        for gate in (candidate, *(g for g in range(cell.kind.gates) if g != candidate)):
            seen = []
            for route in columns:
                setting = Setting(self.network, remembers=[cell]).feed(cell).pass_up(cell)
                matrix = one_to_one(route, cell.units, block.columns)
                if hidden:
                    size = 1.0 if gate == candidate else strong / gain(cell, True)
                    setting.back(cell, size * matrix, gate)
                else:
                    fed = 1.0 / cell.into.columns if gate == candidate else 0.0
                    size = 1.0 if gate == candidate else strong
                    setting.into(cell, fed + size * matrix, gate)
                y = self._seen(cell, self.run(setting.arrays, x))[look]
                moved = np.abs(y - plain) > 1e-4 * np.abs(plain)
                seen.append(np.where(plain == 0.0, np.nan, np.where(moved, 0.0, 1.0)))
            one = np.stack(seen)  # [R, B, n]
            # A gate of a unit that nothing ever moves is not seen at all.
            one[:, ~(one == 0.0).any(axis=0)] = np.nan
            rows.append(np.concatenate(list(one), axis=-1))
        return np.stack(rows)

    def _seen(self, cell: Cell, y: Array) -> Array:
        start = self.network.leaves_at(cell)
        return y[..., start : start + self.network.visible(cell)]

    def _gain(self, cell: Cell) -> float:
        """How large a signal that a cell's candidates see is at the output without noise."""
        return gain(cell, not self.forgets) * self._above(cell)

    def _above(self, cell: Cell) -> float:
        above = self.network.above(cell)
        return float(np.prod([gain(upper, not self.forgets) for upper in above]))

    def _now_and_next(self, setting: Setting, cell: Cell) -> tuple[Array, Array]:
        """The output at each step of what comes in at that step, and what is seen of it at the
        next one (NaN after the last), `[T, B, n]` each, over the size of what comes in."""
        after = 1 if cell.place[1] == 0 else -1
        now = np.full((STEPS, BATCH, self.network.visible(cell)), np.nan)
        then = now.copy()
        for comb in self.combs:
            x = np.zeros((STEPS, self.features))
            x[comb] = AMPLITUDE
            y = self._seen(cell, self.run(setting.arrays, x)) / AMPLITUDE
            for step in comb:
                now[step] = y[step]
                if 0 <= step + after < STEPS:
                    then[step] = y[step + after]
        return now, then

    def _driven(self, cell: Cell) -> Driven:
        """What becomes of the mean of x in a cell.

        Without biases to tell them apart, the path is relative to its commonest value.
        """
        y = self._now_and_next(Setting(self.network).feed(cell).pass_up(cell), cell)[0]
        y /= self._gain(cell)
        path = np.where(np.abs(y) > 1e-6, 1.0, 0.0)
        if self.forgets:
            setting = Setting(self.network).pass_up(cell).drive(cell, AMPLITUDE)
            still = self.run(setting.arrays, np.zeros((STEPS, self.features)))
            path = self._seen(cell, still) / (AMPLITUDE * self._gain(cell))
        alive = np.where(np.abs(y) > 1e-6, path, 0.0)
        size = over(y, alive)
        shared = np.repeat(common(size)[..., None], size.shape[-1], axis=-1)
        size = np.where(np.isfinite(size) & (size != 0.0), size, shared)
        reached = np.abs(path).max(axis=-1) > 1e-6
        # Where no unit lets anything through, what comes in is of no account.
        size = np.where(reached[..., None], size, 1.0)
        size[..., self._unfed(cell, path)] = np.nan
        fed = np.where(reached, (np.abs(y).max(axis=-1) > 1e-6).astype(float), np.nan)
        through = alive if self.apart else path
        return Driven(clean(alive), size, fed, clean(through))

    def _unfed(self, cell: Cell, path: Array) -> npt.NDArray[np.bool_]:
        """Which units once show nothing of the mean of x, where others do and they hand on all the
        same what they are driven by, `[n]`.

        The mean of x comes at every step: a unit that keeps what was before shows that of x too.
        """
        x = np.full((STEPS, self.features), AMPLITUDE)
        y = self._seen(cell, self.run(Setting(self.network).feed(cell).pass_up(cell).arrays, x))
        shown = np.abs(y) > 1e-6 * AMPLITUDE * self._gain(cell)
        others = shown.any(axis=-1, keepdims=True)
        unfed = np.asarray(others & ~shown & (np.abs(path) > 1e-6))
        once: npt.NDArray[np.bool_] = np.asarray(unfed.any(axis=(0, 1)))
        return once

    def _entry(
        self, cell: Cell, path: Array, driven: Mapping[Place, Driven]
    ) -> tuple[Array, Routes]:
        columns = routes(path.shape[-1], cell.into.columns)
        below = self.network.layer(cell.place[0] - 1) if cell.place[0] else []
        # What every feature that comes in is without noise, [T, B, D].
        sizes = np.ones((STEPS, BATCH, cell.into.columns))
        if below:
            sizes = np.concatenate(
                [wide(driven[c.place].size, c.width) * gain(c, not self.forgets) for c in below],
                axis=-1,
            )
        seen = []
        for route in columns:
            setting = Setting(self.network).pass_up(cell)
            for lower in below:
                setting.feed(lower)
            setting.into(cell, one_to_one(route, cell.units, cell.into.columns))
            now, _ = self._now_and_next(setting, cell)
            seen.append(over(now / self._gain(cell), path * sizes[..., route]))
        return clean(np.stack(seen, axis=-2)), columns

    def _hidden(self, cell: Cell, path: Array, size: Array) -> tuple[Array, Routes]:
        columns = routes(path.shape[-1], cell.width, first=1)
        after = 1 if cell.place[1] == 0 else -1
        whole = FAINT * self._gain(cell) * back_gain(cell, not self.forgets)
        later = np.full_like(path, np.nan)
        for step in range(STEPS):
            if 0 <= step + after < STEPS:
                later[step] = path[step + after]
        _, base = self._now_and_next(Setting(self.network).feed(cell).pass_up(cell), cell)
        seen = []
        for route in columns:
            setting = Setting(self.network).feed(cell).pass_up(cell)
            setting.back(cell, FAINT * one_to_one(route, cell.units, cell.back.columns))
            _, then = self._now_and_next(setting, cell)
            seen.append(over((then - base) / whole, later * wide(size, cell.width)[..., route]))
        return clean(np.stack(seen, axis=-2)), columns

    def _response(
        self, cell: Cell, upper: Array, size: Array, reached: npt.NDArray[np.bool_]
    ) -> Array:
        """See `View.response`; the cells above forget, or nothing can be said."""
        n = upper.shape[-1]
        if not self.forgets and self.network.above(cell):
            return np.full((STEPS, BATCH, n, STEPS + 1), np.nan)
        found = over(self.remembered(cell)[..., :n, :], upper[..., None])
        if not self.forgets or len(self.combs) < STEPS or cell.place[0] == 0:
            for step in range(STEPS):
                found[..., step] = over(found[..., step], size[step][None, :, :n])
                # What no unit lets through at once may be any size when it is seen later.
                later = np.outer(np.arange(STEPS) != step, ~reached[step])
                found[..., step] = np.where(later[..., None], np.nan, found[..., step])
            return clean(found)
        # Cells below that keep what was before hand on more than the step that comes in.
        entering = self._entering(cell)
        for sample in range(BATCH):
            matrix = entering[..., sample]
            if np.isfinite(matrix).all() and (np.abs(np.diag(matrix)) > 1e-5).all():
                part = found[:, sample, :, :STEPS]
                found[:, sample, :, :STEPS] = part @ np.linalg.inv(matrix)
            else:
                found[:, sample, :, :STEPS] = np.nan
        found[np.isnan(size[..., :n]), :STEPS] = np.nan
        return clean(found)

    def _entering(self, cell: Cell) -> Array:
        """What comes into a cell at step t of a signal that comes into the network at step s
        alone, `[T, T, B]`."""
        whole = AMPLITUDE * self._gain(cell)
        still = Setting(self.network).pass_up(cell).drive(cell, AMPLITUDE)
        path = self._seen(cell, self.run(still.arrays, np.zeros((STEPS, self.features)))) / whole
        setting = Setting(self.network).feed(cell).pass_up(cell)
        entering = np.zeros((STEPS, STEPS, BATCH))
        for step in range(STEPS):
            x = np.zeros((STEPS, self.features))
            x[step] = AMPLITUDE
            y = self._seen(cell, self.run(setting.arrays, x)) / whole
            entering[:, step] = commonest(over(y, path))
        return entering

    def remembered(self, cell: Cell) -> Array:
        """What is seen at step t of a signal that comes into the network at step s alone, or, at
        the end, of an initial state of a cell, which remembers: `[T, B, n, T+1]`, over what a
        signal that the cell sees is at once without noise."""
        whole = AMPLITUDE * gain(cell, True) * self._above(cell)
        found = np.full((STEPS, BATCH, self.network.visible(cell), STEPS + 1), np.nan)
        setting = self.remembering(cell).feed(cell)
        for step in range(STEPS):
            x = np.zeros((STEPS, self.features))
            x[step] = AMPLITUDE
            found[..., step] = self._seen(cell, self.run(setting.arrays, x)) / whole
        if self.memory:
            setting, nothing = self.remembering(cell), np.zeros((STEPS, self.features))
            y = self.run(setting.arrays, nothing, initial(cell, self))
            found[..., STEPS] = self._seen(cell, y) / whole
        return found

    def below(self, cell: Cell) -> float:
        """How large a signal that comes into the network is when a cell sees it, without noise."""
        layers = range(cell.place[0])
        first = [self.network.layer(number)[0] for number in layers]
        return float(np.prod([gain(lower, not self.forgets) for lower in first]))


def initial(cell: Cell, viewer: Viewer) -> list[Array]:
    """An initial state that is as large as what a signal leaves: c of an LSTM, h of the others."""
    network = viewer.network
    rows = sorted(network.cells)
    parts = []
    for part in range(viewer.memory):
        width = cell.units if part == 1 else cell.width
        parts.append(np.zeros((len(rows), BATCH, width)))
    size = {4: 0.5, 3: 0.5, 1: 1.0}[cell.kind.gates]
    parts[-1][rows.index(cell.place)] = AMPLITUDE * size
    return parts
