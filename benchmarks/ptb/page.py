"""Language modelling on the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ..spread import by_seed, epochs_done, with_rate, with_spread
from .caveats import caveats
from .presets import PRESETS
from .summary import curves, rounded
from .texts import TEXTS

Result = dict[str, Any]

HEAD = """\
In the tables of language models, *train* and *valid* are the perplexities of the last epoch.
*Train* is measured during training, with dropout. *Lowest valid* is the lowest validation
perplexity of all epochs, with the epoch in brackets. *Test* is measured once, after the last epoch.
The paper's figures are from table 1 of Zaremba et al. (2014).
"""

COMPARED = """
Three papers report figures on all of Penn Treebank, with other sizes and recipes:

| policy | paper | valid | test | model |
|---|---|---:|---:|---|
| zaremba | Zaremba et al. 2014 | 86.2 | 82.7 | 2 layers of 650 |
| variational | Gal & Ghahramani 2016 | 77.3 | 75.0 | 2 layers of 1,500 |
| awd | Merity et al. 2018 | 60.0 | 57.3 | 3 layers of up to 1,150, averaged SGD |"""

AVERAGED = """## Averages of several models

Several models differ only in their seeds. Here the probabilities that they give to each word are
averaged (`python -m benchmarks.ptb ensemble RUN...`), as in table 1 of the paper. The paper's
models are trained on the whole corpus, those of the preset `demo` on a small part of it.

| corpus | each model | models | valid | test |
|---|---|---:|---:|---:|"""

PAPER = {
    "small, none": {2: (100.4, 96.1), 5: (87.9, 84.1), 10: (83.5, 80.0)},
    "medium, zaremba 0.5": {2: (80.6, 77.0), 5: (76.7, 73.3), 10: (75.2, 72.0)},
    "large, zaremba 0.65": {2: (76.9, 73.6), 10: (72.8, 69.5), 38: (71.9, 68.7)},
}
"""The paper's averages, of all of Penn Treebank: validation and test by the number of models."""

BOTH = ("torch", "jax")
"""A backend of each framework. The page says which of the paper's recipes did not run on it."""

PICTURES = {
    "demo": "Without dropout, the training perplexity keeps falling while the validation "
    "perplexity rises. With zaremba, both fall.",
    "wide": "Without dropout, the validation perplexity rises far above that of every policy.",
}
"""The presets with a picture, and what the picture shows."""


def sections(runs: list[Result], averaged: list[Result]) -> Iterator[str]:
    """The runs of each corpus and preset beside the paper's, and the models averaged."""
    yield HEAD
    for corpus, preset in product(TEXTS, PRESETS):
        here = [run for run in runs if _of(run) == (corpus, preset)]
        if here:
            yield _perplexities(corpus, preset, here)
    if averaged:
        lines = [line for result in averaged for line in _averaged(result)]
        lines += [
            f"| Penn Treebank | {each} (paper) | {models} | {valid:.1f} | {test:.1f} |"
            for each, found in PAPER.items()
            for models, (valid, test) in found.items()
        ]
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
        f"## {TEXTS[name].title}: preset `{preset}`\n",
        f"Tokens for training / validation / test: {tokens}. Vocabulary: "
        f"{corpus['vocabulary']:,} words.\n",
        "| policy | backend | seeds | epochs | train | valid | lowest valid | test | run on |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    groups = by_seed(runs)
    for (policy, backend, epochs), alike in groups.items():
        ends = [run["epochs"][-1] for run in alike]
        finished = all("test_perplexity" in run for run in alike)
        cells = [
            policy,
            backend,
            str(len(alike)),
            f"{epochs_done(alike)} of {epochs}",
            with_spread([end["train_perplexity"] for end in ends]),
            with_spread([end["valid_perplexity"] for end in ends]),
            _lowest(alike),
            with_spread([run["test_perplexity"] for run in alike]) if finished else "not finished",
            _where(alike),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if paper is not None and name == "ptb":
        recipe = PRESETS[preset]
        rate = None if recipe.policy == "none" else recipe.rate
        policy = with_rate({"policy": recipe.policy, "rate": rate})
        ran = {(policy, backend) for policy, backend, _ in groups}
        missing = [backend for backend in BOTH if (policy, backend) not in ran]
        lines += [f"| {policy} | {backend} | | not run | | | | | |" for backend in missing]
        lines.append(f"| {policy} | (paper) | | {recipe.epochs} | | {paper[0]} | | {paper[1]} | |")
    if name == "ptb" and preset in PICTURES:
        lines.append(f"\n![{PICTURES[preset]}]({_picture(preset)})")
    if (name, preset) == ("ptb", "wide"):
        finished = [run for run in runs if "test_perplexity" in run]
        lines += ["", caveats(finished), COMPARED] if finished else [COMPARED]
    return "\n".join(lines) + "\n"


def _lowest(runs: list[Result]) -> str:
    """The lowest validation perplexity of any epoch, and which that was."""
    valid = [[epoch["valid_perplexity"] for epoch in run["epochs"]] for run in runs]
    epochs = sorted({of_run.index(min(of_run)) + 1 for of_run in valid})
    which = "–".join(map(str, dict.fromkeys((epochs[0], epochs[-1]))))
    return f"{with_spread([min(of_run) for of_run in valid])} ({which})"


def _where(runs: list[Result]) -> str:
    """On what runs ran, and how long one took."""
    machine, versions = runs[0]["machine"], runs[0]["versions"]
    names = {"tensorflow": "tensorflow-cpu", "jax": "jax"}
    package = names.get(runs[0]["config"]["backend"], "torch")
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    minutes = sum(run["wall_seconds"] for run in runs) / len(runs) / 60
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
