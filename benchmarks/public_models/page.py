"""docs/public-models.md, from the results alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Result = dict[str, Any]

HEAD = """# Public models

This page shows what `apply` does with models that others have written, and what to write for each
of them. Each model is built from its published package, small and with random weights. It then gets
the policy `zaremba` with the rate 0.5. `make public-models` writes the results to
`benchmarks/results/public-models.jsonl` and to this page.

The columns are:

- *Without an example*, *with an example*: the outcome of `dp.apply(model, "zaremba", 0.5)`, and of
  the same call with `example=`, an input of the model.
- *Stacks*: the layers of each stack, and how many of its vertical connections are masked.
- *Dropout taken over*: the model's own dropout that the policy replaces.
- *Masks*: how many masks were measured on a connection that the policy masks; of all these
  connections, the one with the most. It should be 1. A mask before a tensor sets some of its values
  to zero, and a mask after it sets some of its gradients to zero. So the share of values and
  gradients that are not zero, in training relative to evaluation, tells how many masks there are.

The outcomes are:

- *applied*: the policy is on the model.
- *asks how layers are joined*: `apply` cannot see how the layers are connected, and asks for
  `example=` or `stacks=`.
- *refused: cells have no output site*: the model calls cells step by step, and a policy cannot mask
  the output of a cell.
- *refused: dropout in code*: the model calls dropout as a function on a masked connection, and
  `apply` cannot switch that off.
- *refused: shared dropout*: the model uses one dropout layer on a masked connection and elsewhere
  too.
- *no layer for a policy*: the model has no recurrent layer that `apply` supports.
- *see below*: a call that works is below the table. The other columns describe this call.
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
        yield "For models that refuse the call above, these calls work.\n"
        yield "\n\n".join(map(_written, to_write))
    if skipped:
        names = [f"{r['name']} ({r['package']}): {r['skipped']}" for r in skipped]
        yield "Not tried:\n\n" + "\n".join(f"- {name}" for name in names)


def _counts(ran: Sequence[Result]) -> str:
    def applied(call: str) -> int:
        return sum(result[call]["outcome"] == "applied" for result in ran)

    measured = [most for result in ran if (most := most_masks(result)) is not None]
    dates = sorted({result["date"] for result in ran})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    versions = ran[-1]["versions"]
    with_what = ", ".join(f"{n} {versions[n]}" for n in ("torch", "keras") if n in versions)
    return (
        f"{len(ran)} models were tried on {when} with {with_what}. The call above works for "
        f"{applied('plain')} of them without an example, and for {applied('example')} with one. "
        f"Masks were measured in {len(measured)} models: at most {max(measured, default=0.0):.1f} "
        "on a connection."
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
