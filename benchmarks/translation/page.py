"""Translation on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sentences import page
from ..spread import by_preset
from .presets import PRESETS
from .summary import REPORT

Result = dict[str, Any]

HEAD = """## Translation: Tatoeba, English to French, `--preset {preset}`

{train:,} pairs of sentences of at most {words} words for training; {valid:,} for validation and
{test:,} for the test, which have no English sentence in common with them; {english:,} English and
{french:,} French words. Perplexities are of a French sentence's words and its end: the lowest of
validation, and with the weights of that epoch the test's. BLEU in %, of {written:,} test sentences
against all their translations, by sacreBLEU (`{signature}`),
in lower case with punctuation apart; mean ± deviation over seeds. The paper's figures are of
WMT'14, far longer and harder sentences, and stand here for their pattern.
"""


def sections(runs: list[Result], averaged: list[Result]) -> Iterator[str]:
    """The runs of each preset beside the paper's, and models averaged."""
    for preset, here in by_preset(runs).items():
        data = here[0]["translation"]
        head = HEAD.format(
            preset=preset,
            words=PRESETS[preset].words,
            **data["pairs"],
            **{name: data[name] for name in ("english", "french", "written")},
            signature=page.signature(here),
        )
        yield page.figures(REPORT, head, here)
        mine = [line for line in averaged if line["members"][0]["preset"] == preset]
        if mine:
            yield page.averages(REPORT, mine)
        if preset == "paper":
            yield from page.read("translations", "English", here)
