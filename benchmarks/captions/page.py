"""Captions on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sentences import page
from ..spread import by_preset
from .summary import REPORT

Result = dict[str, Any]

HEAD = """## Captions: Flickr8k, `--preset {preset}`

{train:,} images for training, {test:,} for the test, five captions each; {vocabulary:,} words.
Perplexities are of a caption's words and its end: the lowest of validation, and with the weights of
that epoch the test's. BLEU in %, of captions of {written:,} test images against all five, by
sacreBLEU (`{signature}`; BLEU-1 with n-grams of one
word), in lower case and without punctuation; mean ± deviation over seeds. The paper's figures are
of MSCOCO, with a far stronger network for the images: compare with and without dropout, not ours
with the paper's. Its claim is that one regularised model is as good as ten without dropout.
"""

BASELINES = """### Captions that no model wrote

Of all test images, taken from training images (`python -m benchmarks.captions baselines`): any; the
first of the image whose features are nearest; of those of the nearest images, the one that is most
like the others.

| taken | BLEU-1 | BLEU-4 |
|---|---:|---:|"""


def sections(runs: list[Result], averaged: list[Result], baselines: list[Result]) -> Iterator[str]:
    """The runs of each preset beside the paper's, models averaged, and captions of no model."""
    for preset, here in by_preset(runs).items():
        data = here[0]["captioning"]
        head = HEAD.format(
            preset=preset,
            **data["images"],
            vocabulary=data["vocabulary"],
            written=data["written"],
            signature=page.signature(here),
        )
        yield page.figures(REPORT, head, here)
        mine = [line for line in averaged if line["members"][0]["preset"] == preset]
        if mine:
            yield page.averages(REPORT, mine)
        if preset == "paper":
            yield from page.read("captions", "image", here)
    yield from map(_baselines, baselines)


def _baselines(line: Result) -> str:
    rows = [
        f"| {name} | {row['bleu_1']:.1f} | {row['bleu_4']:.1f} |"
        for name, row in line["baselines"].items()
    ]
    return "\n".join([BASELINES, *rows]) + "\n"
