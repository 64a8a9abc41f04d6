"""The unrolled network as a grid of layers and steps, with its masked and unmasked connections.

As in Zaremba et al. 2014, figure 2, a masked connection is dashed and an unmasked one is solid. A
path from an input to a later output (figure 3) can be drawn heavy, and its masks are counted.
Policies, audits and reports make the rows. This module turns them into text.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..argument_checks import as_integer, check_text, short_repr
from ..errors import PolicyError
from ..policies.rules import Lifetime, Rule
from ..policies.sites import CARRIED, COMPUTED, VERTICAL, Site

MAX_STEPS = 26
"""The largest number of steps. Each mask has a letter as its name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the grid: a vertical connection at every step, or a layer.

    Args:
        name: the name of the connection or layer.
        notes: the rules at this row, as text.
        masked: whether masks fall on the row's connections, from below or from step to step. None
            if this is unknown.
        per: how long such a mask lives. None if this is unknown.
        inside: whether a rule applies inside the cells: to an update or to weights.
        wrong: whether to mark the row as different from what it should be.
        passed: how many masks a signal passes here at one step. None if this is unknown.
        carried: how many masks a signal passes on its way into a layer's next step. None if this is
            unknown.
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
        """Make a row for a vertical connection.

        Args:
            name: the name of the connection.
            rule: the rule on the connection, or None.
            words: the rule on the embedding before the connection, or None.
        """
        notes = [rule.text()] if rule is not None else []
        notes += [f"word types {words.text()}"] if words is not None else []
        masked = rule is not None
        per = rule.per if rule else None
        by_channel = rule is not None and rule.shape == "channel"
        return Row(name, "; ".join(notes), masked, per, passed=int(masked), by_channel=by_channel)

    @staticmethod
    def layer(name: str, rules: Mapping[Site, Rule]) -> Row:
        """Make a row for a layer, under the rules on its cells."""
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
        """Return the letter of the mask at a step, counted from 0. "" if there is no mask.

        A letter stands for one mask. The masks of different rows differ, even if letters are equal.
        """
        if self.masked is False:
            return ""
        if self.masked is None or self.per is None:
            return "?"
        return chr(ord("a") + (step if self.per == "step" else 0))


def masks_passed(
    masked: Container[Site], undecided: Container[Site] = ()
) -> tuple[int | None, ...]:
    """Count the masks that a signal passes if it goes through h at every step.

    Only masks of zeros on activations count. Zoneout puts old values in place of dropped ones, and
    masks on weights drop single entries.

    Args:
        masked: the sites of a connection or layer where masks fall.
        undecided: the sites about which nothing is known.

    Returns:
        The number of masks on a connection or in a cell, and the number on the way into the cell's
        next step. None for a number that is unknown.
    """
    return tuple(
        None if any(site in undecided for site in sites) else sum(site in masked for site in sites)
        for sites in ((*VERTICAL, *COMPUTED), (Site.HIDDEN,))
    )


def corruptions(rows: Sequence[Row], distance: int) -> int | None:
    """Count the masks between x_s and y_t, for t − s = `distance`.

    For `zaremba` this is L+1 (Zaremba et al. 2014, figure 3). The signal goes up to the last layer
    at step s, through its h at every step until t, and out. A mask that it passes at several steps
    counts at each. The result is None if the number is unknown.
    """
    last = rows[-2]
    counts = [*(row.passed for row in rows), *[last.passed, last.carried] * distance]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


@dataclass(frozen=True, slots=True)
class Grid:
    """A diagram of L layers over T steps, with marks. `print` shows it.

    The arguments and errors are those of `Diagram`.
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
        """L, the number of layers."""
        return len(self.rows) // 2

    def on_path(self, row: int, step: int) -> bool:
        """Whether the path uses the connection of a row into a step, both counted from 0.

        The path goes up to the last layer at s, along that layer to t, and out.
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
        """The number of masks on the path. None if it is unknown, 0 without a path.

        For `zaremba` it is L+1, whatever t − s is.
        """
        return corruptions(self.rows, self.path[1] - self.path[0]) if self.path else 0

    def __repr__(self) -> str:
        """Describe the grid in one line. `print` draws it."""
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
        """Explain the marks that occur."""
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
        """Describe in words the masks that the path goes through."""
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
