"""A policy on the unrolled network: a grid of layers and steps, as text and as SVG.

As in the paper (Zaremba et al. 2014, figure 2), a connection is dashed where a mask falls on it and
solid where it is whole; a path from an input to a later output (its figure 3) can be drawn heavy,
and its masks are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from .errors import PolicyError
from .policy import Policy
from .rates import highest
from .rule import Rule
from .sites import CARRIED, VERTICAL, Site

MOST = 26
"""Masks have letters for names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the grid: a vertical connection of every step, or a layer.

    Args:
        name: of the connection or layer.
        mask: the rule on its connections, from below or from step to step; None where all is whole.
        notes: the rules that fall here, as text.
        inside: whether a rule falls within the cells: on an update, or on weights.
    """

    name: str
    mask: Rule | None
    notes: str
    inside: bool = False

    def letter(self, step: int) -> str:
        """The name of the mask of a step, from 0: one letter for one mask; "" where there is none.

        Rows have masks of their own, whatever the letters.
        """
        if self.mask is None:
            return ""
        return chr(ord("a") + (step if self.mask.per == "step" else 0))


@dataclass(frozen=True, slots=True)
class Diagram:
    """A policy over L layers and T steps: `print` it, or write its `svg()` to a file.

    Args:
        policy: what falls where.
        layers, steps: L and T.
        path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy; or None.

    Raises:
        PolicyError: there are no layers, no steps or too many, or no such path.
    """

    policy: Policy
    layers: int = 2
    steps: int = 4
    path: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.layers < 1 or not 1 <= self.steps <= MOST:
            raise PolicyError(
                f"A diagram has at least one layer, and 1 to {MOST} steps. "
                f"Received: layers={self.layers}, steps={self.steps}"
            )
        if self.path is not None:
            s, t = self.path
            if not 1 <= s <= t <= self.steps:
                raise PolicyError(
                    f"A path goes from a step s to a step t with 1 <= s <= t <= {self.steps}. "
                    f"Received: path={self.path}"
                )

    def rows(self) -> tuple[Row, ...]:
        """From the bottom up: the input, layer 1, what is between, layer 2, ..., the output."""
        found = [self._vertical(Site.INPUT, 0)]
        for depth in range(self.layers):
            found.append(self._layer(depth))
            site = Site.BETWEEN if depth + 1 < self.layers else Site.OUTPUT
            found.append(self._vertical(site, min(depth + 1, self.layers - 1)))
        return tuple(found)

    def _vertical(self, site: Site, depth: int) -> Row:
        rule = self._rule(site, depth)
        notes = "" if rule is None else rule.text()
        if site is Site.INPUT:
            words = self._rule(Site.EMBEDDING, 0)
            notes += "" if words is None else "; " * bool(notes) + f"word types {words.text()}"
        return Row(site.value, rule, notes)

    def _layer(self, depth: int) -> Row:
        rules = {
            site: rule
            for site in Site
            if site not in VERTICAL | {Site.EMBEDDING}
            and (rule := self._rule(site, depth)) is not None
        }
        carried = [rules[site] for site in CARRIED if site in rules]
        notes = "; ".join(f"{site.value} {rule.text()}" for site, rule in rules.items())
        inside = any(site not in CARRIED for site in rules)
        return Row(f"layer {depth + 1}", carried[0] if carried else None, notes, inside)

    def _rule(self, site: Site, depth: int) -> Rule | None:
        """The rule at a site of a layer, if it ever drops anything there."""
        if site not in self.policy:
            return None
        rule = self.policy[site].of_layers(depth, 1)
        return rule if highest(rule.rate) > 0.0 else None

    def heavy(self, row: int, step: int) -> bool:
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
    def corruptions(self) -> int:
        """How many masks lie on the path; under `zaremba` L+1, whatever t − s."""
        return sum(
            row.mask is not None and self.heavy(number, step)
            for number, row in enumerate(self.rows())
            for step in range(self.steps)
        )

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        rows = self.rows()
        margin = max(len(row.name) for row in rows) + 4
        yield f"{self.policy.name}: L = {self.layers}, T = {self.steps}"
        yield ""
        yield " " * margin + self._ends("y")
        for number in reversed(range(len(rows))):
            row = rows[number]
            drawn = self._cells(number, row) if number % 2 else self._ups(number, row)
            yield f"  {row.name:<{margin - 2}}{drawn}  {row.notes}"
        yield " " * margin + self._ends("x")
        yield ""
        yield from self._legend(rows)

    def _ends(self, letter: str) -> str:
        return "".join(f"{letter}{step + 1:<7}" for step in range(self.steps))

    def _ups(self, number: int, row: Row) -> str:
        parts = []
        for step in range(self.steps):
            marks = "┃┇" if self.heavy(number, step) else "│┊"
            parts.append(f"{marks[row.mask is not None]}{row.letter(step):<7}")
        return "".join(parts)

    def _cells(self, number: int, row: Row) -> str:
        box = "□" if row.inside else "■"
        parts = [box]
        for step in range(1, self.steps):
            marks = "━┅" if self.heavy(number, step) else "─╌"
            line = marks[row.mask is not None] * 3
            middle = row.letter(step) or line[0]
            parts.append(f"{line}{middle}{line}{box}")
        return "".join(parts) + " " * 7

    def _legend(self, rows: tuple[Row, ...]) -> Iterator[str]:
        if any(row.mask is not None for row in rows):
            yield "dashed: masked, and in a row one letter is one mask; solid: whole"
        if any(row.inside for row in rows):
            yield "□: a rule falls inside the cell, or on its weights"
        if self.path is not None:
            s, t = self.path
            count = self.corruptions
            yield f"heavy: from x{s} to y{t}, through {count} mask{'s' * (count != 1)}"

    def svg(self) -> str:
        """The diagram as an SVG document, for light and dark pages."""
        return _svg(self)

    def _repr_html_(self) -> str:
        return self.svg()


COLUMN, LINE, BOX = 84, 62, 26

STYLE = """
svg{--ink:#1f2430;--faint:#6b7280;--mask:#c2410c;--path:#2563eb;background:transparent}
@media (prefers-color-scheme:dark){svg{--ink:#e5e7eb;--faint:#9ca3af;--mask:#fb923c;--path:#60a5fa}}
text{font:13px system-ui,sans-serif;fill:var(--ink)}
.note{fill:var(--faint);font-size:12px}.mask{fill:var(--mask);font-size:12px}
line{stroke:var(--ink);stroke-width:1.5}line.masked{stroke:var(--mask);stroke-dasharray:4 4}
line.heavy{stroke:var(--path);stroke-width:4}
rect{fill:none;stroke:var(--ink);stroke-width:1.5}rect.inside{stroke:var(--mask)}
"""


def _svg(picture: Diagram) -> str:
    rows = picture.rows()
    left, top = 90, 46
    notes = left + picture.steps * COLUMN - 20
    height = top + (len(rows) + 1) * LINE // 2 + 40
    width = notes + 10 + max((7 * len(row.notes) for row in rows), default=0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(str(picture))}</title><style>{STYLE}</style>",
        _text(left - 78, 20, picture.policy.name),
    ]
    for number, row in enumerate(rows):
        middle = top + (len(rows) - number) * LINE // 2
        parts.append(_text(left - 78, middle + 4, row.name, "note"))
        if row.notes:
            parts.append(_text(notes, middle + 4, row.notes, "note"))
        for step in range(picture.steps):
            x, letter = left + step * COLUMN, row.letter(step)
            kind = " ".join(
                name
                for name, true in (
                    ("masked", row.mask is not None),
                    ("heavy", picture.heavy(number, step)),
                )
                if true
            )
            if number % 2 == 0:
                ends = LINE // 2 - BOX // 2
                parts.append(_line(x, middle + ends, x, middle - ends, kind))
                parts.append(_text(x + 6, middle + 4, letter, "mask") if letter else "")
                continue
            if step:
                parts.append(_line(x - COLUMN + BOX // 2, middle, x - BOX // 2, middle, kind))
                parts.append(_text(x - COLUMN // 2 - 3, middle - 6, letter, "mask"))
            inside = ' class="inside"' if row.inside else ""
            parts.append(
                f'<rect x="{x - BOX // 2}" y="{middle - BOX // 2}" width="{BOX}" height="{BOX}" '
                f'rx="5"{inside}/>'
            )
    for step in range(picture.steps):
        x = left + step * COLUMN
        bottom = top + (len(rows) + 1) * LINE // 2
        parts.append(_end(x, bottom + 2, "x", step + 1))
        parts.append(_end(x, top + 4, "y", step + 1))
    return "".join(part for part in parts if part) + "</svg>\n"


def _line(x1: int, y1: int, x2: int, y2: int, kind: str) -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"{named}/>'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{named}>{escape(text)}</text>' if text else ""


def _end(x: int, y: int, letter: str, step: int) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="middle">{letter}'
        f'<tspan dy="3" font-size="9">{step}</tspan></text>'
    )
