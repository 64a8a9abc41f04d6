"""Captioning on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..spread import by_preset, by_seed, with_rate
from .summary import PAPER, average_figures, curves, figures

Result = dict[str, Any]

HEAD = """## Captions: Flickr8k, `--preset {preset}`

{train:,} images for training, {test:,} for the test, five captions each; {vocabulary:,} words.
Perplexities are of a caption's words and its end: the lowest of validation, and with the weights of
that epoch the test's.
BLEU in %, of captions of {written:,} test images against all five, by sacreBLEU
(`{signature}`; BLEU-1 with n-grams of one word), in lower case and without punctuation; mean ±
deviation over seeds. The paper's figures are of MSCOCO, with a far stronger network for the images:
compare with and without dropout, not ours with the paper's.

| policy | backend | seeds | epochs | valid | test | BLEU-1 | BLEU-4 |
|---|---|---:|---:|---:|---:|---:|---:|"""

AVERAGED = """The paper's claim is that one regularised model is as good as ten without dropout. The
probabilities of models that differ in their seeds, averaged word by word
(`python -m benchmarks.captions ensemble RUN...`):

| each model | models | valid | test | BLEU-1 | BLEU-4 |
|---|---:|---:|---:|---:|---:|"""

BASELINES = """Captions that no model wrote, taken from training images
(`python -m benchmarks.captions baselines`): any; the first of the image whose features are nearest;
of those of the {nearest}, the one that is most like the others.

| taken | BLEU-1 | BLEU-4 |
|---|---:|---:|"""

READ = """Captions of the first test images, as each policy's first model says them:

| image | {policies} |
|---|{rule}|"""


def sections(runs: list[Result], averaged: list[Result], baselines: list[Result]) -> Iterator[str]:
    """The runs of each preset beside the paper's, models averaged, and captions of no model."""
    for preset, here in by_preset(runs).items():
        yield _figures(preset, here)
        mine = [line for line in averaged if line["members"][0]["preset"] == preset]
        if mine:
            rows = [row for line in mine for row in _averaged(line)]
            yield "\n".join([AVERAGED, *rows]) + "\n"
        if preset == "paper":
            yield from map(_baselines, baselines)
            yield _read(here)


def draw(runs: list[Result], folder: Path) -> Iterator[Path]:
    """Draw what the sections show."""
    for preset, here in by_preset(runs).items():
        yield curves(here, folder / _picture(preset))


def _picture(preset: str) -> str:
    return f"captions-{preset}.png"


def _figures(preset: str, runs: list[Result]) -> str:
    data = runs[0]["captioning"]
    head = HEAD.format(
        preset=preset,
        **data["images"],
        vocabulary=data["vocabulary"],
        written=data["written"],
        signature=next((run["signature"] for run in runs if "signature" in run), "none yet"),
    )
    lines = [head]
    for (policy, backend), alike in by_seed(runs).items():
        epochs = f"{min(len(r['epochs']) for r in alike)} of {alike[0]['config']['epochs']}"
        row = " | ".join(figures(alike))
        lines.append(f"| {policy} | {backend} | {len(alike)} | {epochs} | {row} |")
    lines += [
        f"| {policy} | the paper's | | | | {perplexity:.2f} | | {bleu:.1f} |"
        for policy, (perplexity, bleu) in PAPER.items()
    ]
    alt = "Training and validation perplexity by epoch, without dropout and with it."
    return "\n".join([*lines, "", f"![{alt}]({_picture(preset)})", ""])


def _averaged(line: Result) -> Iterator[str]:
    each = "; ".join(dict.fromkeys(with_rate(member) for member in line["members"]))
    for row in line["averages"]:
        yield f"| {each} | {row['models']} | {' | '.join(average_figures(row))} |"


def _baselines(line: Result) -> str:
    *_, last = line["baselines"]
    rows = [
        f"| {name} | {row['bleu_1']:.1f} | {row['bleu_4']:.1f} |"
        for name, row in line["baselines"].items()
    ]
    return "\n".join([BASELINES.format(nearest=last.removeprefix("consensus of ")), *rows]) + "\n"


def _read(runs: list[Result]) -> str:
    said = {with_rate(run["config"]): run for run in reversed(runs) if "captions" in run}
    policies = list(reversed(said))
    head = READ.format(policies=" | ".join(policies), rule="|".join("---" for _ in policies))
    images = next(iter(said.values()))["captions"] if said else {}
    rows = [
        f"| {image} | {' | '.join(said[policy]['captions'][image] for policy in policies)} |"
        for image in images
    ]
    return "\n".join([head, *rows]) + "\n"
