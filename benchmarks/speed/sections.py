"""The performance page's sections, each from the results of one kind of job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .aims import (
    Result,
    by_smallest,
    of,
    own_dropout,
    per_token,
    rises,
    same_dropout,
)
from .jobs import BACKENDS, CAPTURED, CELLS, DROPPED, IN_SCOPE, KEEPING, same_dropout_of
from .tables import ms, spread, table
from .torch_sections import in_evaluation, kinds, on_a_busy_machine, small_layers, training

MIB = 2**20

GPU = """
## PyTorch on a GPU

The same on a GPU, in ms: as a program in Python runs a step, and captured in a CUDA graph, where
what Python and PyTorch take to start each kernel is left out. The stock layer with the same dropout
runs all its layers as one call of cuDNN where PyTorch has that dropout itself (`zaremba`); this
library's masks between layers make it one call for each, since cuDNN's own dropout follows neither
a layer's seed nor `torch.manual_seed`.
"""

GROWTH = """
## Growth

Time per token of one layer of {units} units, from T={t[0]} to T={t[1]} at B={batch}, and from
B={b[0]} to B={b[1]} at T={steps}: the most and the least that it comes to at any larger size ÷
what it is at the smallest, and the most ÷ what it is at any smaller size. It is not flat as B
grows: it falls, as the stock layer's does, since a matrix product reads the weights once for all
samples. Arrays of many steps come in new pages of the operating system each time, the stock
layer's too, and their number is what makes a token of a long sequence take longer. With "memory
kept" the C library keeps them (`{keeping}`, for glibc).

![Time per token by T and by B, of policies and of the stock layers.](speed-growth.png)
"""

MEMORY = """
## Memory

The most that a step's allocations come to at once in PyTorch, gradients among them, weights and
input not, in MiB at {shape}. Masks of vertical connections and of weights are
kept as a byte for each element; what they fall on has a masked copy, as it has under `nn.Dropout`.
"""

KERAS_MEMORY = """
### Keras

The same for Keras's layers at {shape}, but for the gradient at the input: what XLA
sets aside for a compiled step, and what PyTorch allocates. TensorFlow does not count what it
allocates on a CPU.
"""

MASKS = """
## Masks

Milliseconds for all masks of one call at {shape}: by `bernoulli_`, as this
library draws them without a seed, and keyed with one; and a training step with keyed masks.
"""

SCOPES = """
## Step by step

A training step in which PyTorch's layer, or its cell, is called once for each of the steps: inside
`dp.sequence`, where the masks are those of one sequence, and outside, where each call draws its
own.
"""

KERAS = """
## Keras

A training step's time ÷ that of Keras's own layer at {shape}, on each backend: with `dropout` for
vertical and weight policies, with `dropout` and `recurrent_dropout` for those inside the
recurrence. Then ÷ that of stock layers with dropout layers at the same places, and keyed masks ÷
masks without a seed.
"""

PEERS = """
## Other libraries

