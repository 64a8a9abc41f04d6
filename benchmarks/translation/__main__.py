"""`python -m benchmarks.translation`: train a model that translates, with and without dropout."""

from __future__ import annotations

from pathlib import Path

from ..command import Benchmark, new_app, training
from ..ensemble import averaging
from ..sentences.average import average
from ..sentences.summary import curves
from .presets import Preset
from .summary import REPORT
from .task import read as read_sentences

HELP = """Train the translation model of *Recurrent Neural Network Regularization* on Tatoeba.

Example: `python -m benchmarks.translation --policy none --policy zaremba --seed 1 --seed 2`
"""


def read(data: Path | None, recipe: Preset) -> str:
    """Read the sentences for a recipe; what they are."""
    found = read_sentences(data, recipe)
    pairs = f"{sum(map(len, found.train.french)):,} pairs for training"
    if found.sha256 is None:
        return f"Tatoeba, {pairs}"
    return f"{found.name}, {pairs}; SHA-256 {found.sha256[:12]}…"


app = new_app()
app.callback(invoke_without_command=True)(
    training(
        Benchmark(
            task="translation",
            help=HELP,
            preset="Recipe: {}.",
            data="File with a sentence, a tab and its translation on each line, or a folder with "
            "one. Tatoeba is recognised. [the variable TATOEBA_DIR]",
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
