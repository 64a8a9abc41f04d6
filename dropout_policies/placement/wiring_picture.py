"""The picture of how a model's recurrent layers are connected."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .connections import DropoutUse, LayerUse

WIDTH, HEIGHT, GAP = 220, 44, 76
"""The size of a box in pixels, and the distance from one box to the next."""


def draw_wiring(uses: Sequence[LayerUse], dropouts: Sequence[DropoutUse]) -> str:
    """Draw a box for each layer in the order of the run. Lines show what feeds it (solid for
    inputs, dashed for states), and marks with rates show the dropouts on the way."""
    rows = {use: number for number, use in enumerate(uses)}
    height = GAP * max(len(rows), 1) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {height}" width="520" '
        f'font-family="sans-serif" font-size="13" fill="none" stroke="#888888">'
    ]
    for use, row in rows.items():
        top = 30 + GAP * row
        parts.append(
            f'<rect x="150" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            + _text(260, top + 19, use.item.name)
            + _text(260, top + 35, f"{use.item.kind.rpartition('.')[2]}{_calls(use)}", 10)
        )
        parts.extend(_line(rows[s], row, "") for s in use.fed_by if s in rows)
        parts.extend(_line(rows[s], row, "4 4") for s in use.initial_state_from if s in rows)
        for is_input in (True, False):
            found = dict.fromkeys(
                one.dropout
                for one in dropouts
                if use.item in (one.inputs_of if is_input else one.outputs_of)
                and (is_input or not one.inputs_of)
            )
            label = ", ".join(f"{dropout.name} {dropout.rate}" for dropout in found)
            if label:
                parts.append(
                    _text(385, top - 8 if is_input else top + HEIGHT + 14, label, 10, "start")
                )
    legend = "solid: what comes in; dashed: the initial state" if len(rows) > 1 else ""
    parts.append(_text(260, height - 8, legend, 10))
    return "".join([*parts, "</svg>"])


def _calls(use: LayerUse) -> str:
    """How often a layer is called, and over how many steps, if that was observed."""
    if use.calls is None:
        return ""
    return f", {use.calls} call{'s' * (use.calls != 1)}, T = {use.steps}"


def _line(source: int, target: int, dashes: str) -> str:
    """A line from one box to another: straight down to the next, or around the boxes between."""
    start, end = 30 + GAP * source + HEIGHT, 30 + GAP * target
    dash = f' stroke-dasharray="{dashes}"' * bool(dashes)
    if target == source + 1:
        x = 280 if dashes else 240
        return f'<path d="M{x} {start}V{end}"{dash}/>'
    middle = 150 - 24 * min(abs(target - source), 5)
    start, end = start - HEIGHT // 2, end + HEIGHT // 2
    return f'<path d="M150 {start}H{middle}V{end}H150"{dash}/>'


def _text(x: int, y: int, text: str, size: int = 13, anchor: str = "middle") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" stroke="none" '
        f'fill="currentColor">{escape(text)}</text>'
    )
