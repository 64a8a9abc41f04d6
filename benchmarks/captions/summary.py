"""What the runs gave: perplexities and BLEU beside the paper's, and the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..spread import by_seed, with_rate, with_spread
from ..tables import new_table

Result = dict[str, Any]

PAPER = {
    "none": (8.47, 23.5),
    "zaremba": (7.99, 24.3),
    "none, 10 models": (7.5, 24.4),
}
"""Test perplexity and BLEU in Zaremba et al. 2014, table 5: MSCOCO, and a stronger CNN."""


def figures(runs: list[Result]) -> list[str]:
    """The lowest validation perplexity, and of that epoch's weights the test's, BLEU-1 and BLEU-4:
    of runs that differ in their seeds, as tables have them."""
    return [
        with_spread([min(e["valid_perplexity"] for e in r["epochs"]) for r in runs], digits=2),
        with_spread([r["test_perplexity"] for r in runs if "test_perplexity" in r], digits=2),
        with_spread([run["bleu_1"] for run in runs if "bleu_1" in run]),
        with_spread([run["bleu_4"] for run in runs if "bleu_4" in run]),
    ]


def summary(results: list[Result]) -> Table:
    """Each policy's figures, above the paper's."""
    table = new_table(
        "captions: perplexities and BLEU of the best epoch\nmean ± deviation over seeds",
        ("policy", "backend"),
        ("seeds", "epochs", "valid", "test", "BLEU-1", "BLEU-4"),
    )
    for (policy, backend), runs in by_seed(results).items():
        epochs = f"{min(len(run['epochs']) for run in runs)}/{runs[0]['config']['epochs']}"
        table.add_row(policy, backend, str(len(runs)), epochs, *figures(runs))
    table.add_section()
    for policy, (perplexity, bleu) in PAPER.items():
        place = ("", "", "", f"{perplexity:.2f}", "", f"{bleu:.1f}")
        table.add_row(policy, "the paper's", *place)
    return table


def averages(result: Result) -> Table:
    """How the average of models gets better with their number."""
    table = new_table(
        "captions: models averaged", ("with",), ("models", "valid", "test", "BLEU-1", "BLEU-4")
    )
    for row, member in zip(result["averages"], result["members"], strict=True):
        name = f"{member['preset']} {with_rate(member)}, {member['backend']}, seed {member['seed']}"
        table.add_row(name, str(row["models"]), *average_figures(row))
    return table


def average_figures(row: dict[str, Any]) -> list[str]:
    """An average's perplexities and BLEU, as tables have them."""
    perplexities = [f"{row[name]:.2f}" for name in ("valid_perplexity", "test_perplexity")]
    return perplexities + [f"{row[name]:.1f}" for name in ("bleu_1", "bleu_4")]


def baselines(result: Result) -> Table:
    """What captions score that no model wrote."""
    table = new_table("captions of training images", ("taken",), ("BLEU-1", "BLEU-4"))
    for name, row in result["baselines"].items():
        table.add_row(name, f"{row['bleu_1']:.1f}", f"{row['bleu_4']:.1f}")
    return table


def curves(results: list[Result], path: Path) -> Path:
    """Draw training and validation perplexity by epoch, and write it as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, ((policy, backend), runs) in enumerate(by_seed(results).items()):
        shortest = min(len(run["epochs"]) for run in runs)
        steps = np.arange(1, shortest + 1)
        for key, style in (("valid_perplexity", "-"), ("train_perplexity", ":")):
            values = np.array([[e[key] for e in run["epochs"][:shortest]] for run in runs])
            label = f"{policy}, {backend}, {key[:5]}"
            axes.plot(steps, values.mean(0), style, color=f"C{number}", label=label)
            low, high = values.min(0), values.max(0)
            axes.fill_between(steps, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
