"""docs/performance.md, from the results alone."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from .aims import Aim, Result, aims
from .sections import sections, table

HEAD = """# Performance

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
    parts = [HEAD, _where(results), _aims(aims(results)), *sections(results)]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _where(results: Sequence[Result]) -> str:
    machines = {_machine(result) for result in results}
    lines = [f"Measured on {machine}." for machine in sorted(machines)]
    gpu = any(result["job"]["device"] != "cpu" for result in results)
    keras = any(result["job"]["section"] == "keras" for result in results)
    return "\n".join(lines) + "\n" + NO_GPU * (not gpu) + NO_KERAS * (not keras)


def _machine(result: Result) -> str:
    machine, versions = result["machine"], result["versions"]
    names = {"torch": "PyTorch", "keras": "Keras", "tensorflow-cpu": "TensorFlow", "jax": "JAX"}
    used = ", ".join(f"{names[n]} {versions[n]}" for n in names if n in versions)
    parts = [machine["cpu"], f"{machine['cores']} cores"]
    if "torch_threads" in machine:
        parts.append(f"{machine['torch_threads']} threads of PyTorch's")
    parts += [machine["gpu"]] if "gpu" in machine else []
    return f"{', '.join(parts)}; {used}"


def _aims(found: Sequence[Aim]) -> str:
    rows = [(a.text, a.worst[0], _verdict(a), _limit(a), f"{a.worst[1]:.3f}") for a in found]
    head = ("ratio", "where it is worst", "", "aim", "worst")
    return "## What it may cost\n\n" + table(head, rows, 3)


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
        table.add_row(aim.text, _limit(aim), f"{aim.worst[1]:.3f}", aim.worst[0], verdict)
    return table
