"""The unrolled network as a grid of layers and steps: what is masked, and what is whole.

As in the paper (Zaremba et al. 2014, figure 2), a connection is dashed where a mask falls on it and
solid where it is whole; a path from an input to a later output (its figure 3) can be drawn heavy,
and its masks are counted. Policies, audits and reports make the rows; here they become text.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..argument_checks import as_integer, check_text, short_repr
from ..errors import PolicyError
from ..policies.rules import Lifetime, Rule
from ..policies.sites import CARRIED, COMPUTED, VERTICAL, Site

MAX_STEPS = 26
"""Masks have letters for names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the grid: a vertical connection of every step, or a layer.

    Args:
        name: of the connection or layer.
        notes: the rules that fall here, as text.
        masked: whether masks fall on its connections, from below or from step to step; None where
            that is not known.
        per: how long such a mask lives; None where that is not known.
        inside: whether a rule falls within the cells: on an update, or on weights.
        wrong: whether it is marked as other than it should be.
        passed: how many masks a signal passes here at one step; None where that is not known.
        carried: and how many on its way into a layer's next step; likewise.
        by_channel: whether a rule masks whole feature maps.
    """

    name: str
    notes: str = ""
    masked: bool | None = False
    per: Lifetime | None = None
    inside: bool = False
    wrong: bool = False
    passed: int | None = 0
    carried: int | None = 0
    by_channel: bool = False

    @staticmethod
    def connection(name: str, rule: Rule | None, words: Rule | None = None) -> Row:
        """A vertical connection under a rule; `words` is the one on the embedding before it."""
        notes = [rule.text()] if rule is not None else []
        notes += [f"word types {words.text()}"] if words is not None else []
        masked = rule is not None
        per = rule.per if rule else None
        by_channel = rule is not None and rule.shape == "channel"
        return Row(name, "; ".join(notes), masked, per, passed=int(masked), by_channel=by_channel)

    @staticmethod
    def layer(name: str, rules: Mapping[Site, Rule]) -> Row:
        """A layer under the rules on its cells."""
        carried = [rules[site] for site in CARRIED if site in rules]
        notes = "; ".join(f"{site.value} {rule.text()}" for site, rule in rules.items())
        per = carried[0].per if carried else None
        inside = any(site not in CARRIED for site in rules)
        by_channel = any(rule.shape == "channel" for rule in rules.values())
        passed, onward = masks_passed(rules)
        return Row(
            *(name, notes, bool(carried), per, inside),
            passed=passed,
            carried=onward,
            by_channel=by_channel,
        )

    def mask_letter(self, step: int) -> str:
        """The name of the mask of a step, from 0: one letter for one mask; "" where there is none.

        Rows have masks of their own, whatever the letters.
        """
        if self.masked is False:
            return ""
        if self.masked is None or self.per is None:
            return "?"
        return chr(ord("a") + (step if self.per == "step" else 0))


def masks_passed(
    masked: Container[Site], undecided: Container[Site] = ()
) -> tuple[int | None, ...]:
    """How many masks a signal that goes through h at every step passes on a connection or in a
    cell, and on its way into the cell's next step; None where that is not known.

    Masks of zeros on activations are counted: zoneout puts what was there before in their place,
    and those on weights fall on single entries.

    Args:
        masked: the sites of a connection or layer where masks fall.
        open_: those of which nothing is known.
    """
    return tuple(
        None if any(site in undecided for site in sites) else sum(site in masked for site in sites)
        for sites in ((*VERTICAL, *COMPUTED), (Site.HIDDEN,))
    )


def corruptions(rows: Sequence[Row], distance: int) -> int | None:
    """How many masks lie between x_s and y_t, for t − s = `distance`, under `zaremba` L+1
    (Zaremba et al. 2014, figure 3); None where that is not known.

    The signal goes up at step s as far as the last layer, through its h at every step until t, and
    out. A mask that it passes at several steps is counted at each.
    """
    last = rows[-2]
    counts = [*(row.passed for row in rows), *[last.passed, last.carried] * distance]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


@dataclass(frozen=True, slots=True)
class Grid:
    """L layers over T steps, and what is to be marked; `print` it.

    What it takes and raises is what `Diagram` does.
    """

    title: str
    rows: Sequence[Row]
    steps: int = 4
    path: tuple[int, int] | None = None
    wanted: str = ""

    def __post_init__(self) -> None:
        check_text(self.title, "title")
        given = self.rows
        rows = tuple(given) if isinstance(given, list | tuple) else ()
        if len(rows) < 3 or len(rows) % 2 == 0 or not all(isinstance(r, Row) for r in rows):
            raise PolicyError(
                f"A diagram has at least one layer, with a connection below and above each. "
                f"Received: {f'{len(rows)} rows' if rows else f'rows={short_repr(given)}'}"
            )
        steps = as_integer(self.steps)
        if steps is None or not 1 <= steps <= MAX_STEPS:
            raise PolicyError(
                f"A diagram has 1 to {MAX_STEPS} steps. Received: steps={short_repr(self.steps)}"
            )
        object.__setattr__(self, "steps", steps)
        if self.path is not None:
            path = self.path if isinstance(self.path, list | tuple) else ()
            numbers = [as_integer(step) for step in path]
            s, t = numbers if len(numbers) == 2 else (None, None)
            if s is None or t is None or not 1 <= s <= t <= steps:
                raise PolicyError(
                    f"A path goes from a step s to a step t with 1 <= s <= t <= {steps}: "
                    f"path=(1, {steps}). Received: path={short_repr(self.path)}"
                )
            object.__setattr__(self, "path", (s, t))

    @property
    def layers(self) -> int:
        """L."""
        return len(self.rows) // 2

    def on_path(self, row: int, step: int) -> bool:
        """Whether the path goes along the connection of a row into a step, both from 0.

        It goes up at s as far as the last layer, along it to t, and out.
        """
        if self.path is None:
            return False
        s, t = self.path[0] - 1, self.path[1] - 1
        last = 2 * self.layers
        if row == last - 1:
            return s < step <= t
        return step == (t if row == last else s) and row % 2 == 0

    @property
    def corruptions(self) -> int | None:
        """How many masks lie on the path, under `zaremba` L+1, whatever t − s; None where that is
        not known, 0 without a path."""
        return corruptions(self.rows, self.path[1] - self.path[0]) if self.path else 0

    def __repr__(self) -> str:
        """One line; `print` draws it."""
        return f"<{type(self).__name__} {self.title}: L = {self.layers}, T = {self.steps}>"

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        margin = max(len(row.name) for row in self.rows) + 4
        yield f"{self.title}: L = {self.layers}, T = {self.steps}"
        yield ""
        yield " " * margin + self._step_labels("y")
        for number in reversed(range(len(self.rows))):
            row = self.rows[number]
            drawn = (
                self._layer_line(number, row) if number % 2 else self._connection_line(number, row)
            )
            yield f"{'✗' if row.wrong else ' '} {row.name:<{margin - 2}}{drawn}  {row.notes}"
        yield " " * margin + self._step_labels("x")
        yield ""
        yield from self.legend()

    def _step_labels(self, mask_letter: str) -> str:
        return "".join(f"{mask_letter}{step + 1:<7}" for step in range(self.steps))

    def _connection_line(self, number: int, row: Row) -> str:
        parts = []
        for step in range(self.steps):
            marks = "┃┇" if self.on_path(number, step) else "│┊"
            parts.append(f"{marks[row.masked is True]}{row.mask_letter(step):<7}")
        return "".join(parts)

    def _layer_line(self, number: int, row: Row) -> str:
        box = "□" if row.inside else "■"
        parts = [box]
        for step in range(1, self.steps):
            marks = "━┅" if self.on_path(number, step) else "─╌"
            line = marks[row.masked is True] * 3
            middle = row.mask_letter(step) or line[0]
            parts.append(f"{line}{middle}{line}{box}")
        return "".join(parts) + " " * 7

    def legend(self) -> Iterator[str]:
        """What the marks mean, of those that are there."""
        if any(row.masked for row in self.rows):
            yield "dashed: masked, and in a row one letter is one mask; solid: whole"
        if any(row.by_channel for row in self.rows):
            yield "per channel: a mask falls on whole feature maps, at all positions alike"
        if any("?" in row.mask_letter(0) for row in self.rows):
            yield "?: not decided"
        if any(row.inside for row in self.rows):
            yield "□: a rule falls inside the cell, or on its weights"
        if any(row.wrong for row in self.rows):
            yield f"✗: unlike {self.wanted}"
        if self.path is not None:
            s, t = self.path
            yield f"heavy: from x{s} to y{t}, through {self._masks_text()}"

    def _masks_text(self) -> str:
        """What the path goes through."""
        count = self.corruptions
        if count is None:
            return "an unknown number of masks"
        drawn = sum(
            self.on_path(number, step)
            for number, row in enumerate(self.rows)
            for step in range(self.steps)
            if row.masked
        )
        inside = f", {count - drawn} of them in cells" if count > drawn else ""
        return f"{count} mask{'s' * (count != 1)}{inside}"
