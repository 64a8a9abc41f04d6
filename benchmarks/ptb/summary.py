"""What the runs gave: the table beside the paper's figures, and the curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..curves import INK, bands, by_epoch, in_perplexity, new_figure, write
from ..spread import by_seed, with_rate
from ..tables import new_table
from .presets import PRESETS

Result = dict[str, Any]


def summary(results: list[Result]) -> Table:
    """Each run's perplexities, above the paper's and the corpus's floor."""
    corpus, preset = results[0]["corpus"], results[0]["config"]["preset"]
    tokens = " / ".join(f"{count:,}" for count in corpus["tokens"])
    table = new_table(
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
        table.add_row("(paper)", "", "", "", "", rounded(paper[0]), "", rounded(paper[1]), "")
    if corpus["floor"]:
        floor = rounded(corpus["floor"])
        table.add_row("the floor", "", "", "", "", floor, "", floor, "")
    return table


def averages(result: Result) -> Table:
    """How the average of models gets better with their number."""
    table = new_table(
        f"models averaged, on {result['corpus']}", ("with",), ("models", "valid", "test")
    )
    for row, member in zip(result["averages"], result["members"], strict=True):
        name = f"{member['preset']} {with_rate(member)}, {member['backend']}, seed {member['seed']}"
        figures = (rounded(row["valid_perplexity"]), rounded(row["test_perplexity"]))
        table.add_row(name, str(row["models"]), *figures)
    return table


def rounded(value: float | None) -> str:
    """A perplexity as tables have it; nothing for one that there is not."""
    return "" if value is None else f"{value:.1f}"


def curves(results: list[Result], path: Path) -> Path:
    """Draw training and validation perplexity by epoch, and write it as a PNG."""
    figure, axes = new_figure(figsize=(8, 5))
    bands(axes, results, "valid_perplexity", "-", "")
    bands(axes, results, "train_perplexity", ":", None)
    for style, what in (("-", "validation"), (":", "training")):
        axes.plot([], [], style, color=INK, label=what)
    corpus = results[0]["corpus"]
    if corpus["floor"]:
        axes.axhline(corpus["floor"], color=INK, linewidth=1, label="entropy of the language")
    highest = max(e["valid_perplexity"] for r in results for e in r["epochs"])
    preset = results[0]["config"]["preset"]
    axes.set(title=f"{preset}: {corpus['name']}, validation and training")
    by_epoch(axes)
    in_perplexity(axes)
    axes.set_ylim(top=min(highest, math.inf) * 1.1)
    axes.legend(fontsize="small", ncols=1 + len(by_seed(results)) // 7)
    return write(figure, path)
