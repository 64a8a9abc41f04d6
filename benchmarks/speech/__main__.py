"""`python -m benchmarks.speech`: train an acoustic model with and without dropout."""

from __future__ import annotations

from pathlib import Path

from ..command import Benchmark, new_app, training
from .frames import load
from .summary import curves, summary

HELP = """Train the acoustic model of *Recurrent Neural Network Regularization* on AN4.

Example: `python -m benchmarks.speech --policy none --policy zaremba --seed 1 --seed 2`
"""


def read(data: Path | None) -> str:
    """Read the speech; what it is."""
    speech = load(data)
    return f"AN4, {len(speech.train.frames):,} frames for training"


app = new_app()
app.command()(
    training(
        Benchmark(
            task="speech",
            help=HELP,
            preset="Recipe: {}.",
            data="Folder with AN4. [the variable AN4_DIR]",
            read=read,
            summary=summary,
            curves=curves,
            beside=("none",),
        )
    )
)


if __name__ == "__main__":
    app()
