"""The first table of the page of results: the paper's experiments, and ours beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from .experiments import ROWS, Pair, Result, Row, chosen
from .ptb.presets import PRESETS as PTB
from .spread import with_spread

BACKENDS = {"PyTorch": "torch", "Keras on JAX": "jax"}
"""The backend of each framework whose runs are in the table."""

HEAD = """\
This page repeats the four experiments of Zaremba et al. (2014,
[arXiv:1409.2329](https://arxiv.org/abs/1409.2329)) in PyTorch and Keras, without dropout and with
the policy `zaremba`. Only the language models use the paper's own data; in the other rows, compare
the figures without and with dropout, not ours with the paper's.
"""

LEGEND = """\
↓: lower is better; ↑: higher is better. A figure with ± is the mean and the standard deviation
over several seeds. A figure without ± comes from one run. 2 × 256 units means two layers of 256.
What the table shows:"""

NO_PAPER = "The paper has no figure for this model."
NOT_PLANNED = "Not run; the paper has no figure for this model either."


def overview(runs: Mapping[str, Sequence[Result]]) -> str:
    """The table, what it shows, and why a figure is missing.

    Args:
        runs: the trained models of each task.
    """
    notes: dict[str, int] = {}
    lines = [HEAD, _line(_headings()), f"|---|{'---:|' * (len(_headings()) - 2)}---|"]
    for row in ROWS:
        mine = runs.get(row.task, ())
        here = [run for with_dropout in (False, True) for run in _of_any(mine, row, with_dropout)]
        if here:
            lines.append(_line(list(_cells(row, mine, here[0], notes))))
    listed = [f"- {_superscript(number)} {text}" for text, number in notes.items()]
    return "\n".join([*lines, "", *listed, "", LEGEND, "", _conclusion(runs), ""])


def _headings() -> list[str]:
    frameworks = ["paper", *BACKENDS]
    pairs = [f"{name}, {how} dropout" for name in frameworks for how in ("no", "with")]
    return ["experiment", *pairs, "our data and model"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _of_any(runs: Sequence[Result], row: Row, with_dropout: bool) -> Iterator[Result]:
    for backend in BACKENDS.values():
        yield from chosen(runs, row, with_dropout, backend)


def _cells(row: Row, runs: Sequence[Result], one: Result, notes: dict[str, int]) -> Iterator[str]:
    recipe = row.recipe
    yield f"[{row.title}](#{row.heading}-preset-{row.preset}): {row.measure}"
    for figure in row.paper:
        yield _mark("–", NO_PAPER, notes) if figure is None else str(figure)
    for backend in BACKENDS.values():
        for with_dropout, of_paper in zip((False, True), row.paper, strict=True):
            found = chosen(runs, row, with_dropout, backend)
            if found:
                text = with_spread([row.figure(run) for run in found], row.digits)
                yield _mark(text, _overfit(found), notes)
            elif of_paper is None:
                yield _mark("–", NOT_PLANNED, notes)
            else:
                yield _mark("–", _not_run(row, runs, backend), notes)
    theirs = f"(the paper: {row.paper_data})" if row.paper_data else "(as in the paper)"
    yield f"{row.data(one)} {theirs}; {recipe.layers} × {recipe.units:,} units"


def _mark(text: str, note: str, notes: dict[str, int]) -> str:
    """A cell with the number of its note, if it has one."""
    return f"{text} {_superscript(notes.setdefault(note, len(notes) + 1))}" if note else text


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _overfit(runs: Sequence[Result]) -> str:
    """The note on language models that overfit: their test figure is of the last epoch."""
    if "corpus" not in runs[0]:
        return ""
    valid = [[epoch["valid_perplexity"] for epoch in run["epochs"]] for run in runs]
    lowest, last = [min(each) for each in valid], [each[-1] for each in valid]
    if sum(last) < 1.5 * sum(lowest):
        return ""
    epochs = sorted({each.index(min(each)) + 1 for each in valid})
    return (
        f"Trained for all {len(valid[0])} epochs, although it overfits. Its validation perplexity "
        f"is lowest after epoch {' or '.join(map(str, epochs))} ({with_spread(lowest)}), and "
        f"{with_spread(last)} at the end."
    )


def _not_run(row: Row, runs: Sequence[Result], backend: str) -> str:
    """Why a framework has no figure, and which smaller model it has."""
    name = "PyTorch" if backend == "torch" else "Keras"
    text = f"Not run in {name}."
    medium = [run for run in runs if _is_on_cpu(run) and run["config"]["preset"] == "medium"]
    if medium and all(_is_on_cpu(run) for run in runs if run["config"]["backend"] == backend):
        hours = _hours(medium, PTB["medium"].epochs)
        text = (
            f"Not run in {name}: all its runs were on CPUs, where the medium model would take "
            f"about {hours:.0f} hours (at the speed of the short runs in PyTorch), and the large "
            "model longer."
        )
    small = replace(row, preset="demo")
    if all(chosen(runs, small, with_dropout, backend) for with_dropout in (False, True)):
        text += f" The smaller preset [`demo`](#{row.heading}-preset-demo) was run."
    return text


def _is_on_cpu(run: Result) -> bool:
    return "gpu" not in run["machine"]


def _hours(runs: Sequence[Result], epochs: int) -> float:
    """How long a run of so many epochs takes at the speed of these runs."""
    seconds = sum(run["wall_seconds"] for run in runs)
    return float(seconds / sum(len(run["epochs"]) for run in runs) * epochs / 3600)


def _conclusion(runs: Mapping[str, Sequence[Result]]) -> str:
    """What the table shows, in a list."""
    apart: list[float] = []
    agrees: dict[str, bool] = {}
    small_agrees: dict[str, bool] = {}
    for row in ROWS:
        for backend in BACKENDS.values():
            ours = _means(row, runs, backend)
            if row.task == "ptb":
                pairs = zip(ours, row.paper, strict=True)
                apart += [abs(a / b - 1) for a, b in pairs if a is not None and b is not None]
            elif None not in ours:
                demo = _means(replace(row, preset="demo"), runs, backend)
                for found, pair in ((agrees, ours), (small_agrees, demo)):
                    same = None not in pair and _rises(pair) == _rises(row.paper)
                    found[row.title] = found.get(row.title, True) and same
    lines = []
    if apart:
        lines.append(
            "Language models: our test perplexities differ from the paper's by at most "
            f"{100 * max(apart):.1f} %."
        )
    for title, same in agrees.items():
        if same:
            lines.append(
                f"{title}: dropout changes our figures in the same direction as the paper's."
            )
            continue
        line = f"{title}: dropout does not change our figures in the same direction as the paper's."
        if small_agrees[title]:
            line += " With less data, in the preset `demo`, it does."
        lines.append(line)
    return "\n".join(f"- {line}" for line in lines)


def _rises(pair: Pair) -> bool:
    """Whether a figure is higher with dropout."""
    without, with_dropout = pair
    assert without is not None
    assert with_dropout is not None
    return with_dropout > without


def _means(row: Row, runs: Mapping[str, Sequence[Result]], backend: str) -> Pair:
    """The means that the table shows for a backend."""

    def mean(with_dropout: bool) -> float | None:
        found = chosen(runs.get(row.task, ()), row, with_dropout, backend)
        return fmean(map(row.figure, found)) if found else None

    return mean(False), mean(True)
