"""Grids as pictures: one layout of lines, boxes and texts, written as SVG or PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..errors import PolicyError
from .grid import Grid

COLUMN, LINE, BOX = 84, 31, 26
"""The pixels from step to step, from row to row, and across a cell."""

TEXT, SMALL = 13, 12
"""The font sizes in pixels."""

LETTER_WIDTH = 6.6
"""The approximate width of a letter in a note, in pixels."""

PNG_COLOURS = {
    "ink": "#1f2430",
    "faint": "#6b7280",
    "mask": "#d2560c",
    "path": "#3b82f6",
    "wrong": "#e11d48",
    "band": "#fbe0e6",
}
"""The colours in a PNG, on white."""

SVG_COLOURS = {
    "ink": "currentColor",
    "faint": "color-mix(in srgb, currentColor 65%, transparent)",
    "mask": "color-mix(in srgb, #ea6a12 80%, currentColor)",
    "path": "#3b82f6",
    "wrong": "color-mix(in srgb, #f43f5e 78%, currentColor)",
    "band": "rgb(225 29 72 / .14)",
}
"""The colours in an SVG. They build on the text colour of the page, so they suit light and dark
pages."""

SVG_STYLE = (
    ".dp-diagram{font-family:system-ui,sans-serif}"
    # A file on its own has no page from which to take the text colour.
    ":root.dp-diagram{color:#1f2430;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){:root.dp-diagram{color:#e5e7eb}}"
)


NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Control characters and the like. A policy's name may contain them, but XML may not."""


class Line(NamedTuple):
    """A line from (x, y) to (x2, y2)."""

    x: float
    y: float
    x2: float
    y2: float
    masked: bool
    on_path: bool

    @property
    def colour(self) -> str:
        return "path" if self.on_path else "mask" if self.masked else "ink"

    @property
    def width(self) -> float:
        return 4 if self.on_path else 1.5


