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
This page shows how much time and memory policies take. This summary is for PyTorch on a CPU.

- **Masks before the recurrence** (`zaremba`, `locked`, `weight_drop`, `awd`): a training step of an
  LSTM takes {lstm} of the time of PyTorch's own layer with the same dropout.
  For a GRU it is {gru}.
- **Masks inside the recurrence**, for which PyTorch has no layer: a training step takes
  {inside} of the time of PyTorch's layer without dropout, and
  {loop} of the time of a loop over PyTorch's cells.
- **In evaluation**, a layer runs PyTorch's own code. Only `zoneout` and `rnndrop` have their own
  rule for evaluation.

![Time of a training step relative to PyTorch's layer, by policy and size.](speed-torch.png)

Each figure in this table is a geometric mean over {sizes} sizes. The policies that were measured at
all of these sizes are {policies}.
Where there are two figures, they belong to the fastest and the slowest of these policies. The other
policies are in the tables further down.
"""

HOW = """
## How it was measured

`python -m benchmarks.speed` writes its measurements to `speed.json`, and every figure on this page
is computed from the committed `benchmarks/results/speed.json`. Each entry holds the job, the
seconds of every round, the versions and the machine. For a first impression, use `--quick`.

- **A training step** is a forward and a backward pass, with the gradients of all weights and of the
  input. In Keras, it is `train_on_batch` of a model of the same layers.
- **a ÷ b** is the time of a divided by the time of b, so below 1 means that a is faster. Each job
  runs in a process of its own, where a and b take turns. The ratio is the median of the ratios of
  all rounds. The quartiles are in brackets.
- **The stock layer** is PyTorch's or Keras's own layer, without dropout. **With the same dropout**
  means the stock layer with as much dropout as the policy, by the framework's own functions.
- **Sizes** are written like B20 T35 H650 L2: a batch of 20 samples, 35 steps, 650 units, 2 layers.
"""

GOALS = """## Goals and what was measured

The project sets itself a goal for each ratio: at most (≤) or at least (≥) the number. *Measured* is
the worst figure, and *worst case* is the layer that it belongs to. Some ratios depend on the
kernels of another library; this is noted in brackets.
"""

NO_GPU = """
**Nothing on this page was measured on a GPU.** `--device cuda` measures PyTorch on one.
"""

NO_KERAS = """
**Keras has not been measured yet.** `--section keras` measures it.
"""


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [HEAD, _at_a_glance(results), HOW, _where(results), _aims(aims(results))]
    return "\n".join(part.strip("\n") + "\n" for part in [*parts, *sections(results)] if part)


def _at_a_glance(results: Sequence[Result]) -> str:
    """The first screen: a short list, a picture and a table."""
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
                "PyTorch's layer with the same dropout",
                vertical[cell],
            ),
            ("policies inside the recurrence", "PyTorch's layer without dropout", inside[cell]),
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
    return text + "\n" + table(("layer", "policies", "time", "relative to"), rows, 2)


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
    head = "The machines, and which sections of `benchmarks.speed` ran on each:\n\n"
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
    head = ("ratio", "worst case", "met?", "goal", "measured")
    return GOALS + "\n" + table(head, rows, 3)


def _text(aim: Aim) -> str:
    return f"{aim.text} ({aim.kernels} kernels)" if aim.kernels else aim.text


def _limit(aim: Aim) -> str:
    return f"{'≥' if aim.at_least else '≤'} {aim.limit:g}"


def _verdict(aim: Aim) -> str:
    return "met" if aim.met else "**not met**"


def aims_table(found: Sequence[Aim]) -> Table:
    """What a terminal shows of a run."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in ("ratio", "goal", "measured", "worst case", ""):
        table.add_column(heading, justify="right" if heading in ("goal", "measured") else "left")
    for aim in found:
        verdict = "met" if aim.met else "[red]not met[/red]"
        table.add_row(_text(aim), _limit(aim), f"{aim.worst[1]:.3f}", aim.worst[0], verdict)
    return table
