"""Speech on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..spread import by_preset, by_seed, epochs_done
from .summary import PAPER, curves, figures

Result = dict[str, Any]

HEAD = """## Speech: AN4, `--preset {preset}`

For training {train[utterances]:,} utterances ({train[frames]:,} frames), of other speakers
{held_out[utterances]:,} ({held_out[frames]:,} frames); frame accuracy in %, mean ± deviation over
seeds. **The states that are to be recognised are an alignment's, made on the training part and not
checked against a reference; the corpus has none.** Both accuracies are those of the finished model,
without masks; nats are what a held-out frame costs. The paper's are of another corpus, and stand
here for their pattern: with dropout fewer frames are recognised of the speakers that were heard,
and more of others.

| policy | backend | seeds | epochs | training | held out | each seed's | nats |
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
        f"| {policy} | the paper's | | | {both[0]} | {both[1]} | | |"
        for policy, both in PAPER.items()
    ]
    alt = "Held-out accuracy and training loss by epoch, without dropout and with it."
    return "\n".join([*lines, "", f"![{alt}]({_picture(preset)})", ""])
