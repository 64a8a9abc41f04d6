"""`python -m benchmarks.results`: write the pages of results from the committed runs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import starts
from .captions import page as captions
from .captions.summary import REPORT as CAPTIONS
from .config import TASKS, RunConfig
from .data import is_own
from .overview import overview
from .ptb import page as ptb
from .sentences import page as sentences
from .speech import page as speech
from .speed import page as speed
from .speed.pictures import pictures
from .translation import page as translation
from .translation.summary import REPORT as TRANSLATION

Result = dict[str, Any]

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
SPEED = RUNS / "speed.json"
PERFORMANCE = PAGE.with_name("performance.md")

HEAD = "# Results\n"

READING = """\
## How to read the tables

`python -m benchmarks.results` computes our figures on this page from the runs in
`benchmarks/results`. There, each run is one line of JSON with its configuration, seed, versions,
machine and the figures of every epoch. The rows marked (paper) are figures that the papers state.

Each section shows the runs of one preset, that is, one size of model and data. The pages of the
benchmarks describe the presets: [Penn Treebank](penn-treebank.md), [speech](speech.md),
[captions](captions.md) and [translation](translation.md).
"""


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
    parts = [HEAD, overview({task: trained(files, task) for task in TASKS}), READING]
    parts += ptb.sections(trained(files, "ptb"), _averaged(files, "ptb"))
    parts += speech.sections(trained(files, "speech"))
    parts += captions.sections(
        trained(files, "captions"), _averaged(files, "captions"), _lines(files, "baselines")
    )
    parts += translation.sections(trained(files, "translation"), _averaged(files, "translation"))
    started = [run for run in _runs(files) if run["config"]["same_start"]]
    if started:
        parts.append(starts.section(started))
    return "\n".join(parts)


def trained(files: dict[str, list[Result]], task: str) -> list[Result]:
    """The runs of a task. Runs with a common start are not among them: their first steps differ."""
    configs = ((run, RunConfig.from_dict(run["config"])) for run in _runs(files))
    return [run for run, config in configs if config.task == task and not config.same_start]


def _runs(files: dict[str, list[Result]]) -> list[Result]:
    return _lines(files, "config")


def _averaged(files: dict[str, list[Result]], task: str) -> list[Result]:
    """The averages of a task's models."""
    found = _lines(files, "averages")
    return [line for line in found if RunConfig.from_dict(line["members"][0]).task == task]


def _lines(files: dict[str, list[Result]], key: str) -> list[Result]:
    """The lines that have a key. Runs on a user's own data are left out: nobody else has it."""
    found = [line for lines in files.values() for line in lines if key in line]
    return [line for line in found if not is_own(line)]


if __name__ == "__main__":
    found = read()
    PAGE.write_text(page(found), encoding="utf-8")
    PERFORMANCE.write_text(speed.page(read_speed()), encoding="utf-8")
    drawn = [*ptb.draw(trained(found, "ptb"), PAGE.parent)]
    for report in (CAPTIONS, TRANSLATION):
        drawn += sentences.draw(report, trained(found, report.task), PAGE.parent)
    drawn += speech.draw(trained(found, "speech"), PAGE.parent)
    drawn += pictures(read_speed(), PAGE.parent)
    print("wrote", *(path.relative_to(ROOT) for path in (PAGE, PERFORMANCE, *drawn)))
