"""`python -m tests.support.conformance_page`: keep the suite's counts as data and as a page."""

from __future__ import annotations

import json
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from .conformance import FOLDER, POLICIES

Line = dict[str, Any]

ROOT = Path(__file__).parents[2]
COUNTS = ROOT / "tests" / "conformance.jsonl"
PAGE = ROOT / "docs" / "conformance.md"
PACKAGES = {"torch": ["torch"], "keras": ["keras", "tensorflow-cpu", "jax", "torch"]}

NAMES = {
    "keras-jax": "Keras on JAX",
    "keras-tensorflow": "Keras on TensorFlow",
    "keras-torch": "Keras on torch",
    "torch": "PyTorch",
}

HEAD = """# Every policy on every layer

Each figure is a number of random cases (geometry, weights, rates, initial state, padding, number of
the call) in which a layer's output, last states and gradients in *training* mode, and its output
and states in evaluation, were those of the NumPy oracle under the same keyed masks. The page is
written by `make test-all` from what the suite itself counted, and lies there as data in
`tests/conformance.jsonl`.

`mixed` are random rules at random sites: every site, kind, lifetime, scale, gates tied and untied,
rates by layer and by call. A dash stands where nothing of a policy can fall on a layer: there is no
cell state in a GRU or RNN for `rnndrop`, no candidate in an RNN for `semeniuta`, no site inside a
cell of one's own, and a cell that is called step by step cannot hold a mask for longer. (Inside
`dp.sequence` it can, and is held to the layers there.) `zoneout` zones the hidden state alone where
there is no cell state, and `awd` leaves a cell of one's own its weights.

Layers with convolutions have a random image, kernel, stride, dilation, padding and order of axes;
their policies have rules of both shapes, for elements and for whole channels. The oracle's LSTM has
the kernels as matrices on all positions. On JAX no sample is shorter than another, for Keras's own
loop there refuses a padding mask of images; on TensorFlow the channels come last.
"""


def collect() -> list[Line]:
    """What the last run of the suite left, sorted, each with the versions that it ran on."""
    lines = [json.loads(file.read_text(encoding="utf-8")) for file in FOLDER.glob("*.json")]
    for line in lines:
        packages = PACKAGES["torch" if line["backend"] == "torch" else "keras"]
        line["versions"] = {package: version(package) for package in packages}
    order = {policy: place for place, policy in enumerate(POLICIES)}
    return sorted(lines, key=lambda line: (line["backend"], line["layer"], order[line["policy"]]))


def read() -> list[Line]:
    """What is kept."""
    return [json.loads(line) for line in COUNTS.read_text(encoding="utf-8").splitlines()]


def page(lines: list[Line]) -> str:
    """The page of the counts: a table for each backend, and the gaps."""
    parts = [HEAD]
    for backend, group in groupby(lines, key=lambda line: line["backend"]):
        rows = list(group)
        versions = ", ".join(f"{name} {number}" for name, number in rows[0]["versions"].items())
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        found = {(row["layer"], row["policy"]): row for row in rows}
        total = sum(row["cases"] for row in rows if not row["gap"])
        name = NAMES[backend]
        parts += [f"## {name}\n", f"{total:,} cases, with {versions}.\n"]
        parts.append("| layer | " + " | ".join(f"`{policy}`" for policy in POLICIES) + " |")
        parts.append("|---" * (1 + len(POLICIES)) + "|")
        parts += [
            f"| {layer} | " + " | ".join(_cell(found.get((layer, p))) for p in POLICIES) + " |"
            for layer in layers
        ]
        parts.append("")
    gaps = [
        f"- {line['layer']} ({line['backend']}) under `{line['policy']}`: {line['gap']}"
        for line in lines
        if line["gap"]
    ]
    parts += ["## Known gaps\n", *(gaps or ["None."])]
    return "\n".join(parts) + "\n"


def _cell(line: Line | None) -> str:
    if line is None:
        return "–"
    return "gap" if line["gap"] else str(line["cases"])


if __name__ == "__main__":
    counted = collect()
    COUNTS.write_text("".join(json.dumps(line) + "\n" for line in counted), encoding="utf-8")
    PAGE.write_text(page(counted), encoding="utf-8")
    print(f"wrote {COUNTS} and {PAGE}")
