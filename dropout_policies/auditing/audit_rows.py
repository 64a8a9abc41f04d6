"""Arranges the findings of an audit as the rows of a diagram, and counts masks along a path."""

from __future__ import annotations

from collections.abc import Sequence, Set

from ..pictures.grid import Row, masks_passed
from ..policies.sites import CARRIED, VERTICAL, Site
from .probing.findings import Finding


def make_rows(findings: Sequence[Finding], layers: int, marked: Set[Finding]) -> list[Row]:
    """Make the rows of a diagram, from the input up.

    Args:
        findings: the findings for every site.
        layers: L.
        marked: the findings to mark as different from a policy.
    """
    rows = []
    for layer in range(layers):
        of_layer = [f for f in findings if f.layer == layer]
        inputs = [f for f in of_layer if f.site in (Site.INPUT, Site.BETWEEN)]
        embedding = [f for f in findings if f.site is Site.EMBEDDING and layer == 0]
        rows.append(_make_row("between" if layer else "input", inputs, embedding, marked))
        inside = [f for f in of_layer if f.site not in VERTICAL]
        carried = [f for f in inside if f.site in CARRIED]
        updates = [f for f in inside if f.site not in CARRIED]
        rows.append(_make_row(f"layer {layer + 1}", carried, updates, marked))
    outputs = [f for f in findings if f.site is Site.OUTPUT]
    rows.append(_make_row("output", outputs, [], marked))
    return rows


def _make_row(
    name: str, line: Sequence[Finding], off_line: Sequence[Finding], marked: Set[Finding]
) -> Row:
    """Make one row.

    Args:
        name: the name of the row.
        line: the findings on the row's line.
        off_line: the findings beside the line: those of an embedding, of updates, of weights.
        marked: the findings to mark.
    """
    everything = [*line, *off_line]
    masked = [f for f in line if f.verdict == "masked"]
    is_unknown = not masked and any(f.verdict == "undecided" for f in line)
    lifetimes = {f.per for f in masked}
    notes: list[str] = []
    for found in everything:
        site = "" if found.site in VERTICAL else f"{found.site.value} "
        if found.verdict == "masked":
            notes.append(f"{'backward ' * found.direction}{site}{found.text()}")
        elif found in marked:
            notes.append(f"{site}whole")
    undecided = [f.site.value for f in everything if f.verdict == "undecided"]
    notes += [f"undecided: {', '.join(dict.fromkeys(undecided))}"] if undecided else []
    passed, passed_again = _count_masks([f for f in everything if f.site is not Site.EMBEDDING])
    return Row(
        name,
        "; ".join(dict.fromkeys(notes)),
        None if is_unknown else bool(masked),
        lifetimes.pop() if len(lifetimes) == 1 else None,
        any(f.verdict == "masked" and f.site is not Site.EMBEDDING for f in off_line),
        any(f in marked for f in everything),
        passed,
        passed_again,
    )


def _count_masks(findings: Sequence[Finding]) -> tuple[int | None, ...]:
    """Count the masks on a row that a signal passes, in the row's first direction."""
    direction = min((f.direction for f in findings), default=0)
    sites = {
        verdict: {f.site for f in findings if (f.direction, f.verdict) == (direction, verdict)}
        for verdict in ("masked", "undecided")
    }
    return masks_passed(sites["masked"], sites["undecided"])
