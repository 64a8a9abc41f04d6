"""Captions on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sentences import page
from ..spread import by_preset
from .summary import REPORT

Result = dict[str, Any]

HEAD = """## Captions (Flickr8k): preset `{preset}`

There are {train:,} images for training and {test:,} for the test, each with five captions. The
vocabulary has {vocabulary:,} words.

- *Valid* is the lowest validation perplexity of all epochs. The other figures are of the weights of
  that epoch. Perplexity counts the words of a caption and its end.
- *BLEU* is in %. It compares the captions of {written:,} test images with all five given ones, in
  lower case and without punctuation, by sacreBLEU (`{signature}`; for
  BLEU-1, with single words only).

The paper used MSCOCO and a far stronger network for the images. So compare the rows without and
with dropout, not ours with the paper's. The paper claims that one model with dropout is as good as
ten models without.
"""

BASELINES = """### Captions that no model wrote

For comparison, these captions for all test images are taken from the training images
(`python -m benchmarks.captions baselines`):

- *random*: any caption;
- *nearest image*: the first caption of the image with the most similar features;
- *consensus*: of the captions of the nearest images, the one that is most like the others.

| captions | BLEU-1 | BLEU-4 |
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
