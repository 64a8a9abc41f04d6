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

A training step is measured in two ways: *as it runs* in a Python program, and *captured* in a CUDA
graph, which leaves out the time that Python and PyTorch take to start each kernel.

Where PyTorch has the same dropout built in (`zaremba`), the stock layer runs all its layers in one
call of cuDNN. This library makes one call for each layer, because its masks lie between them. It
cannot use cuDNN's own dropout, which follows neither a layer's seed nor `torch.manual_seed`.
"""

GROWTH = """
## Growth

These figures show whether the time per token depends on the size. One layer of {units} units was
measured from T={t[0]} to T={t[1]} at B={batch}, and from B={b[0]} to B={b[1]} at T={steps}.

- *Most* and *least*: the highest and the lowest time per token of all larger sizes ÷ that of the
  smallest size.
- *Rise*: the highest ratio of the time per token at one size to that at a smaller size.

With larger B, a token takes less time, also in the stock layer: a matrix product reads the weights
once for all samples. With larger T, a token can take more time, also in the stock layer: large
arrays get new memory pages from the operating system at each call. In the rows with "memory kept",
the C library keeps the memory that is freed (`{keeping}`, for glibc).

![Time per token by T and by B, of policies and of the stock layers.](speed-growth.png)
"""

MEMORY = """
## Memory

The peak of what a step allocates in PyTorch at {shape}, in MiB. Gradients count; weights and input
do not. A mask on a vertical connection or on weights takes one byte for each element. The masked
values are a copy, as with `nn.Dropout`.
"""

KERAS_MEMORY = """
### Keras

The same for Keras's layers at {shape}, without the gradient of the input. On JAX, it is the memory
that XLA reserves for a compiled step; on torch, it is what PyTorch allocates. TensorFlow does not
count its allocations on a CPU.
"""

MASKS = """
## Masks

The time for all masks of one call at {shape}, in ms: by PyTorch's `bernoulli_`, by this library
without a seed, and by this library with a seed (keyed masks). The last column is a whole training
step with keyed masks.
"""

SCOPES = """
## Step by step

A training step in which a program calls the layer or the cell once for each time step. Inside
`dp.sequence`, these calls get the masks of one sequence. Outside, each call draws its own masks.
"""

KERAS = """
## Keras

A training step at {shape} ÷ that of a baseline, for each backend. The baselines are:

- `dropout`: Keras's own layer with this argument, for vertical and weight policies;
- `recurrent_dropout`: Keras's own layer with `dropout` and `recurrent_dropout`, for policies inside
  the recurrence;
- Dropout layers or SpatialDropout1D layers: Keras's own layers, with these layers at the places of
  the masks;
- masks without a seed: the same policy without a seed, for keyed masks.
"""

PEERS = """
## Other libraries

A training step of the LSTMs of other libraries at {shape}, and of this library's LSTM with masks
at the same places.
"""


def sections(results: Sequence[Result]) -> Iterator[str]:
    """The sections that the results have figures for."""
    for section in SECTIONS:
        text = section(results)
        if text:
            yield text


def _gpu(results: Sequence[Result]) -> str:
    jobs = list(of(results, "gpu"))
    parts = [GPU] if jobs else []
    ratios = ("÷ stock layer", "÷ with the same dropout")
    head = ("policy", "as it runs, ms", *ratios, "captured, ms", *ratios)
    for job, found in jobs:
        rows = [_gpu_row(name, found) for name in ("stock", *job.policies)]
        parts.append(f"### {job.cell}, {job.shape}, on a GPU\n\n{table(head, rows)}")
    return "\n".join(parts)


def _gpu_row(name: str, found: Any) -> tuple[str, ...]:
    row = ["stock layer" if name == "stock" else name]
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
        parts.append(table(("policy", "baseline", *backends), rows, texts=2))
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
        "layer", "policy", "training", "stock layer, training", "with the same dropout, training",
        "mask elements (Mi)", "evaluation", "stock layer, evaluation",
    )  # fmt: skip
    return MEMORY.format(shape=jobs[0][0].shape) + "\n" + table(head, rows, 2) if jobs else ""


def _keras_memory(results: Sequence[Result]) -> str:
    jobs = list(of(results, "keras-memory"))
    rows = [
        (job.cell, job.backend, name, *_peaks(peaks, found["stock"]))
        for job, found in jobs
        for name, peaks in found.items()
    ]
    head = (
        "layer", "backend", "policy", "training", "÷ stock layer", "evaluation", "÷ stock layer",
    )  # fmt: skip
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
    head = ("layer", "policy", "varied", "most", "least", "rise")
    return text + "\n" + table(head, rows, 3)


def _masks(results: Sequence[Result]) -> str:
    jobs = list(of(results, "masks"))
    rows = [
        (policy, *(ms(found[policy][name]) for name in ("bernoulli_", "unkeyed", "keyed", "step")))
        for job, found in jobs
        for policy in job.policies
    ]
    head = ("policy", "bernoulli_", "without a seed", "with a seed", "training step")
    return MASKS.format(shape=jobs[0][0].shape) + "\n" + table(head, rows) if jobs else ""


def _scopes(results: Sequence[Result]) -> str:
    rows = [
        (f"{job.cell} {name}", str(job.shape), ms(found[name]), ms(found[name + IN_SCOPE]),
         spread(found[name + IN_SCOPE], found[name]))
        for job, found in of(results, "scopes")
        for name in found
        if not name.endswith(IN_SCOPE)
    ]  # fmt: skip
    head = ("called at each step", "size", "outside, ms", "inside, ms", "inside ÷ outside")
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
    head = ("layer", "its time, ms", "this library, ms", "its time ÷ this library")
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