class Box(NamedTuple):
    """A rectangle, filled or outlined."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    filled: bool = False


class Text(NamedTuple):
    """A text that starts at (x, y), or is centred there, on its base line.

    The text `lower` follows it, smaller and slightly lower.
    """

    x: float
    y: float
    text: str
    colour: str = "ink"
    size: int = TEXT
    centred: bool = False
    lower: str = ""


class Picture(NamedTuple):
    """The shapes to draw, from back to front."""

    width: int
    height: int
    shapes: list[Line | Box | Text]


def lay_out(grid: Grid) -> Picture:
    """Compute where everything is drawn."""
    rows, names = grid.rows, max(len(row.name) for row in grid.rows)
    left, top = 40 + int(LETTER_WIDTH * names), 40
    notes = left + (grid.steps - 1) * COLUMN + 64
    bottom = top + (len(rows) + 1) * LINE
    widest = max(LETTER_WIDTH * len(text) for text in [*(row.notes for row in rows), ""])
    legend = list(grid.legend())
    width = int(max(notes + widest + 12, 12 + LETTER_WIDTH * max(map(len, legend), default=0)))
    shapes: list[Line | Box | Text] = [Text(12, 20, grid.title)]
    for number, row in enumerate(rows):
        y = top + (len(rows) - number) * LINE
        if row.wrong:
            shapes.append(Box(4, y - LINE / 2, width - 8, LINE, "band", filled=True))
            shapes.append(Text(12, y + 4, f"✗ {row.name}", "wrong", SMALL))
        else:
            shapes.append(Text(12, y + 4, row.name, "faint", SMALL))
        shapes.append(Text(notes, y + 4, row.notes, "wrong" if row.wrong else "faint", SMALL))
    for number in range(len(rows)):
        y = top + (len(rows) - number) * LINE
        draw = _layer if number % 2 else _connections
        shapes.extend(draw(grid, number, left, y))
    for step in range(grid.steps):
        x = left + step * COLUMN
        shapes.append(Text(x, bottom + 14, "x", centred=True, lower=str(step + 1)))
        shapes.append(Text(x, top + 4, "y", centred=True, lower=str(step + 1)))
    for line, text in enumerate(legend):
        shapes.append(Text(12, bottom + 44 + 18 * line, text, "faint", SMALL))
    shown = [shape for shape in shapes if not isinstance(shape, Text) or shape.text]
    return Picture(width, bottom + 36 + 18 * len(legend), shown)


def _connections(grid: Grid, number: int, left: int, y: float) -> Iterator[Line | Text]:
    row, ends = grid.rows[number], LINE - BOX / 2
    for step in range(grid.steps):
        x = left + step * COLUMN
        on_path = grid.on_path(number, step)
        yield Line(x, y + ends, x, y - ends, row.masked is True, on_path)
        yield Text(x + 6, y + 4, row.mask_letter(step), "mask", SMALL)


def _layer(grid: Grid, number: int, left: int, y: float) -> Iterator[Line | Box | Text]:
    row, half = grid.rows[number], BOX / 2
    for step in range(grid.steps):
        x = left + step * COLUMN
        if step:
            on_path = grid.on_path(number, step)
            yield Line(x - COLUMN + half, y, x - half, y, row.masked is True, on_path)
            yield Text(x - COLUMN / 2 - 3, y - 6, row.mask_letter(step), "mask", SMALL)
        yield Box(x - half, y - half, BOX, BOX, "mask" if row.inside else "ink")


def svg(grid: Grid) -> str:
    """Draw a grid as an SVG document, whose colours follow the page."""
    width, height, shapes = lay_out(grid)
    title = f"{grid.title}, {grid.layers} layers over {grid.steps} steps"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="dp-diagram" role="img" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{_escaped(title)}</title><desc>{_escaped(str(grid))}</desc>"
        f"<style>{SVG_STYLE}</style>"
    )
    return head + "".join(map(_element, shapes)) + "</svg>\n"


def _escaped(text: str) -> str:
    return escape(NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def _element(shape: Line | Box | Text) -> str:
    paint = SVG_COLOURS[shape.colour]
    if isinstance(shape, Line):
        dashes = ' stroke-dasharray="4 4"' if shape.masked else ""
        return (
            f'<line x1="{shape.x:g}" y1="{shape.y:g}" x2="{shape.x2:g}" y2="{shape.y2:g}" '
            f'style="stroke:{paint}" stroke-width="{shape.width:g}"{dashes}/>'
        )
    if isinstance(shape, Box):
        style = f"fill:{paint}" if shape.filled else f"fill:none;stroke:{paint};stroke-width:1.5"
        return (
            f'<rect x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" '
            f'height="{shape.height:g}" rx="5" style="{style}"/>'
        )
    anchor = ' text-anchor="middle"' if shape.centred else ""
    lower = f'<tspan dy="3" font-size="9">{shape.lower}</tspan>' if shape.lower else ""
    return (
        f'<text x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}"{anchor} '
        f'style="fill:{paint}">{_escaped(shape.text)}{lower}</text>'
    )


def png(grid: Grid, path: Path) -> None:
    """Write a grid as a PNG, on white.

    Raises:
        PolicyError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.patches import FancyBboxPatch
    except ImportError:
        raise PolicyError(
            f"A PNG needs Matplotlib: pip install 'dropout-policies[pictures]', or write an SVG. "
            f"Received: {path}"
        ) from None
    width, height, shapes = lay_out(grid)
    points = 72 / 100  # the size of a pixel, at 100 pixels per inch
    figure = Figure((width / 100, height / 100), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for depth, shape in enumerate(shapes):
        colour = PNG_COLOURS[shape.colour]
        if isinstance(shape, Line):
            dashes = (0, (2, 2) if shape.on_path else (3, 3)) if shape.masked else "-"
            drawn = Line2D((shape.x, shape.x2), (shape.y, shape.y2), color=colour, zorder=depth)
            drawn.set(linewidth=points * shape.width, linestyle=dashes, solid_capstyle="butt")
            axes.add_line(drawn)
        elif isinstance(shape, Box):
            style = "round,pad=0,rounding_size=5"
            corner, edge = (shape.x, shape.y), "none" if shape.filled else colour
            box = FancyBboxPatch(corner, shape.width, shape.height, style, edgecolor=edge)
            box.set(facecolor=colour if shape.filled else "none", zorder=depth)
            axes.add_patch(box)
        else:
            text = shape.text + (f"$_{{{shape.lower}}}$" if shape.lower else "")
            where = "center" if shape.centred else "left"
            axes.text(
                *(shape.x, shape.y, text),
                color=colour,
                fontsize=points * shape.size,
                ha=where,
                zorder=depth,
                parse_math=bool(shape.lower),  # a name may contain a dollar sign
            )
    figure.savefig(path)
