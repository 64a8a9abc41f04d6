"""What runs of a task that writes sentences gave, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..curves import bands, by_epoch, in_perplexity, new_figure, write
from ..spread import by_seed, epochs_done, with_rate, with_spread
from ..tables import new_table

Result = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """The figures of a task.

    Args:
        task: its name.
        scores: the names of its BLEU scores in results, by their headings.
        paper: of each row of the paper's table, the test perplexity and BLEU, which stands under
            the last of `scores`.
    """

    task: str
    scores: dict[str, str]
    paper: dict[str, tuple[float, float]]

    @property
    def headings(self) -> tuple[str, ...]:
        """Of the figures."""
        return ("valid", "test", *self.scores)

    def figures(self, runs: Sequence[Result]) -> list[str]:
        """The lowest validation perplexity, and of that epoch's weights the test's and the scores:
        of runs that differ in their seeds, as tables have them."""
        done = [run for run in runs if "test_perplexity" in run]
        lowest = [min(e["valid_perplexity"] for e in run["epochs"]) for run in runs]
        perplexities = [lowest, [run["test_perplexity"] for run in done]]
        scores = [[run[name] for run in done] for name in self.scores.values()]
        return [with_spread(each, digits=2) for each in perplexities] + [
            with_spread(each) for each in scores
        ]

    def of_average(self, row: dict[str, Any]) -> list[str]:
        """The same of an average of models."""
        perplexities = [f"{row[name]:.2f}" for name in ("valid_perplexity", "test_perplexity")]
        return perplexities + [f"{row[name]:.1f}" for name in self.scores.values()]

    def of_paper(self, row: str) -> list[str]:
        """The same of a row of the paper's table."""
        perplexity, bleu = self.paper[row]
        return ["", f"{perplexity:g}", *[""] * (len(self.scores) - 1), f"{bleu:g}"]

    def summary(self, results: list[Result]) -> Table:
        """Each policy's figures of the test, above the paper's."""
        table = new_table(
            f"{self.task}: perplexity and BLEU of the best epoch's weights\n"
            "mean ± deviation over seeds",
            ("policy", "backend"),
            ("runs", "epochs", *self.headings[1:]),
        )
        for (policy, backend, epochs), runs in by_seed(results).items():
            done = f"{epochs_done(runs)}/{epochs}"
            table.add_row(policy, backend, str(len(runs)), done, *self.figures(runs)[1:])
        table.add_section()
        for row in self.paper:
            table.add_row(row, "(paper)", "", "", *self.of_paper(row)[1:])
        return table

    def averages(self, result: Result) -> Table:
        """How the average of models gets better with their number."""
        table = new_table(f"{self.task}: models averaged", ("with",), ("models", *self.headings))
        for row, member in zip(result["averages"], result["members"], strict=True):
            name = f"{member['preset']} {with_rate(member)}, {member['backend']}"
            place = (f"{name}, seed {member['seed']}", str(row["models"]))
            table.add_row(*place, *self.of_average(row))
        return table


def curves(results: list[Result], path: Path) -> Path:
    """Draw training and validation perplexity by epoch, and write it as a PNG."""
    figure, axes = new_figure(figsize=(8, 5))
    for key, style in (("valid_perplexity", "-"), ("train_perplexity", ":")):
        bands(axes, results, key, style, f", {key[:5]}")
    by_epoch(axes)
    in_perplexity(axes)
    axes.legend(fontsize="small")
    return write(figure, path)
