"""Tasks that write sentences on the page of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..spread import by_preset, by_seed, epochs_done, with_rate
from .summary import Report, curves

Result = dict[str, Any]

AVERAGED = """Several models differ only in their seeds. Here the probabilities that they give
to each word are averaged (`python -m benchmarks.{task} ensemble RUN...`):
"""

READ = "What the first model of each policy writes for the first lines of the test part:\n"


def figures(report: Report, head: str, runs: list[Result]) -> str:
    """What a section says first, and a table of the runs of a preset beside the paper's."""
    lines = [head, *_header(("policy", "backend"), ("seeds", "epochs", *report.headings))]
    for (policy, backend, epochs), alike in by_seed(runs).items():
        done = f"{epochs_done(alike)} of {epochs}"
        lines.append(_row(policy, backend, str(len(alike)), done, *report.figures(alike)))
    lines += [_row(row, "(paper)", "", "", *report.of_paper(row)) for row in report.paper]
    alt = "Training and validation perplexity by epoch, without and with dropout."
    picture = _picture(report, runs[0]["config"]["preset"])
    return "\n".join([*lines, "", f"![{alt}]({picture})", ""])


def averages(report: Report, found: list[Result]) -> str:
    """A table of models averaged."""
    lines = [AVERAGED.format(task=report.task)]
    lines += _header(("each model",), ("models", *report.headings))
    for line in found:
        each = "; ".join(dict.fromkeys(with_rate(member) for member in line["members"]))
        lines += [
            _row(each, str(row["models"]), *report.of_average(row)) for row in line["averages"]
        ]
    return "\n".join(lines) + "\n"


def read(key: str, given: str, runs: list[Result]) -> Iterator[str]:
    """What models said, which their results have under `key`, side by side; `given` is what it is
    said about."""
    said: dict[str, dict[str, str]] = {}
    for run in runs:
        if key in run:
            said.setdefault(with_rate(run["config"]), run[key])
    if said:
        first = next(iter(said.values()))
        rows = [_row(name, *(each[name] for each in said.values())) for name in first]
        yield "\n".join([READ, *_header((given, *said), ()), *rows]) + "\n"


def draw(report: Report, runs: list[Result], folder: Path) -> Iterator[Path]:
    """Draw what the sections show."""
    for preset, here in by_preset(runs).items():
        yield curves(here, folder / _picture(report, preset))


def signature(runs: list[Result]) -> str:
    """SacreBLEU's, of the runs' scores."""
    return next((run["signature"] for run in runs if "signature" in run), "not finished")


def _picture(report: Report, preset: str) -> str:
    return f"{report.task}-{preset}.png"


def _header(texts: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """A table's headings and what stands under them: texts left, numbers right."""
    rules = ["---"] * len(texts) + ["---:"] * len(numbers)
    return [_row(*texts, *numbers), f"|{'|'.join(rules)}|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
