"""Runs with the same start in several backends: how far their losses differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from .config import RunConfig
from .spread import with_rate
from .tables import new_table

Result = dict[str, Any]

HEAD = """## The same start in every backend

With `--same-start`, every backend gets the same initial weights, and with keyed masks also the same
masks. The learning rate of the first 200 steps is a quarter of the recipe's. The table shows how
far the losses of two backends differ at most in these steps, relative to the loss.

| task | preset | policy | backends | steps | largest difference | bound |
|---|---|---|---|---:|---:|---:|"""

TOLERANCE = 1e-3
"""How far losses from the same start may differ between backends, relative to the loss."""


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
    """Of runs that differ in nothing else, the first backend with each of the others."""
    alike: dict[RunConfig, list[Result]] = {}
    for result in results:
        config = replace(RunConfig.from_dict(result["config"]), backend="")
        alike.setdefault(config, []).append(result)
    return [(config.policy, runs[0], other) for config, runs in alike.items() for other in runs[1:]]


def section(results: list[Result]) -> str:
    """The same comparison, on the page of results."""
    lines, differences = [HEAD], []
    for _, a, b in pairs(results):
        steps, difference, _ = start_difference(a["first_losses"], b["first_losses"])
        config, other = RunConfig.from_dict(a["config"]), b["config"]["backend"]
        differences.append(difference)
        lines.append(
            f"| {config.task} | {config.preset} | {with_rate(a['config'])} "
            f"| {config.backend} and {other} | {steps} | {difference:.1e} | {TOLERANCE:g} |"
        )
    agree = all(difference <= TOLERANCE for difference in differences)
    verdict = (
        "All differences are within the bound."
        if agree
        else "**Some differences are above the bound.**"
    )
    return "\n".join([*lines, "", verdict, ""])
