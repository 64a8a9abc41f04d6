"""Speech on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..spread import by_preset, by_seed, epochs_done
from .summary import PAPER, curves, figures

Result = dict[str, Any]

HEAD = """## Speech (AN4): preset `{preset}`

The model learns from {train[utterances]:,} utterances ({train[frames]:,} frames). It is tested on
{held_out[utterances]:,} utterances ({held_out[frames]:,} frames) of other speakers, the *held-out*
part. *Training* and *held out* are accuracies of the finished model without masks, that is, the
share of frames whose state it predicts correctly, in %. *Loss* is the mean over held-out frames.

**The correct states come from an automatic alignment, which was made on the training part. They
were not checked against a reference, because the corpus has none.** The paper used another corpus,
so compare only the pattern: in the paper, dropout lowers the accuracy in training and raises it in
validation.

| policy | backend | seeds | epochs | training | held out | held out, by seed | loss (nats) |
|---|---|---:|---:|---:|---:|---|---:|"""


def sections(runs: list[Result]) -> Iterator[str]:
    """The runs of each preset beside the paper's."""
    for preset, here in by_preset(runs).items():
        yield _accuracies(preset, here)


def draw(runs: list[Result], folder: Path) -> Iterator[Path]:
    """Draw what the sections show."""
    for preset, here in by_preset(runs).items():
        yield curves(here, folder / _picture(preset))


def _picture(preset: str) -> str:
    return f"speech-{preset}.png"


def _accuracies(preset: str, runs: list[Result]) -> str:
    lines = [HEAD.format(preset=preset, **runs[0]["speech"])]
    for (policy, backend, epochs), alike in by_seed(runs).items():
        train, held_out, nats = figures(alike)
        each = ", ".join(f"{run['epochs'][-1]['held_out_accuracy']:.1f}" for run in alike)
        lines.append(
            f"| {policy} | {backend} | {len(alike)} | {epochs_done(alike)} of {epochs} "
            f"| {train} | {held_out} | {each} | {nats} |"
        )
    lines += [
        f"| {policy} | (paper) | | | {both[0]} | {both[1]} | | |" for policy, both in PAPER.items()
    ]
    alt = "Held-out accuracy and training loss by epoch, without and with dropout."
    return "\n".join([*lines, "", f"![{alt}]({_picture(preset)})", ""])
