"""`python -m tests.support.audit_page torch`, `keras` and `page`: what the audit says of the tests'
set, kept as data and as a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import dropout_policies as dp
from dropout_policies.auditing.audits import Audit

from .audited import find_errors

Line = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "audited"
LINES = ROOT / "tests" / "audited.jsonl"
PAGE = ROOT / "docs" / "audited.md"
SEED = 1

NAMES = {
    "torch": "PyTorch",
    "keras-tensorflow": "Keras on TensorFlow",
    "keras-jax": "Keras on JAX",
    "keras-torch": "Keras on torch",
}

HEAD = """# Audit results for many layers

This page shows what `dropout_policies.audit` reports for many layers and models, each with random
weights: this library's layers, the layers of the frameworks with their dropout arguments, loops and
models written by hand, and some layers of other libraries. [Audit](audit.md) explains the terms.

- *Policy*: the policy that the audit recognises, or the nearest one.
- *Vertical*: how many of the vertical connections are masked.
- *Masks*: where masks are, their measured rate with its 99% interval in brackets, and how long a
  mask lives. Measured rates vary around the true ones.
- *Evaluation*: what the layer computes in evaluation: the same as without masks (identity), or with
  the mean of the masks.
- *Errors*: how many statements of the report are wrong. The tests know the true masks of every
  layer except those of other libraries, which have a dash.

`make audited` measures all of this and writes it to `tests/audited.jsonl` and to this page.
"""


def third_party_layers() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Layers of other libraries."""
    opacus, fastai = import_module("opacus.layers"), import_module("fastai.text.models.awdlstm")
    yield "Opacus DPLSTM, 2 layers, dropout", lambda: opacus.DPLSTM(9, 8, 2, dropout=0.4)
    yield "Opacus DPGRU, dropout", lambda: opacus.DPGRU(9, 8, dropout=0.4)
    yield "fastai AWD_LSTM, 2 layers", lambda: fastai.AWD_LSTM(60, 24, 32, 2)


def collect(framework: str) -> None:
    """Audit the set of a framework and write the verdicts to a file."""
    made = import_module(f".{framework}_audited", __package__).cases()
    if framework == "torch":
        import torch

        backend, seed, extra_layers = "torch", torch.manual_seed, list(third_party_layers())
        packages = ["torch", "opacus", "fastai"]
    else:
        import keras

        backend = f"keras-{keras.backend.backend()}"
        seed, extra_layers = keras.utils.set_random_seed, []
        packages = ["keras", {"tensorflow": "tensorflow-cpu"}.get(backend[6:], backend[6:])]
    versions = {package: version(package) for package in packages}
    lines: list[Line] = []
    for name, make, case in [(c.name, c.make, c) for c in made] + [
        (n, m, None) for n, m in extra_layers
    ]:
        seed(SEED)
        audit = dp.audit(make())
        false = None if case is None else find_errors(case, audit)
        lines.append(
            {"backend": backend, "module": name, **_summarize(audit), "false": false}
            | {"seed": SEED, "versions": versions}
        )
        print(name, *(false or ()), flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (FOLDER / f"{backend}.jsonl").write_text(text, encoding="utf-8")


def _summarize(audit: Audit) -> Line:
    masked, connections = audit.connections
    sites = [
        f"{found.site.value}{_place(audit, found)} {found.text()}"
        for found in audit.findings
        if found.verdict == "masked"
    ]
    return {
        "verdict": audit.verdict,
        "connections": [masked, connections],
        "sites": sites,
        "evaluation": audit.evaluation,
        "undecided": len(audit.undecided),
    }


def _place(audit: Audit, found: Any) -> str:
    layer = f" {found.layer + 1}" if audit.layers > 1 and found.layer >= 0 else ""
    return layer + " backward" * found.direction


def read_lines() -> list[Line]:
    """The lines of the data file."""
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def make_page(lines: list[Line]) -> str:
    """The page: a table for each backend."""
    parts = [HEAD]
    for backend, group in groupby(lines, lambda line: line["backend"]):
        rows = list(group)
        versions = ", ".join(f"{name} {number}" for name, number in rows[0]["versions"].items())
        parts.append(f"## {NAMES[backend]}\n\n{versions}; seed {rows[0]['seed']}.\n")
        parts.append("| layer or model | policy | vertical | masks | evaluation | errors |")
        parts.append("|---|---|---:|---|---|---:|")
        for row in rows:
            masked, connections = row["connections"]
            false = "–" if row["false"] is None else str(len(row["false"]))
            sites = "; ".join(row["sites"]) or "none"
            cells = [row["module"], row["verdict"], f"{masked} of {connections}", sites]
            parts.append(f"| {' | '.join([*cells, row['evaluation'], false])} |")
        parts.append("")
    return "\n".join(parts)


def write_page() -> None:
    lines = [
        json.loads(line)
        for backend in NAMES
        for line in (FOLDER / f"{backend}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    LINES.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    PAGE.write_text(make_page(lines), encoding="utf-8")


if __name__ == "__main__":
    command = sys.argv[1]
    write_page() if command == "page" else collect(command)
