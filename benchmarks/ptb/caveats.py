"""What the comparison of all policies shows and what it does not, in sentences with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import fmean
from typing import Any

from ..spread import by_seed

Result = dict[str, Any]


def caveats(runs: Sequence[Result]) -> str:
    """The paragraph below the table of a comparison of policies.

    Args:
        runs: the finished runs of the table.
    """
    groups = list(by_seed(runs).values())
    means = {
        group[0]["config"]["policy"]: fmean(run["test_perplexity"] for run in group)
        for group in groups
    }
    seeds = min(map(len, groups))
    rows = "each row is a single run" if seeds == 1 else f"some rows have only {seeds} seeds"
    paragraph = [
        *_against_none(means),
        f"The order of the policies says little: {rows}, and the rates are the policies' defaults, "
        "which were not tuned for this model and drop different amounts.",
        *_naive_against_zaremba(means),
    ]
    return "\n".join(paragraph)


def _against_none(means: dict[str, float]) -> list[str]:
    """Which policies have a lower perplexity than none."""
    if "none" not in means:
        return []
    worse = [f"`{name}`" for name, mean in means.items() if mean >= means["none"]]
    worse.remove("`none`")
    which = f"Every policy except {', '.join(worse)}" if worse else "Every policy"
    return [f"{which} has a lower test perplexity than `none`."]


def _naive_against_zaremba(means: dict[str, float]) -> list[str]:
    """What it means if the placement that the paper warns against is ahead."""
    if not means.get("naive", inf) < means.get("zaremba", -inf):
        return []
    return [
        f"For example, `naive` is ahead of `zaremba` here ({means['naive']:.1f} and "
        f"{means['zaremba']:.1f}). But `naive` also masks the hidden state, so it drops more at "
        "the same rate, which may be what helps a model that overfits so much.",
        "The table does not test long memory, which `naive` harms; [the copy "
        "task](notebooks/copy_task.ipynb) does.",
    ]
