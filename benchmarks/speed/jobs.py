"""What is measured: one job for each process, since what ran before leaves its mark on memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import dropout_policies as dp

VERTICAL = ("zaremba", "locked", "weight_drop", "awd")
IN_LOOP = ("variational", "naive", "semeniuta", "rnndrop", "zoneout")
POLICIES = (*VERTICAL, *IN_LOOP)
CELLS = ("LSTM", "GRU")
BACKENDS = ("tensorflow", "jax", "torch")
COUNTING = ("jax", "torch")
"""The backends of Keras that count what they allocate on a CPU."""
SECTIONS = (
    *("torch", "layers", "small", "evaluation", "busy", "keras", "gpu", "memory", "keras-memory"),
    *("growth", "masks", "scopes", "peers"),
)
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
"""The environment in which glibc keeps what is given back to it."""
DROPPED = "stock with dropout"
"""The name, beside one policy's, of the stock kernels with that policy's amount of dropout."""
IN_SCOPE = ", in a scope"
"""What follows the name of a loop whose steps are one sequence."""
KINDS = {
    "RNN": ("tanh", "relu", "bfloat16"),
    "LSTM": ("projection", "untied", "bfloat16"),
    "GRU": ("untied", "bfloat16"),
}
"""Kinds of layers beside those that the other sections measure, by their cell: a simple RNN's
activations, an LSTM with a projection, masks for each gate, and autocast."""
CAPTURED = ", captured"
"""What follows the name of a step that ran as a CUDA graph."""


def policies(cell: str) -> tuple[str, ...]:
    """Those that a kind of layer can have: a GRU has no cell state for rnndrop to fall on."""
    return tuple(name for name in POLICIES if cell == "LSTM" or name != "rnndrop")


def same_dropout_of(policy: str) -> str:
    """The name, beside other policies', of the stock kernels with a policy's amount of dropout."""
    return f"stock with dropout as {policy}"


def policy_of(name: str, cell: str) -> dp.Policy:
    """A policy at its default rates, as a kind of layer can have it."""
    return dp.zoneout(cell=0.0) if (name, cell) == ("zoneout", "GRU") else dp.resolve(name)


@dataclass(frozen=True)
class Shape:
    """B samples of T steps through L layers of H units, whose input has H features too."""

    batch: int
    steps: int
    units: int
    layers: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.steps} H{self.units} L{self.layers}"


MEDIUM = Shape(20, 35, 650, 2)
SMALL = Shape(20, 20, 200, 2)
TINY = Shape(16, 35, 64, 1)
SHAPES = (
    *(MEDIUM, SMALL, Shape(32, 100, 128, 1), Shape(64, 50, 256, 2), Shape(1, 200, 256, 1)),
    Shape(128, 30, 512, 2),
)
REPRESENTATIVES = ("zaremba", "awd", "variational", "zoneout")
"""The policies that run at every shape; all run at the first two."""


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Args:
        section: one of `SECTIONS`.
        cell: LSTM, GRU, or in the section "layers" RNN.
        shape: where a section runs through several, the one it starts from.
        backend: torch, or in Keras's sections one of `BACKENDS`.
        policies: which.
        device: cpu or cuda.
        compiled: whether the library's functions in C may be compiled.
        keeps_memory: whether the C library keeps what is given back to it, where it would give much
            of it back to the operating system, whose new pages take time to come.
        seconds: about how long to measure, after the warm-ups.
    """

    section: str
    cell: str
    shape: Shape
    policies: tuple[str, ...]
    backend: str = "torch"
    device: str = "cpu"
    compiled: bool = True
    keeps_memory: bool = False
    seconds: float = field(default=10.0, compare=False)

    @property
    def name(self) -> str:
        parts = [self.section, self.backend, self.cell, str(self.shape).replace(" ", "")]
        all_of_them = self.section in (
            "keras",
            "keras-memory",
            "gpu",
            "masks",
            "evaluation",
            "busy",
        )
        parts += [] if all_of_them else ["-".join(self.policies)]
        parts += [] if self.device == "cpu" else [self.device]
        parts += [] if self.compiled else ["uncompiled"]
        parts += ["kept"] if self.keeps_memory else []
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        given = dict(data)
        given["shape"], given["policies"] = Shape(**data["shape"]), tuple(data["policies"])
        return cls(**given)


