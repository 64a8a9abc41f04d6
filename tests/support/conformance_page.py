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

The tests compare each layer under each policy with the NumPy reference implementation, on random
cases. A case has random sizes, weights, rates, initial state, padding and number of the call. Layer
and reference draw the same keyed masks. Outputs, last states and gradients in *training* mode must
be the same, and outputs and states in evaluation too.

Each figure is the number of cases in which they were the same. `make test-all` counts them and
writes them to `tests/conformance.jsonl` and to this page.

- `mixed` has random rules at random sites: every site, kind, lifetime and scale, gates with one
  mask or with separate masks, and rates that differ by layer and by call.
- `zoneout` applies to the hidden state only where a layer has no cell state.
- `awd` does not drop the weights of a custom cell.
- A dash means that the policy cannot be on the layer. A GRU or RNN has no cell state for `rnndrop`,
  and an RNN has no candidate for `semeniuta`. A custom cell has no sites inside. A cell that is
  called step by step cannot keep a mask from one step to the next. (Inside `dp.sequence` it can;
  other tests compare it with the layers there.)

Convolutional layers have a random image size, kernel, stride, dilation, padding and order of axes.
Their policies have rules for single elements and rules for whole channels. In the reference LSTM,
the kernels are matrices over all positions. Two restrictions come from Keras: on JAX, all samples
are equally long, because Keras's own loop there refuses a padding mask for images; on TensorFlow,
the channels come last.
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
