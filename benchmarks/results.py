"""`python -m benchmarks.results`: write the pages of results from the committed runs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .ptb.presets import PRESETS
from .ptb.summary import curves, rounded
from .ptb.texts import TEXTS
from .speech import page as speech_page
from .speech.summary import curves as speech_curves
from .speed import page as speed
from .speed.pictures import pictures
from .spread import with_rate
from .starts import TOLERANCE, pairs, start_difference

Result = dict[str, Any]

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
PICTURE = PAGE.with_name("ptb-demo.png")
SPEED = RUNS / "speed.json"
PERFORMANCE = PAGE.with_name("performance.md")

HEAD = """# Results

Every figure on this page is computed from the runs in `benchmarks/results`, one JSON line a run,
by `python -m benchmarks.results`; each line holds the run's configuration, seed, versions, machine
and every epoch's figures. Nothing is typed in by hand, and what has not been run is not here.

Perplexities of Zaremba et al. (2014, arXiv:1409.2329) are the paper's own, from its table 1. The
validation and training figures are those of the last epoch; the test figure is measured once, when
a run has finished.
"""

START = """## One start in every backend

`--same-start` gives every backend the same initial weights and, through keyed masks, the same
masks at the same places; the learning rate of the first 200 steps is a quarter of the recipe's.
The largest relative difference of any step's loss over those steps:
"""

AVERAGED = """## Models averaged

The probabilities of models that differ in their seeds, averaged word by word
(`python -m benchmarks.ptb ensemble RUN...`), as in the paper's table 1.

| corpus | each model | models | valid | test |
|---|---|---:|---:|---:|"""

STARTED = (
    "| preset | policy | backends | steps | largest difference | bound |\n"
    "|---|---|---|---:|---:|---:|"
)


def read() -> dict[str, list[Result]]:
    """The committed runs, by the name of their file."""
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(RUNS.glob("*.jsonl"))
    }


def read_speed() -> list[Result]:
    """The committed results of `python -m benchmarks.speed`."""
    found: list[Result] = json.loads(SPEED.read_text(encoding="utf-8"))
    return found


def page(files: dict[str, list[Result]]) -> str:
    """The whole page."""
    parts = [HEAD]
    everything = [result for results in files.values() for result in results]
    trained = [result for result in everything if "config" in result]
    runs = [run for run in trained if task(run) == "ptb"]
    for corpus, preset in product(TEXTS, PRESETS):
        here = [
            run
            for run in runs
            if not _same(run)
            and (run["corpus"]["name"], run["config"]["preset"]) == (corpus, preset)
        ]
        if here:
            parts.append(_perplexities(corpus, preset, here))
    averaged = [result for result in everything if "averages" in result]
    if averaged:
        parts.append(_averages(averaged))
    started = [run for run in runs if _same(run)]
    if started:
        parts.append(_starts(started))
    for preset, here in heard(files).items():
        parts.append(speech_page.section(preset, here, speech_picture(preset).name))
    return "\n".join(parts)


def heard(files: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """The runs on speech, by preset."""
    every = [run for runs in files.values() for run in runs if "config" in run]
    found: dict[str, list[Result]] = {}
    for run in every:
        if task(run) == "speech":
            found.setdefault(run["config"]["preset"], []).append(run)
    return found


def speech_picture(preset: str) -> Path:
    """Where the curves of a preset's runs on speech are drawn."""
    return PAGE.with_name(f"speech-{preset}.png")


def task(run: Result) -> str:
    """Which task a run was of; the first ones did not say."""
    return str(run["config"].get("task", "ptb"))


def _same(result: Result) -> bool:
    return bool(result["config"]["same_start"])


def _perplexities(name: str, preset: str, runs: list[Result]) -> str:
    corpus, paper = runs[0]["corpus"], PRESETS[preset].paper
    tokens = " / ".join(f"{count:,}" for count in corpus["tokens"])
    lines = [
        f"## {TEXTS[name].title}, `--preset {preset}`\n",
        f"{tokens} tokens for training, validation and test; {corpus['vocabulary']:,} words.\n",
        "| policy | backend | seed | epochs | train | valid | test | run on |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for run in runs:
        config, last = run["config"], run["epochs"][-1]
        test = rounded(run.get("test_perplexity")) or "not finished"
        lines.append(
            f"| {with_rate(config)} | {config['backend']} | {config['seed']} "
            f"| {len(run['epochs'])} of {config['epochs']} | {rounded(last['train_perplexity'])} "
            f"| {rounded(last['valid_perplexity'])} | {test} | {_where(run)} |"
        )
    if paper is not None and corpus["name"] == "ptb":
        policy = PRESETS[preset].policy
        rate = "" if policy == "none" else f" {PRESETS[preset].rate:g}"
        lines.append(
            f"| {policy}{rate} | the paper's | | {PRESETS[preset].epochs} | "
            f"| {paper[0]} | {paper[1]} | |"
        )
    if preset == "demo":
        lines.append(
            f"\n![Without dropout the training perplexity goes on falling while that of validation "
            f"rises; under zaremba both fall.]({PICTURE.name})"
        )
    return "\n".join(lines) + "\n"


def _averages(results: list[Result]) -> str:
    return "\n".join([AVERAGED, *(line for result in results for line in _averaged(result))]) + "\n"


def _averaged(result: Result) -> Iterator[str]:
    title = TEXTS[result["corpus"]].title
    members = "; ".join(sorted({_member(member) for member in result["members"]}))
    for row in result["averages"]:
        figures = f"{rounded(row['valid_perplexity'])} | {rounded(row['test_perplexity'])}"
        yield f"| {title} | {members} | {row['models']} | {figures} |"


def _member(config: dict[str, Any]) -> str:
    return f"{config['preset']}, {with_rate(config)}, {config['trained_epochs']} epochs"


def _where(run: Result) -> str:
    machine, versions = run["machine"], run["versions"]
    names = {"tensorflow": "tensorflow-cpu", "jax": "jax"}
    package = names.get(run["config"]["backend"], "torch")
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    minutes = run["wall_seconds"] / 60
    time = f"{minutes:.0f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
    return f"{place}; {package} {versions[package]}; {time}"


def _starts(results: list[Result]) -> str:
    rows = [
        (a["config"], b["config"], *start_difference(a["first_losses"], b["first_losses"]))
        for _, a, b in pairs(results)
    ]
    lines = [
        f"| {a['preset']} | {with_rate(a)} | {a['backend']} and {b['backend']} | {steps} "
        f"| {difference:.1e} | {TOLERANCE:g} |"
        for a, b, steps, difference, _ in rows
    ]
    worst = float(np.max([row[3] for row in rows]))
    verdict = (
        "All of them lie within the bound.\n"
        if worst <= TOLERANCE
        else "**Not all of them lie within the bound.**\n"
    )
    return "\n".join([START, STARTED, *lines, "", verdict])


if __name__ == "__main__":
    PAGE.write_text(page(read()), encoding="utf-8")
    curves(read()["ptb-demo"], PICTURE)
    drawn = [speech_curves(runs, speech_picture(preset)) for preset, runs in heard(read()).items()]
    PERFORMANCE.write_text(speed.page(read_speed()), encoding="utf-8")
    drawn += pictures(read_speed(), PERFORMANCE.parent)
    print("wrote", *(path.relative_to(ROOT) for path in (PAGE, PICTURE, PERFORMANCE, *drawn)))
