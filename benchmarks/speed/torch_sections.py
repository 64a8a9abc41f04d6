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

A training step's time ÷ the stock layer's, and ÷ that of the stock kernels with the same amount of
dropout by PyTorch's own functions: `nn.Dropout` on the same connections, one mask for a sequence
made by `bernoulli_`, or `F.dropout` on the recurrent weights. In brackets the quartiles.

The last column is the share of the processor's speed that a step reaches: what its matrix products
take alone, each of them for all steps at once, ÷ what the step takes. The rest goes to products of
a few rows at a time (each step reads the recurrent weights anew, and waits for the step before), to
activations and masks, to memory, and in small layers to Python.
"""

LAYERS = """
### Other kinds of layers

A training step under `variational` ÷ the stock layer's: of simple RNNs, of LSTMs with a projection
to half as many units, of layers with masks for each gate instead of one for all
(`variational(gates="untied")`), and of layers under autocast to bfloat16.
"""

SMALL = """
### Small layers

A training step of one layer at {count} small sizes: B of {b}, T of {t}, H of {h}, with an input as
wide as the layer or of {d} features. Under `zaremba` it is held against the stock layer with the
same dropout, under `variational` against the stock layer. The mean is geometric. In layers as small
as these a policy costs a part of a millisecond in Python, the same at every size. It counts where
the stock layer itself takes no longer, above all in sequences of one step.
"""

EVALUATION = """
### Evaluation

A layer in evaluation under a policy that has a rule of its own for it, ÷ the stock layer. Under the
others a layer is the stock one.
"""

BUSY = """
### On a busy machine

A training step beside a second process that takes the same steps on as many threads, ÷ the same
step alone; and ours ÷ PyTorch's there (under `zaremba` with the same dropout). PyTorch's threads
wait for each other after every product, and each wait lasts as long as the operating system lets
the other process run. Here each thread runs its own samples through all steps.
"""

KIND_NAMES = {
    "projection": "with a projection",
    "untied": "masks for each gate",
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
                head = ("policy", "ms", "÷ stock", "÷ stock with the same dropout", "products")
                rows = [_stock_row(here[0][1]), *(_torch_row(*each) for each in here)]
                parts.append(table(head, rows + _loops(here)))
    return "\n".join(parts)


def _share(found: Any, name: str) -> str:
    """The share of a step's time that its matrix products would take alone."""
    return f"{ratio(found['products'], found[name])[0]:.0%}" if "products" in found else ""


def _stock_row(found: Any) -> tuple[str, ...]:
    return "the stock layer", ms(found["stock"]), "", "", _share(found, "stock")


def _torch_row(job: Job, found: Any) -> tuple[str, ...]:
    (policy,) = job.policies
    ours, dropped = found[policy], found.get(DROPPED)
    name = policy if job.compiled else f"{policy}, without a C compiler"
    same = "" if dropped is None else spread(ours, dropped)
    return name, ms(ours), spread(ours, found["stock"]), same, _share(found, policy)


def _loops(here: Sequence[tuple[Job, Any]]) -> list[tuple[str, ...]]:
    loops = [found for job, found in here if job.compiled and "cell loop" in found]
    name = "a loop over PyTorch's cells, as variational"
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
    head = ("layer", "worst at", "best at", "mean", "best", "worst", "there ms of PyTorch's", "ms")
    return text + "\n" + table(head, rows, 3)


def in_evaluation(results: Sequence[Result]) -> str:
    """Policies with their own rule for evaluation."""
    rows = [
        (f"{job.cell} {policy}", str(job.shape), ms(found["stock"]), ms(found[policy]),
         spread(found[policy], found["stock"]))
        for job, found in of(results, "evaluation")
        for policy in job.policies
    ]  # fmt: skip
    head = ("layer", "size", "ms of PyTorch's", "ms", "÷ PyTorch's")
    return EVALUATION + "\n" + table(head, rows, 2) if rows else ""


def on_a_busy_machine(results: Sequence[Result]) -> str:
    """Training steps beside a second process."""
    rows = [
        (f"{job.cell} {policy}", str(job.shape), _times(each, "stock"), _times(each, "policy"),
         spread(each["policy, busy"], each["stock, busy"]))
        for job, found in of(results, "busy")
        for policy, each in found.items()
    ]  # fmt: skip
    head = ("layer", "size", "PyTorch's, busy ÷ alone", "ours, busy ÷ alone", "÷ PyTorch's, busy")
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
    head = ("layer", "size", "ms of PyTorch's", "ms", "÷ PyTorch's")
    return LAYERS + "\n" + table(head, rows, 2) if rows else ""
