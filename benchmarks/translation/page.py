"""Translation on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sentences import page
from ..spread import by_preset
from .presets import PRESETS
from .summary import REPORT

Result = dict[str, Any]

HEAD = """## Translation (Tatoeba, English to French): preset `{preset}`

There are {train:,} pairs of sentences of at most {words} words for training, {valid:,} for
validation and {test:,} for the test. No English sentence is in two of these parts. The vocabularies
have {english:,} English and {french:,} French words.

- *Valid* is the lowest validation perplexity of all epochs. The other figures are of the weights of
  that epoch. Perplexity counts the words of a French sentence and its end.
- *BLEU* is in %. It compares {written:,} translations of test sentences with all known
  translations, in lower case and with punctuation separated, by sacreBLEU
  (`{signature}`).

The paper used WMT'14, whose sentences are far longer and harder. So compare only the pattern.
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