def every(device: str = "cpu") -> Iterator[Job]:
    """All jobs."""
    if device == "cpu":
        yield from _on_cpu()
    else:
        for shape in (MEDIUM, SMALL):
            for cell in CELLS:
                yield Job("gpu", cell, shape, policies(cell), device=device)
    for cell in CELLS:
        for policy in policies(cell):
            yield Job("memory", cell, MEDIUM, (policy,), device=device)
    shape = Shape(20, 35, 200, 1)
    for cell in CELLS:
        for policy in ("zaremba", "variational", "zoneout"):
            yield Job("growth", cell, shape, (policy,), device=device, seconds=20.0)
    for policy in ("zaremba", "variational") if device == "cpu" else ():
        yield Job("growth", "LSTM", shape, (policy,), keeps_memory=True, seconds=20.0)
    yield Job("masks", "LSTM", MEDIUM, POLICIES, device=device)
    for cell in CELLS:
        for shape in (Shape(20, 35, 650, 1), TINY):
            yield Job("scopes", cell, shape, ("zaremba", "variational"), device=device)
    yield Job("peers", "LSTM", MEDIUM, ("weight_drop", "awd", "zaremba"), device=device)
    if device != "cpu":
        return  # which device a Keras backend takes is its own affair
    for cell in CELLS:
        for backend in BACKENDS:
            yield Job("keras", cell, MEDIUM, policies(cell), backend, seconds=150.0)
        for backend in COUNTING:
            yield Job("keras-memory", cell, MEDIUM, policies(cell), backend)


def _on_cpu() -> Iterator[Job]:
    """Training and evaluation in PyTorch on a CPU."""
    for shape in SHAPES:
        for cell in CELLS:
            everyone = shape in (MEDIUM, SMALL)
            for policy in policies(cell) if everyone else REPRESENTATIVES:
                yield Job("torch", cell, shape, (policy,))
            if everyone:
                yield Job("torch", cell, shape, ("variational",), compiled=False)
    for shape in (MEDIUM, SMALL):
        for cell in KINDS:
            yield Job("layers", cell, shape, ("variational",), seconds=20.0)
    for cell in KINDS:
        for policy in ("zaremba", "variational"):
            yield Job("small", cell, TINY, (policy,), seconds=20.0)
    for shape in SHAPES:
        for cell in CELLS:
            wanted = tuple(name for name in ("zoneout", "rnndrop") if name in policies(cell))
            yield Job("evaluation", cell, shape, wanted, seconds=5.0)
    for shape in (MEDIUM, SMALL):
        for cell in CELLS:
            yield Job("busy", cell, shape, ("zaremba", "variational"))


def quick(device: str = "cpu") -> Iterator[Job]:
    """A few of them at the small shape, within three minutes on two cores."""
    if device != "cpu":
        yield Job("gpu", "LSTM", SMALL, ("zaremba", "variational"), device=device, seconds=3.0)
    else:
        for cell, policy in (("LSTM", "zaremba"), ("LSTM", "variational"), ("GRU", "variational")):
            yield Job("torch", cell, SMALL, (policy,), seconds=3.0)
        yield Job("layers", "RNN", SMALL, ("variational",), seconds=3.0)
        yield Job("small", "LSTM", TINY, ("zaremba",), seconds=3.0)
        yield Job("evaluation", "LSTM", SMALL, ("zoneout", "rnndrop"), seconds=3.0)
        yield Job("busy", "LSTM", SMALL, ("zaremba",), seconds=3.0)
    yield Job("memory", "LSTM", SMALL, ("variational",), device=device)
    yield Job("growth", "LSTM", Shape(20, 35, 50, 1), ("variational",), device=device, seconds=0.5)
    yield Job("masks", "LSTM", SMALL, ("zaremba", "variational"), device=device, seconds=3.0)
    yield Job("scopes", "LSTM", TINY, ("zaremba", "variational"), device=device, seconds=3.0)
    yield Job("peers", "LSTM", SMALL, ("weight_drop", "awd", "zaremba"), device=device, seconds=3.0)
    if device == "cpu":
        yield Job("keras", "LSTM", SMALL, ("zaremba", "variational"), "jax", seconds=5.0)
        yield Job("keras-memory", "LSTM", SMALL, ("zaremba", "variational"), "jax")
