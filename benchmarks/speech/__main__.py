"""`python -m benchmarks.speech`: train an acoustic model with and without dropout."""

from __future__ import annotations

from pathlib import Path

from ..command import Benchmark, new_app, training
from .frames import load
from .presets import Preset
from .summary import curves, summary

HELP = """Train the acoustic model of *Recurrent Neural Network Regularization* on AN4.

Example: `python -m benchmarks.speech --policy none --policy zaremba --seed 1 --seed 2`
"""


def read(data: Path | None, recipe: Preset) -> str:  # noqa: ARG001 # all recipes fit any speech
    """Read the speech; what it is."""
    speech = load(data)
    frames = f"{len(speech.train.frames):,} frames for training"
    if speech.sha256 is None:
        return f"AN4, {frames}"
    return f"{speech.name}, {frames}, {speech.states:,} states; SHA-256 {speech.sha256[:12]}…"


app = new_app()
app.command()(
    training(
        Benchmark(
            task="speech",
            help=HELP,
            preset="Recipe: {}.",
            data=".npz file with frames and states, or a folder with one. AN4 is recognised. "
            "[the variable AN4_DIR]",
            read=read,
            summary=summary,
            curves=curves,
            beside=("none",),
        )
    )
)


if __name__ == "__main__":
    app()
