"""`python -m tests.support.versions_page`: what `make test-versions` found, as data and page."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.machine import machine, versions

Line = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "versions"
LINES = ROOT / "tests" / "versions.jsonl"
PAGE = ROOT / "docs" / "versions.md"

PACKAGES = (
    "numpy",
    "torch",
    "keras",
    "typer",
    "click",
    "rich",
    "matplotlib",
    "hypothesis",
    "pytest",
)
"""What the table shows: what the package and its extras depend on, and click, which typer needs."""

KINDS = {"lowest": "lowest", "newest": "newest", "core": "core alone"}
PARTS = {"core": "core", "torch": "PyTorch", "keras": "Keras on torch"}

HEAD = """# Tested versions

`make test-versions` builds the package and installs the wheel into a clean environment for each
column: with the lowest versions that `pyproject.toml` declares, or with the newest that pip found.
It then runs a quick part of the tests there. The table shows the versions, and how many tests
passed in each part. `core alone` has neither PyTorch nor Keras; tests that need them are skipped.

- What the declared packages depend on themselves (click, for instance) is as pip chose. A dash
  means: not installed. The newest typer does not need click.
- PyTorch is the build that pip finds for Linux, with CUDA libraries; the tests ran on the CPU.
- On 2026-12-01, pip's configuration on the machine excluded PyTorch 2.15. It was not tested.
- The column with the lowest versions, of 2026-12-01, was run in an environment used before,
  with a wheel that lacked one change: the check of `stack=` in `placement/stacks.py`. With that
  change, in a clean environment, only the core tests ran again, and passed.
- On Python 3.13 there is no environment with the lowest versions: NumPy 1.26 has no wheel for it.
- `make test` runs every test on the versions in `constraints.txt`, also on TensorFlow and JAX.

The data is in `tests/versions.jsonl`.
"""


def collect() -> list[Line]:
    """What the last runs left, and what is kept of environments that did not run."""
    kept = {(line["kind"], line["python"]): line for line in read()} if LINES.exists() else {}
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        if not all((folder / f"{part}.xml").exists() for part in PARTS):
            print(f"{folder.name} did not run all of its tests; it is left out")
            continue
        kind, _, python = folder.name.partition("-")
        listed = json.loads((folder / "packages.json").read_text(encoding="utf-8"))
        found = {entry["name"].lower(): entry["version"] for entry in listed}
        kept[kind, python] = {
            "kind": kind,
            "python": python,
            "date": datetime.date.today().isoformat(),
            "commit": versions().get("commit", ""),
            "machine": machine(),
            "versions": {name: found[name] for name in PACKAGES if name in found},
            "tests": {part: count(folder / f"{part}.xml") for part in PARTS},
        }
    order = list(KINDS)
    return sorted(
        kept.values(), key=lambda line: (order.index(line["kind"]), _number(line["python"]))
    )


def count(report: Path) -> dict[str, int]:
    """How many tests of a JUnit report passed, failed and were skipped."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, skipped, failed = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("skipped",), ("failures", "errors"))
    )
    return {"passed": total - skipped - failed, "skipped": skipped, "failed": failed}


def read() -> list[Line]:
    """What is kept."""
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def declared_lowest() -> dict[str, str]:
    """The lower bound that `pyproject.toml` declares for each dependency and extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [project["dependencies"], *project["optional-dependencies"].values()]
    return dict(line.split(">=") for lines in listed for line in lines)


def page(lines: list[Line]) -> str:
    """The page: a column for each environment."""
    titles = [f"{KINDS[line['kind']]}, Python {line['python']}" for line in lines]
    rows = [["", *titles], ["---"] * (1 + len(lines))]
    rows += [[name, *(line["versions"].get(name, "–") for line in lines)] for name in PACKAGES]
    rows += [
        [f"tests: {title}", *(_outcome(line["tests"][part]) for line in lines)]
        for part, title in PARTS.items()
    ]
    rows.append(["date", *(line["date"] for line in lines)])
    machines = sorted(
        {f"{line['machine']['cpu']}, {line['machine']['cores']} cores" for line in lines}
    )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{HEAD}\n{table}\n\nMachine: {'; '.join(machines)}; Linux.\n"


def _outcome(tests: dict[str, int]) -> str:
    text = f"{tests['passed']} passed"
    text += f", {tests['failed']} failed" if tests["failed"] else ""
    return text if tests["passed"] or tests["failed"] else "skipped"


def _number(python: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", python)]


if __name__ == "__main__":
    collected = collect()
    LINES.write_text("".join(json.dumps(line) + "\n" for line in collected), encoding="utf-8")
    PAGE.write_text(page(collected), encoding="utf-8")
    print(f"wrote {LINES.relative_to(ROOT)} and {PAGE.relative_to(ROOT)}")
