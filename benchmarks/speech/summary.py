"""What the runs gave: frame accuracies beside the paper's, and the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from ..curves import bands, by_epoch, new_figure, write
from ..spread import by_seed, epochs_done, with_spread
from ..tables import new_table

Result = dict[str, Any]

PAPER = {"none": (71.6, 68.9), "zaremba": (69.4, 70.5)}
"""Frame accuracies of training and validation in Zaremba et al. 2014, table 2: another corpus
(Icelandic), other states, another network."""


def figures(runs: list[Result]) -> list[str]:
    """Training and held-out accuracy, and held-out nats a frame, of runs that differ in their
    seeds, as tables have them."""
    return [
        with_spread([run["train_accuracy"] for run in runs if "train_accuracy" in run]),
        with_spread([run["epochs"][-1]["held_out_accuracy"] for run in runs]),
        with_spread([run["epochs"][-1]["held_out_nats"] for run in runs], digits=2),
    ]


def summary(results: list[Result]) -> Table:
    """Each policy's accuracies, above the paper's."""
    table = new_table(
        "frame accuracy in %, loss of a held-out frame in nats\nmean ± deviation over seeds",
        ("policy", "backend"),
        ("seeds", "epochs", "training", "held out", "nats"),
    )
    for (policy, backend, epochs), runs in by_seed(results).items():
        done = f"{epochs_done(runs)}/{epochs}"
        table.add_row(policy, backend, str(len(runs)), done, *figures(runs))
    table.add_section()
    for policy, both in PAPER.items():
        table.add_row(policy, "(paper)", "", "", *(f"{figure:.1f}" for figure in both), "")
    return table


def curves(results: list[Result], path: Path) -> Path:
    """Draw held-out accuracy and training loss by epoch, and write them as a PNG."""
    figure, axes = new_figure(ncols=2, figsize=(9, 4))
    for place, key in zip(axes, ("held_out_accuracy", "train_nats"), strict=True):
        bands(place, results, key, "-", "")
        by_epoch(place)
    axes[0].set(ylabel="held-out accuracy (%)")
    axes[1].set(ylabel="training loss with dropout (nats per frame)")
    axes[0].legend(fontsize="small")
    return write(figure, path)
