"""docs/public-models.md, from the results alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Result = dict[str, Any]

HEAD = """# Public models

What `apply` does with models that others have written, and what to write for each. Every cell of
this page comes from `benchmarks/results/public-models.jsonl`, which `make public-models` writes.
Each model is built from its published package, small and with random weights, and gets `zaremba`
with the rate 0.5.

- *Without an example*, *with an example*: what `dp.apply(model, "zaremba", 0.5)` gives, and the
  same with `example=`.
- *Stacks*: the layers of each stack, and how many of its vertical connections are masked.
- *Masks*: the most masks that were measured on one of the connections that the policy masks. A
  mask before a tensor leaves zeros in its values, and one after it leaves zeros in its gradients.
  The shares that are not zero, in training over evaluation, tell how many masks there are.
"""

FRAMEWORKS = {"torch": "PyTorch", "keras": "Keras"}

TABLE = (
    "| model | without an example | with an example | stacks | dropout taken over | masks |\n"
    "|---|---|---|---|---|---:|\n"
)


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [HEAD]
    for framework, title in FRAMEWORKS.items():
        mine = [r for r in results if r["framework"] == framework]
        if mine:
            parts.extend(_section(title, mine))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def most_masks(result: Result) -> float | None:
    """The most masks that were measured on a connection that the policy masks; None if none was."""
    found = [
        one[f"on_{end}"]
        for one in result.get("masks", [])
        for end in ("input", "output")
        if one[f"on_{end}"] is not None and one[f"masks_{end}"]
    ]
    return max(found, default=None)


def _section(title: str, results: Sequence[Result]) -> Iterator[str]:
    ran = [result for result in results if "skipped" not in result]
    skipped = [result for result in results if "skipped" in result]
    yield f"## {title}"
    if ran:
        yield _counts(ran)
        yield TABLE + "\n".join(map(_row, ran))
    to_write = [result for result in ran if "written" in result]
    if to_write:
        yield f"### What to write, {title}"
        yield "Where the call above does not apply at once, this one does.\n"
        yield "\n\n".join(map(_written, to_write))
    if skipped:
        names = [f"{r['name']} ({r['package']}): {r['skipped']}" for r in skipped]
        yield "Not tried here:\n\n" + "\n".join(f"- {name}" for name in names)


def _counts(ran: Sequence[Result]) -> str:
    def applied(call: str) -> int:
        return sum(result[call]["outcome"] == "applied" for result in ran)

    measured = [most for result in ran if (most := most_masks(result)) is not None]
    dates = sorted({result["date"] for result in ran})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    versions = ran[-1]["versions"]
    with_what = ", ".join(f"{n} {versions[n]}" for n in ("torch", "keras") if n in versions)
    return (
        f"{len(ran)} models, tried on {when} with {with_what}. {applied('plain')} apply at once "
        f"without an example, {applied('example')} with one. On no connection of {len(measured)} "
        f"models were more than {max(measured, default=0.0):.1f} masks measured."
    )


def _row(result: Result) -> str:
    last: Result = result["written" if "written" in result else "example"]
    most = most_masks(result)
    cells = [
        f"{result['name']} ({result['package']} {result['version']}".rstrip() + ")",
        _outcome(result["plain"]),
        _outcome(result["example"]) + (", see below" if "written" in result else ""),
        _stacks(last),
        ", ".join(f"`{one}`" for one in last.get("taken_over", [])),
        "" if most is None else f"{most:.1f}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _outcome(one: Result) -> str:
    return str(one["outcome"])


def _stacks(one: Result) -> str:
    if one["outcome"] != "applied":
        return ""
    return "; ".join(
        f"{' → '.join(f'`{name}`' for name in names)}: {masked} of {count}"
        for names, masked, count in zip(
            one["stacks"], one["masked"], one["connections"], strict=True
        )
    )


def _written(result: Result) -> str:
    options = dict(result["write"])
    policy, rate = options.pop("policy", "zaremba"), options.pop("rate", 0.5)
    given = [
        f'"{policy}"',
        json.dumps(rate),
        *(f"{name}={json.dumps(value)}" for name, value in options.items()),
    ]
    first = f"{result['first']}\n" if result["first"] else ""
    note = f" {result['note']}" if result["note"] else ""
    call = ", ".join(["model", *given, "example=batch"])
    code = f"```py\n{first}dp.apply({call})\n```"
    return f"**{result['name']}** ({result['package']}).{note}\n\n{code}"
