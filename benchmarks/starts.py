"""Runs with one start in several backends: how far their losses differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from .tables import new_table

Result = dict[str, Any]

TOLERANCE = 1e-3
"""How far the loss of a common start may differ between backends, relative."""


def compare_starts(results: list[Result]) -> Table:
    """How far the losses of the first steps differ from the first backend's, run by run."""
    table = new_table(
        f"same start: largest relative difference of a step's loss (bound {TOLERANCE:g})",
        ("policy", "backends"),
        ("steps", "difference", "at step", "agree"),
    )
    for policy, a, b in pairs(results):
        steps, worst, place = start_difference(a["first_losses"], b["first_losses"])
        table.add_row(
            policy,
            f"{a['config']['backend']} and {b['config']['backend']}",
            str(steps),
            f"{worst:.2e}",
            str(place + 1),
            "yes" if worst <= TOLERANCE else "[red]no[/red]",
        )
    return table


def start_difference(a: list[float], b: list[float]) -> tuple[int, float, int]:
    """Over the steps that both have: how many, the largest relative difference, and where."""
    steps = min(len(a), len(b))
    first, second = np.array(a[:steps]), np.array(b[:steps])
    difference = np.abs(first - second) / np.abs(first)
    return steps, float(difference.max()), int(difference.argmax())


def pairs(results: list[Result]) -> list[tuple[str, Result, Result]]:
    """Of each policy and seed, the first backend with each of its others."""
    alike: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        config = result["config"]
        alike.setdefault((config["policy"], config["seed"]), []).append(result)
    return [(policy, runs[0], other) for (policy, _), runs in alike.items() for other in runs[1:]]
