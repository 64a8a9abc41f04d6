"""Language modelling on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ..spread import with_rate
from .presets import PRESETS
from .summary import curves, rounded
from .texts import TEXTS

Result = dict[str, Any]

HEAD = """\
Perplexities of Zaremba et al. (2014, arXiv:1409.2329) are the paper's own, from its table 1. The
validation and training figures are those of the last epoch, and beside them the lowest of any, with
its epoch; the test figure is measured once, when a run has finished.
"""

COMPARED = """
Policies have their default rates. The papers that have figures on all of Penn Treebank have them of
other sizes and recipes:

| policy | of | valid | test | |
|---|---|---:|---:|---|
| zaremba | Zaremba et al. 2014 | 86.2 | 82.7 | 2 layers of 650 |
| variational | Gal & Ghahramani 2016 | 77.3 | 75.0 | 2 layers of 1,500 |
| awd | Merity et al. 2018 | 60.0 | 57.3 | 3 layers of up to 1,150, averaged SGD |"""

AVERAGED = """## Models averaged

The probabilities of models that differ in their seeds, averaged word by word
(`python -m benchmarks.ptb ensemble RUN...`), as in the paper's table 1.

| corpus | each model | models | valid | test |
|---|---|---:|---:|---:|"""

PICTURES = {
    "demo": "Without dropout the training perplexity goes on falling while that of validation "
    "rises; under zaremba both fall.",
    "wide": "Without dropout the validation perplexity rises far above that under any policy.",
}
"""Presets that are drawn, and what there is to see."""


def sections(runs: list[Result], averaged: list[Result]) -> Iterator[str]:
    """The runs of each corpus and preset beside the paper's, and the models averaged."""
    yield HEAD
    for corpus, preset in product(TEXTS, PRESETS):
        here = [run for run in runs if _of(run) == (corpus, preset)]
        if here:
            yield _perplexities(corpus, preset, here)
    if averaged:
        lines = [line for result in averaged for line in _averaged(result)]
        yield "\n".join([AVERAGED, *lines]) + "\n"


def draw(runs: list[Result], folder: Path) -> Iterator[Path]:
    """Draw what the sections show."""
    for preset in PICTURES:
        here = [run for run in runs if _of(run) == ("ptb", preset)]
        if here:
            yield curves(here, folder / _picture(preset))


def _picture(preset: str) -> str:
    return f"ptb-{preset}.png"


def _of(run: Result) -> tuple[str, str]:
    return run["corpus"]["name"], run["config"]["preset"]


def _perplexities(name: str, preset: str, runs: list[Result]) -> str:
    corpus, paper = runs[0]["corpus"], PRESETS[preset].paper
    tokens = " / ".join(f"{count:,}" for count in corpus["tokens"])
    lines = [
        f"## {TEXTS[name].title}, `--preset {preset}`\n",
        f"{tokens} tokens for training, validation and test; {corpus['vocabulary']:,} words.\n",
        "| policy | backend | seed | epochs | train | valid | lowest | test | run on |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for run in runs:
        config, last = run["config"], run["epochs"][-1]
        test = rounded(run.get("test_perplexity")) or "not finished"
        lines.append(
            f"| {with_rate(config)} | {config['backend']} | {config['seed']} "
            f"| {len(run['epochs'])} of {config['epochs']} | {rounded(last['train_perplexity'])} "
            f"| {rounded(last['valid_perplexity'])} | {_lowest(run)} | {test} | {_where(run)} |"
        )
    if paper is not None and name == "ptb":
        policy = PRESETS[preset].policy
        rate = "" if policy == "none" else f" {PRESETS[preset].rate:g}"
        lines.append(
            f"| {policy}{rate} | the paper's | | {PRESETS[preset].epochs} | "
            f"| {paper[0]} | | {paper[1]} | |"
        )
    if name == "ptb" and preset in PICTURES:
        lines.append(f"\n![{PICTURES[preset]}]({_picture(preset)})")
    if (name, preset) == ("ptb", "wide"):
        lines.append(COMPARED)
    return "\n".join(lines) + "\n"


def _lowest(run: Result) -> str:
    """The lowest validation perplexity of any epoch, and which it was."""
    valid = [epoch["valid_perplexity"] for epoch in run["epochs"]]
    return f"{rounded(min(valid))} ({valid.index(min(valid)) + 1})"


def _where(run: Result) -> str:
    machine, versions = run["machine"], run["versions"]
    names = {"tensorflow": "tensorflow-cpu", "jax": "jax"}
    package = names.get(run["config"]["backend"], "torch")
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    minutes = run["wall_seconds"] / 60
    time = f"{minutes:.0f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
    return f"{place}; {package} {versions[package]}; {time}"


def _averaged(result: Result) -> Iterator[str]:
    title = TEXTS[result["corpus"]].title
    members = "; ".join(sorted({_member(member) for member in result["members"]}))
    for row in result["averages"]:
        figures = f"{rounded(row['valid_perplexity'])} | {rounded(row['test_perplexity'])}"
        yield f"| {title} | {members} | {row['models']} | {figures} |"


def _member(config: dict[str, Any]) -> str:
    return f"{config['preset']}, {with_rate(config)}, {config['trained_epochs']} epochs"
