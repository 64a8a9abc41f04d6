"""`python -m benchmarks.translation`: train a model that translates, with and without dropout."""

from __future__ import annotations

from pathlib import Path

from ..command import Benchmark, new_app, training
from ..ensemble import averaging
from ..sentences.average import average
from ..sentences.summary import curves
from .summary import REPORT
from .tatoeba import load

HELP = """Train the translation model of *Recurrent Neural Network Regularization* on Tatoeba.

Example: `python -m benchmarks.translation --policy none --policy zaremba --seed 1 --seed 2`
"""


def read(data: Path | None) -> str:
    """Read the sentences; what they are."""
    found = load(data)
    return f"Tatoeba, {sum(map(len, found.train.french)):,} pairs for training"


app = new_app()
app.callback(invoke_without_command=True)(
    training(
        Benchmark(
            task="translation",
            help=HELP,
            preset="Recipe: {}.",
            data="Folder with Tatoeba. [the variable TATOEBA_DIR]",
            read=read,
            summary=REPORT.summary,
            curves=curves,
            beside=("none",),
        )
    )
)
app.command("ensemble")(averaging("translation", average, REPORT.averages))


if __name__ == "__main__":
    app()
