"""Pictures of figures that runs have for every epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_atomically
from .spread import by_seed

Result = dict[str, Any]


# Text and lines that a page's light and its dark background both show well.
INK = "#85858d"
STYLE = {
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"], INK),
    **dict.fromkeys(["xtick.color", "ytick.color", "grid.color"], INK),
    "legend.framealpha": 0.0,
    "savefig.transparent": True,
}


def new_figure(**options: Any) -> tuple[Any, Any]:
    """A figure and its axes, as matplotlib's `subplots` has them, that no screen is needed for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(STYLE)
    return plt.subplots(layout="constrained", **options)


def bands(axes: Any, results: Sequence[Result], key: str, style: str, named: str | None) -> None:
    """Draw a figure by epoch: of runs that differ in their seeds the mean, and the range behind it.

    Args:
        axes: where.
        results: the runs; each policy and backend has a colour, at each number of epochs.
        key: the figure's name in results.
        style: of the lines.
        named: what the legend says after policy and backend; None for lines that it leaves out.
    """
    for number, ((policy, backend, _), runs) in enumerate(by_seed(results).items()):
        shortest = min(len(run["epochs"]) for run in runs)
        values = np.array([[e[key] for e in run["epochs"][:shortest]] for run in runs])
        steps, colour = np.arange(1, shortest + 1), f"C{number}"
        label = None if named is None else f"{policy}, {backend}{named}"
        axes.plot(steps, values.mean(0), style, color=colour, label=label)
        low, high = values.min(0), values.max(0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def in_perplexity(axes: Any) -> None:
    """An axis of perplexities: logarithmic, with as many plain numbers as there is room for."""
    from matplotlib.ticker import LogFormatter

    axes.set(ylabel="perplexity", yscale="log")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(3, 0.7)))


def by_epoch(axes: Any) -> None:
    """An axis of epochs, and a grid."""
    axes.set(xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3, which="both")


def write(figure: Any, path: Path) -> Path:
    """Write a figure as a PNG, and close it; where it is.

    Raises:
        FileError: it cannot be written.
    """
    from matplotlib import pyplot as plt

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    plt.close(figure)
    write_atomically(path, drawn.getvalue())
    return path
