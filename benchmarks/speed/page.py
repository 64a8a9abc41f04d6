"""docs/performance.md, from the results alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.table import Table

from .aims import Aim, Result, aims, means, of
from .jobs import CELLS, DROPPED, IN_LOOP, VERTICAL
from .sections import sections
from .tables import table
from .timing import ratio

HEAD = """# Performance
"""

GLANCE = """
These are the figures for a CPU.

- **Masks before the recurrence** (`zaremba`, `locked`, `weight_drop`, `awd`): a training step of an
  LSTM takes {lstm} of the time of PyTorch's own layer with as much dropout.
  For a GRU it is {gru}.
- **Masks inside the recurrence**, for which PyTorch has no layer: a training step takes
  {inside} of the time of PyTorch's layer without dropout, and
  {loop} of the time of a loop over PyTorch's cells.
- **In evaluation** a layer runs PyTorch's own code. Only `zoneout` and `rnndrop` have their own
  rule for evaluation.

![Time of a training step, relative to PyTorch's layer, by policy and size.](speed-torch.png)

Each figure in this table is a geometric mean over {sizes} sizes. The policies that were measured at
all of these sizes are {policies}.
Where there are two figures, they belong to the fastest and the slowest of them. The tables below
have the other policies.
"""

HOW = """
## How it was measured

Every figure on this page is computed from `benchmarks/results/speed.json`, which
`python -m benchmarks.speed` writes (`--quick` for a first look); each entry holds the job, every
round's seconds, versions and machine. Nothing is typed in by hand.

A training step is the forward pass and the backward pass, to every weight and to the input; in
Keras it is `train_on_batch` of a model of the same layers. Each job is a process of its own, in
which contestants take turns; a ratio is the median of the rounds' ratios. Sizes are B samples of T
steps through L layers of H units.
"""

NO_GPU = """
**Nothing on this page was measured on a GPU.** For what PyTorch measures, `--device cuda` does.
"""

NO_KERAS = """
**Keras has not been measured yet**; `--section keras` does it.
"""


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [HEAD, _at_a_glance(results), HOW, _where(results), _aims(aims(results))]
    return "\n".join(part.strip("\n") + "\n" for part in [*parts, *sections(results)] if part)


def _at_a_glance(results: Sequence[Result]) -> str:
    """Three sentences, a picture and a table, for who reads no further."""
    vertical = {cell: dict(means(results, cell, VERTICAL, DROPPED)) for cell in CELLS}
    inside = {cell: dict(means(results, cell, IN_LOOP, "stock")) for cell in CELLS}
    if not all([*vertical.values(), *inside.values()]):
        return ""
    loops = [
        ratio(found["variational"], found["cell loop"])[0]
        for _, found in of(results, "torch", compiled=True)
        if "cell loop" in found
    ]
    rows = [
        (cell, what, _range(by_name.values()), against)
        for cell in CELLS
        for what, against, by_name in (
            (
                "vertical and weight policies",
                "the stock layer with as much dropout",
                vertical[cell],
            ),
            ("policies inside the recurrence", "the stock layer without dropout", inside[cell]),
        )
    ]
    text = GLANCE.format(
        lstm=_range(vertical["LSTM"].values()),
        gru=_range(vertical["GRU"].values()),
        inside=_range([*inside["LSTM"].values(), *inside["GRU"].values()]),
        loop=_range(loops),
        sizes=len({job.shape for job, _ in of(results, "torch", compiled=True)}),
        policies=_listed(dict.fromkeys(_policies([*vertical.values(), *inside.values()]))),
    )
    return text + "\n" + table(("layer", "policies", "time", "÷"), rows, 2)


def _policies(means_by_name: Iterable[dict[str, float]]) -> Iterator[str]:
    """The policies that means are about: "zaremba" of "LSTM zaremba, 6 sizes"."""
    for by_name in means_by_name:
        for name in by_name:
            yield name.split()[1].rstrip(",")


def _listed(names: Iterable[str]) -> str:
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _range(values: Iterable[float]) -> str:
    low, high = min(values := list(values)), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _where(results: Sequence[Result]) -> str:
    """Each machine once, with what was measured on it."""
    measured: dict[str, dict[str, None]] = {}
    for result in results:
        measured.setdefault(_machine(result), {})[result["job"]["section"]] = None
    lines = [f"- {machine}: {', '.join(done)}." for machine, done in sorted(measured.items())]
    gpu = any(result["job"]["device"] != "cpu" for result in results)
    keras = any(result["job"]["section"] == "keras" for result in results)
    head = "Measured on these machines, by section of `benchmarks.speed`:\n\n"
    return head + "\n".join(lines) + "\n" + NO_GPU * (not gpu) + NO_KERAS * (not keras)


def _machine(result: Result) -> str:
    machine, versions = result["machine"], result["versions"]
    names = {"torch": "PyTorch", "keras": "Keras", "tensorflow-cpu": "TensorFlow", "jax": "JAX"}
    used = ", ".join(f"{names[n]} {versions[n]}" for n in names if n in versions)
    parts = [machine["cpu"], f"{machine['cores']} cores"]
    parts += [machine["gpu"]] if "gpu" in machine else []
    return f"{', '.join(parts)}; {used}"


def _aims(found: Sequence[Aim]) -> str:
    rows = [(_text(a), a.worst[0], _verdict(a), _limit(a), f"{a.worst[1]:.3f}") for a in found]
    head = ("ratio", "where it is worst", "", "aim", "worst")
    return "## What it may cost\n\n" + table(head, rows, 3)


def _text(aim: Aim) -> str:
    return f"{aim.text} ({aim.kernels} kernels)" if aim.kernels else aim.text


def _limit(aim: Aim) -> str:
    return f"{'≥' if aim.at_least else '≤'} {aim.limit:g}"


def _verdict(aim: Aim) -> str:
    return "met" if aim.met else "**not met**"


def aims_table(found: Sequence[Aim]) -> Table:
    """What a terminal shows of a run."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in ("ratio", "aim", "worst", "where", ""):
        table.add_column(heading, justify="right" if heading in ("aim", "worst") else "left")
    for aim in found:
        verdict = "met" if aim.met else "[red]not met[/red]"
        table.add_row(_text(aim), _limit(aim), f"{aim.worst[1]:.3f}", aim.worst[0], verdict)
    return table