Training steps of other libraries' LSTMs at {shape}, and of this library's with
masks at the same places.
"""


def sections(results: Sequence[Result]) -> Iterator[str]:
    """Those that the results have anything for."""
    for section in SECTIONS:
        text = section(results)
        if text:
            yield text


def _gpu(results: Sequence[Result]) -> str:
    jobs = list(of(results, "gpu"))
    parts = [GPU] if jobs else []
    head = ("policy", *("ms", "÷ stock", "÷ stock with the same dropout") * 2)
    for job, found in jobs:
        rows = [_gpu_row(name, found) for name in ("stock", *job.policies)]
        parts.append(f"### {job.cell}, {job.shape}, as it runs; captured\n\n{table(head, rows)}")
    return "\n".join(parts)


def _gpu_row(name: str, found: Any) -> tuple[str, ...]:
    row = [name]
    for how in ("", CAPTURED):
        ours, same = found[name + how], found.get(same_dropout_of(name) + how)
        stock = "" if name == "stock" else spread(ours, found["stock" + how])
        row += [ms(ours), stock, "" if same is None else spread(ours, same)]
    return tuple(row)


def _keras(results: Sequence[Result]) -> str:
    jobs = list(of(results, "keras"))
    if not jobs:
        return ""
    parts = [KERAS.format(shape=jobs[0][0].shape)]
    for cell in CELLS:
        here = {job.backend: found for job, found in jobs if job.cell == cell}
        if not here:
            continue
        backends = [name for name in BACKENDS if name in here]
        (policies, *_) = [job.policies for job, _ in jobs if job.cell == cell]
        rows = [
            (name, f"`{own_dropout(name)}`", *_by_backend(here, name, own_dropout(name)))
            for name in policies
        ]
        for name in policies:
            same = same_dropout(name)
            if same is not None:
                rows.append((name, same, *_by_backend(here, name, same)))
        for name in (n for n in next(iter(here.values())) if n.endswith(", keyed")):
            plain = name.removesuffix(", keyed")
            rows.append((name, "masks without a seed", *_by_backend(here, name, plain)))
        parts.append(f"### {cell}\n")
        parts.append(table(("policy", "÷", *backends), rows, texts=2))
    return "\n".join(parts)


def _by_backend(here: dict[str, Any], name: str, baseline: str) -> list[str]:
    return [spread(found[name], found[baseline]) for found in here.values()]


def _memory(results: Sequence[Result]) -> str:
    jobs = list(of(results, "memory"))
    rows = []
    for job, found in jobs:
        (policy,) = job.policies
        ours, stock = found[policy], found["stock"]
        same = found.get(DROPPED)
        rows.append(
            (
                job.cell,
                policy,
                f"{ours['training'] / MIB:.1f}",
                f"{stock['training'] / MIB:.1f}",
                "" if same is None else f"{same['training'] / MIB:.1f}",
                f"{found['masks']['elements'] / MIB:.1f}",
                f"{ours['evaluation'] / MIB:.1f}",
                f"{stock['evaluation'] / MIB:.1f}",
            )
        )
    head = (
        "layer", "policy", "training", "stock", "with the same dropout", "mask elements (Mi)",
        "evaluation", "stock",
    )  # fmt: skip
    return MEMORY.format(shape=jobs[0][0].shape) + "\n" + table(head, rows, 2) if jobs else ""


def _keras_memory(results: Sequence[Result]) -> str:
    jobs = list(of(results, "keras-memory"))
    rows = [
        (job.cell, job.backend, name, *_peaks(peaks, found["stock"]))
        for job, found in jobs
        for name, peaks in found.items()
    ]
    head = ("layer", "backend", "policy", "training", "÷ stock", "evaluation", "÷ stock")
    return KERAS_MEMORY.format(shape=jobs[0][0].shape) + "\n" + table(head, rows, 3) if jobs else ""


def _peaks(found: dict[str, int], stock: dict[str, int]) -> Iterator[str]:
    for when, peak in found.items():
        yield from (f"{peak / MIB:.1f}", f"{peak / stock[when]:.2f}")


def _growth(results: Sequence[Result]) -> str:
    jobs = list(of(results, "growth"))
    if not jobs:
        return ""
    rows = []
    for job, found in jobs:
        for axis in ("T", "B"):
            for name in (*job.policies, "stock"):
                times = per_token(job, axis, found[axis], name)
                by_size = by_smallest(times)
                most, least = max(by_size.values()), min(by_size.values())
                rise = max(rises(times).values())
                name += ", memory kept" if job.keeps_memory else ""
                rows.append((job.cell, name, axis, f"{most:.2f}", f"{least:.2f}", f"{rise:.2f}"))
    rows = list({row[:3]: row for row in rows}.values())  # the stock layer's once
    job, found = jobs[0]
    sizes = {axis: sorted(map(int, found[axis])) for axis in ("T", "B")}
    text = GROWTH.format(
        units=job.shape.units,
        t=(sizes["T"][0], sizes["T"][-1]),
        b=(sizes["B"][0], sizes["B"][-1]),
        batch=job.shape.batch,
        steps=job.shape.steps,
        keeping=" ".join(f"{name}={value}" for name, value in KEEPING.items()),
    )
    head = ("layer", "policy", "by", "most", "least", "÷ any smaller")
    return text + "\n" + table(head, rows, 3)


def _masks(results: Sequence[Result]) -> str:
    jobs = list(of(results, "masks"))
    rows = [
        (policy, *(ms(found[policy][name]) for name in ("bernoulli_", "unkeyed", "keyed", "step")))
        for job, found in jobs
        for policy in job.policies
    ]
    head = ("policy", "bernoulli_", "unkeyed", "keyed", "step")
    return MASKS.format(shape=jobs[0][0].shape) + "\n" + table(head, rows) if jobs else ""


def _scopes(results: Sequence[Result]) -> str:
    rows = [
        (f"{job.cell} {name}", str(job.shape), ms(found[name]), ms(found[name + IN_SCOPE]),
         spread(found[name + IN_SCOPE], found[name]))
        for job, found in of(results, "scopes")
        for name in found
        if not name.endswith(IN_SCOPE)
    ]  # fmt: skip
    head = ("called for each step", "size", "ms outside", "ms inside", "inside ÷ outside")
    return SCOPES + "\n" + table(head, rows, 2) if rows else ""


def _peers(results: Sequence[Result]) -> str:
    jobs = list(of(results, "peers"))
    rows = [
        (name, "not installed", "", "")
        if "missing" in seconds
        else (name, ms(seconds["peer"]), ms(seconds["ours"]),
              spread(seconds["peer"], seconds["ours"]))
        for _, found in jobs
        for name, seconds in found.items()
    ]  # fmt: skip
    head = ("layer", "ms", "ours", "÷ ours")
    return PEERS.format(shape=jobs[0][0].shape) + "\n" + table(head, rows) if jobs else ""


SECTIONS = (
    training,
    kinds,
    small_layers,
    in_evaluation,
    on_a_busy_machine,
    *(_gpu, _keras, _memory, _keras_memory, _growth, _masks, _scopes, _peers),
)
"""In the order of the page."""
