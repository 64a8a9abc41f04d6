"""Runs that belong together: of a preset, or with seeds alone to differ in, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Result = dict[str, Any]


def by_seed(results: Sequence[Result]) -> dict[tuple[str, str, int], list[Result]]:
    """Runs by (policy with its rate, backend, epochs asked for)."""
    found: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        config = result["config"]
        key = (with_rate(config), config["backend"], config["epochs"])
        found.setdefault(key, []).append(result)
    return found


def by_preset(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by preset."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result["config"]["preset"], []).append(result)
    return found


def with_rate(config: dict[str, Any]) -> str:
    """A run's policy and rate, as tables and legends have them."""
    return config["policy"] + ("" if config["rate"] is None else f" {config['rate']:g}")


def epochs_done(runs: Sequence[Result]) -> str:
    """How many epochs runs have done: from the fewest to the most."""
    done = [len(run["epochs"]) for run in runs]
    return f"{min(done)}" if len(set(done)) == 1 else f"{min(done)}–{max(done)}"


def with_spread(values: Sequence[float], digits: int = 1) -> str:
    """The mean, and the deviation where there are several; nothing for none."""
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
