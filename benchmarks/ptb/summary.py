"""What the runs gave: the table beside the paper's figures, the curves, the common start."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from ..spread import with_rate
from .presets import PRESETS

Result = dict[str, Any]

TOLERANCE = 1e-3
"""How far the loss of a common start may differ between backends, relative."""


def summary(results: list[Result]) -> Table:
    """Each run's perplexities, above the paper's and the corpus's floor."""
    corpus, preset = results[0]["corpus"], results[0]["config"]["preset"]
    tokens = " / ".join(f"{count:,}" for count in corpus["tokens"])
    table = _table(
        f"{preset} on {corpus['name']}: perplexities\n{tokens} tokens, "
        f"{corpus['vocabulary']:,} words",
        ("policy", "backend"),
        ("seed", "epochs", "train", "valid", "best", "test", "words/s"),
    )
    for result in results:
        config, epochs = result["config"], result["epochs"]
        table.add_row(
            with_rate(config),
            config["backend"],
            str(config["seed"]),
            f"{len(epochs)}/{config['epochs']}",
            rounded(epochs[-1]["train_perplexity"]),
            rounded(epochs[-1]["valid_perplexity"]),
            rounded(min(epoch["valid_perplexity"] for epoch in epochs)),
            rounded(result.get("test_perplexity")),
            f"{np.median([epoch['words_per_second'] for epoch in epochs]):,.0f}",
        )
    table.add_section()
    paper = PRESETS[preset].paper if corpus["name"] == "ptb" else None
    if paper is not None:
        table.add_row("the paper's", "", "", "", "", rounded(paper[0]), "", rounded(paper[1]), "")
    if corpus["floor"]:
        floor = rounded(corpus["floor"])
        table.add_row("the floor", "", "", "", "", floor, "", floor, "")
    return table


def averages(result: Result) -> Table:
    """How the average of models gets better with their number."""
    table = _table(
        f"models averaged, on {result['corpus']}", ("with",), ("models", "valid", "test")
    )
    for row, member in zip(result["averages"], result["members"], strict=True):
        name = f"{member['preset']} {with_rate(member)}, {member['backend']}, seed {member['seed']}"
        figures = (rounded(row["valid_perplexity"]), rounded(row["test_perplexity"]))
        table.add_row(name, str(row["models"]), *figures)
    return table


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def rounded(value: float | None) -> str:
    """A perplexity as tables have it; nothing for one that there is not."""
    return "" if value is None else f"{value:.1f}"


def compare_starts(results: list[Result]) -> Table:
    """How far the losses of the first steps differ from the first backend's, run by run."""
    table = _table(
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


def curves(results: list[Result], path: Path) -> Path:
    """Draw training and validation perplexity by epoch, and write it as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    policies = list(dict.fromkeys(result["config"]["policy"] for result in results))
    backends = list(dict.fromkeys(result["config"]["backend"] for result in results))
    for result in results:
        config, epochs = result["config"], result["epochs"]
        colour = f"C{policies.index(config['policy'])}"
        marker = "os^D"[backends.index(config["backend"])]
        steps = range(1, len(epochs) + 1)
        label = f"{with_rate(config)}, {config['backend']}"
        for key, style in (("valid_perplexity", "-"), ("train_perplexity", ":")):
            values = [epoch[key] for epoch in epochs]
            axes.plot(steps, values, style, color=colour, marker=marker, markersize=4)
            axes.plot([], [], style, color=colour, marker=marker, label=f"{label}, {key[:5]}")
    corpus = results[0]["corpus"]
    if corpus["floor"]:
        axes.axhline(corpus["floor"], color="0.4", linewidth=1, label="entropy of the language")
    highest = max(e["valid_perplexity"] for r in results for e in r["epochs"])
    axes.set(
        xlabel="epoch",
        ylabel="perplexity",
        yscale="log",
        title=f"{results[0]['config']['preset']}: {corpus['name']}, validation and training",
    )
    axes.set_ylim(top=min(highest, math.inf) * 1.1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
