"""The sections of the performance page about PyTorch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

from .aims import Result, of, small_ratios
from .jobs import CELLS, DROPPED, Job
from .tables import ms, spread, table
from .timing import median, ratio

TORCH = """
## PyTorch

These tables show a training step ÷ that of the stock layer, and ÷ that of the stock layer with the
same dropout. This dropout comes from PyTorch's own functions: `nn.Dropout` on the same connections,
one `bernoulli_` mask for the sequence, or `F.dropout` on the recurrent weights.

*Products* is the time of the step's matrix products alone, each computed for all steps at once, in
% of the time of the step. The rest of the time goes to small products (each step reads the
recurrent weights again and waits for the step before it), to activations and masks, to memory
accesses, and in small layers to Python.
"""

LAYERS = """
### Other kinds of layers

A training step under `variational` ÷ that of the stock layer, for simple RNNs, for LSTMs with a
projection to half as many units, for layers with separate masks for each gate
(`variational(gates="untied")`), and for layers under bfloat16 autocast.
"""

SMALL = """
### Small layers

A training step of one layer at {count} small sizes, with B = {b}; T = {t}; H = {h}; and D input
features, as many as units or {d}. `zaremba` is compared with the stock layer with the same dropout,
`variational` with the stock layer. *Mean* is the geometric mean. In such small layers, a policy
costs a fraction of a millisecond in Python, about the same at every size. This matters where the
stock layer itself takes no longer, above all for sequences of one step.
"""

EVALUATION = """
### Evaluation

`zoneout` and `rnndrop` have their own rule for evaluation. The table shows the time of a layer in
evaluation ÷ that of the stock layer. Under the other policies, a layer in evaluation is the stock
layer.
"""

BUSY = """
### On a busy machine

Here a second process takes the same training steps at the same time, with as many threads. *Busy ÷
alone* is the time of a step beside the second process ÷ the time of the same step alone. The last
column compares the policy with the stock layer (for `zaremba`, with the same dropout) beside the
second process.

PyTorch's threads wait for each other after every product, and each wait lasts as long as the
operating system lets the other process run. In this library, each thread takes its own samples
through all steps.
"""

KIND_NAMES = {
    "projection": "with a projection",
    "untied": "separate masks for each gate",
    "bfloat16": "under bfloat16 autocast",
}


def training(results: Sequence[Result]) -> str:
    """Training steps, by size and kind of layer."""
    jobs = list(of(results, "torch"))
    parts = [TORCH] if jobs else []
    for shape in dict.fromkeys(job.shape for job, _ in jobs):
        for cell in CELLS:
            here = [(j, found) for j, found in jobs if j.shape == shape and j.cell == cell]
            if here:
                parts.append(f"### {cell}, {shape}\n")
                head = ("policy", "ms", "÷ stock layer", "÷ with the same dropout", "products")
                rows = [_stock_row(here[0][1]), *(_torch_row(*each) for each in here)]
                parts.append(table(head, rows + _loops(here)))
    return "\n".join(parts)


def _share(found: Any, name: str) -> str:
    """The share of a step's time that its matrix products would take alone."""
    return f"{ratio(found['products'], found[name])[0]:.0%}" if "products" in found else ""


def _stock_row(found: Any) -> tuple[str, ...]:
    return "stock layer", ms(found["stock"]), "", "", _share(found, "stock")


def _torch_row(job: Job, found: Any) -> tuple[str, ...]:
    (policy,) = job.policies
    ours, dropped = found[policy], found.get(DROPPED)
    name = policy if job.compiled else f"{policy}, without a C compiler"
    same = "" if dropped is None else spread(ours, dropped)
    return name, ms(ours), spread(ours, found["stock"]), same, _share(found, policy)


def _loops(here: Sequence[tuple[Job, Any]]) -> list[tuple[str, ...]]:
    loops = [found for job, found in here if job.compiled and "cell loop" in found]
    name = "loop over PyTorch's cells, variational"
    return [
        (
            name, ms(found["cell loop"]), spread(found["cell loop"], found["stock"]), "",
            _share(found, "cell loop"),
        )
        for found in loops
    ]  # fmt: skip


def small_layers(results: Sequence[Result]) -> str:
    """The best and the worst of many small sizes."""
    jobs = list(of(results, "small"))
    if not jobs:
        return ""
    rows = []
    for job, found in jobs:
        (policy,) = job.policies
        by_size = small_ratios(found, policy)
        worst, best = max(by_size, key=by_size.__getitem__), min(by_size, key=by_size.__getitem__)
        rows.append(
            (
                f"{job.cell} {policy}", worst, best, f"{geometric_mean(by_size.values()):.2f}",
                f"{by_size[best]:.2f}", f"{by_size[worst]:.2f}", ms(found[worst]["stock"]),
                ms(found[worst][policy]),
            )
        )  # fmt: skip
    sizes = [size.split() for size in jobs[0][1]]
    axes = {axis: sorted({int(size[n][1:]) for size in sizes}) for n, axis in enumerate("bthd")}
    wide = sorted(set(axes["d"]) - set(axes["h"]))
    text = SMALL.format(
        count=len(sizes),
        **{axis: ", ".join(map(str, axes[axis])) for axis in "bth"},
        d=", ".join(map(str, wide)),
    )
    head = (
        "layer", "worst size", "best size", "mean", "best", "worst",
        "stock layer at the worst size, ms", "policy there, ms",
    )  # fmt: skip
    return text + "\n" + table(head, rows, 3)


def in_evaluation(results: Sequence[Result]) -> str:
    """Policies with their own rule for evaluation."""
    rows = [
        (f"{job.cell} {policy}", str(job.shape), ms(found["stock"]), ms(found[policy]),
         spread(found[policy], found["stock"]))
        for job, found in of(results, "evaluation")
        for policy in job.policies
    ]  # fmt: skip
    head = ("layer", "size", "stock layer, ms", "policy, ms", "÷ stock layer")
    return EVALUATION + "\n" + table(head, rows, 2) if rows else ""


def on_a_busy_machine(results: Sequence[Result]) -> str:
    """Training steps beside a second process."""
    rows = [
        (f"{job.cell} {policy}", str(job.shape), _times(each, "stock"), _times(each, "policy"),
         spread(each["policy, busy"], each["stock, busy"]))
        for job, found in of(results, "busy")
        for policy, each in found.items()
    ]  # fmt: skip
    head = (
        "layer", "size", "stock layer, busy ÷ alone", "policy, busy ÷ alone",
        "policy ÷ stock layer, busy",
    )  # fmt: skip
    return BUSY + "\n" + table(head, rows, 2) if rows else ""


def _times(found: Any, name: str) -> str:
    return f"{median(found[f'{name}, busy']) / median(found[name]):.1f}"


def kinds(results: Sequence[Result]) -> str:
    """Kinds of layers that the other tables do not have."""
    rows = [
        (f"{job.cell}, {KIND_NAMES.get(kind, kind)}", str(job.shape), ms(found[kind]["stock"]),
         ms(found[kind]["variational"]), spread(found[kind]["variational"], found[kind]["stock"]))
        for job, found in of(results, "layers")
        for kind in found
    ]  # fmt: skip
    head = ("layer", "size", "stock layer, ms", "policy, ms", "÷ stock layer")
    return LAYERS + "\n" + table(head, rows, 2) if rows else ""
