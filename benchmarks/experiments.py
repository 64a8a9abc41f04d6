"""The paper's experiments that the first table of the page of results repeats, and their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .captions.summary import REPORT as CAPTIONS
from .ptb.presets import PRESETS as PTB
from .recipe import presets
from .speech.summary import PAPER as SPEECH
from .translation.summary import REPORT as TRANSLATION

Result = dict[str, Any]
Pair = tuple[float | None, float | None]
"""A figure without dropout and with it; None where there is none."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        task: the task whose runs it shows.
        preset: the preset of these runs.
        title: the name of the experiment.
        heading: the beginning of the anchor of its section's heading, before the preset.
        measure: what is measured, and which way is better.
        paper: the paper's figures.
        figure: gets the figure from a finished run.
        data: describes the data of a run.
        paper_data: the paper's data, or "" where ours is the same.
        digits: digits after the point.
    """

    task: str
    preset: str
    title: str
    heading: str
    measure: str
    paper: Pair
    figure: Callable[[Result], float]
    data: Callable[[Result], str]
    paper_data: str = ""
    digits: int = 1

    @property
    def recipe(self) -> Any:
        """The preset's recipe."""
        return presets(self.task)[self.preset]


def _penn_treebank(preset: str) -> Row:
    recipe = PTB[preset]
    assert recipe.paper is not None
    test = recipe.paper[1]
    return Row(
        task="ptb",
        preset=preset,
        title=f"Language model, {preset}",
        heading="penn-treebank",
        measure="test perplexity ↓",
        paper=(test, None) if recipe.policy == "none" else (None, test),
        figure=lambda run: float(run["test_perplexity"]),
        data=lambda run: f"Penn Treebank, {run['corpus']['tokens'][0]:,} words",
    )


def _translation(measure: str, place: int, key: str, digits: int) -> Row:
    recipe = presets("translation")["paper"]
    return Row(
        task="translation",
        preset="paper",
        title="Translation",
        heading="translation-tatoeba-english-to-french",
        measure=measure,
        paper=(TRANSLATION.paper["none"][place], TRANSLATION.paper["zaremba 0.2"][place]),
        figure=lambda run: float(run[key]),
        data=lambda run: (
            f"Tatoeba, {run['translation']['pairs']['train']:,} pairs of at most {recipe.words} "
            "words"
        ),
        paper_data="WMT'14",
        digits=digits,
    )


def _captions(measure: str, place: int, key: str, digits: int) -> Row:
    return Row(
        task="captions",
        preset="paper",
        title="Captions",
        heading="captions-flickr8k",
        measure=measure,
        paper=(CAPTIONS.paper["none"][place], CAPTIONS.paper["zaremba"][place]),
        figure=lambda run: float(run[key]),
        data=lambda run: f"Flickr8k, {run['captioning']['images']['train']:,} images",
        paper_data="MSCOCO",
        digits=digits,
    )


ROWS = (
    *map(_penn_treebank, ("small", "medium", "large")),
    Row(
        task="speech",
        preset="paper",
        title="Speech",
        heading="speech-an4",
        measure="held-out accuracy, % ↑",
        paper=(SPEECH["none"][1], SPEECH["zaremba"][1]),
        figure=lambda run: float(run["epochs"][-1]["held_out_accuracy"]),
        data=lambda run: f"AN4, {run['speech']['train']['utterances']:,} utterances",
        paper_data="Icelandic speech",
    ),
    _translation("test perplexity ↓", 0, "test_perplexity", 2),
    _translation("BLEU ↑", 1, "bleu", 1),
    _captions("test perplexity ↓", 0, "test_perplexity", 2),
    _captions("BLEU-4 ↑", 1, "bleu_4", 1),
)


def chosen(runs: Sequence[Result], row: Row, with_dropout: bool, backend: str) -> list[Result]:
    """The runs behind one figure: finished, of the row's preset, and of all its epochs.

    Args:
        runs: the trained models of the row's task.
        row: the line of the table.
        with_dropout: whether the runs have the policy `zaremba` at the preset's rate, or none.
        backend: where they ran.
    """
    recipe = row.recipe
    wanted = {
        "preset": row.preset,
        "policy": "zaremba" if with_dropout else "none",
        "rate": recipe.rate if with_dropout else None,
        "backend": backend,
        "epochs": recipe.epochs,
    }
    return [
        run
        for run in runs
        if run["finished"]
        and all(run["config"][name] == value for name, value in wanted.items())
        and run.get("corpus", {"name": "ptb"})["name"] == "ptb"
    ]
