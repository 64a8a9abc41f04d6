"""One public model in a process of its own: `python -m benchmarks.public_models.worker torch KEY`.

It prints one line of JSON.
"""

from __future__ import annotations

import datetime
import json
import sys
import warnings
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import dropout_policies as dp

from ..machine import machine, versions
from .entries import Entry, NotInstalledError

RATE, SEED = 0.5, 0


def main(framework: str, key: str) -> None:
    """Try the policy on a model, and print what came of it."""
    warnings.simplefilter("ignore")
    side = _side(framework)
    print(json.dumps(trial(side, framework, side.MODELS[key])))


def _side(framework: str) -> ModuleType:
    """The module that holds a framework's models and measures them."""
    if framework == "torch":
        from . import torch_trial as side
    else:
        from . import keras_trial as side  # type: ignore[no-redef]
    return side


def trial(side: Any, framework: str, entry: Entry) -> dict[str, Any]:
    """What `apply` does with a model: at once, and as it is to be written."""
    found: dict[str, Any] = {
        "framework": framework,
        "name": entry.name,
        "package": entry.package,
        "version": _version(entry.package),
        "write": entry.write,
        "first": entry.first,
        "note": entry.note,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "machine": machine(),
        "seed": SEED,
    }
    try:
        model, example = side.build(entry)
    except NotInstalledError as error:
        return found | {"skipped": " ".join(str(error).split())}
    found["recurrent"] = side.count_layers(model)
    found["plain"] = outcome(model, {})
    found["example"] = outcome(model, {"example": example})
    if entry.write or entry.first:
        exec(entry.first, {"model": model})
        found["written"] = outcome(model, {"example": example, **entry.write})
    last = found.get("written", found["example"])
    if last["outcome"] == "applied":
        with _apply(model, {"example": example, **entry.write}) as applied:
            masks = side.measure(model, example, applied, RATE)
            found["masks"] = [asdict(one) | _masked(applied, one.layer) for one in masks]
            found["doubled"] = doubled(model, example, applied)
    return found


def _apply(model: Any, options: dict[str, Any]) -> dp.Applied:
    options = dict(options)
    rate = options.pop("rate", RATE)
    return dp.apply(model, options.pop("policy", "zaremba"), rate, **options)


def outcome(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What one call of `apply` gives; the policy is taken off again."""
    try:
        applied = _apply(model, options)
    except dp.PolicyError as error:
        return {"outcome": _kind(str(error)), "message": str(error)}
    except Exception as error:  # a fault of ours, which the page shows
        return {"outcome": "fault", "message": f"{type(error).__name__}: {error}"}
    with applied:
        return {
            "outcome": "applied",
            "stacks": [[member.name for member in stack.members] for stack in applied.stacks],
            "layers": [stack.layers for stack in applied.stacks],
            "masked": [stack.masked for stack in applied.stacks],
            "connections": [stack.connections for stack in applied.stacks],
            "taken_over": [f"{one.name} ({one.rate})" for one in applied.taken_over]
            + [f"{one.name} ({one.native})" for one in applied.touched if one.native],
            "skipped": [f"{one.name}: {one.why}" for one in applied.skipped],
            "notes": list(applied.notes),
        }


def _kind(message: str) -> str:
    """What an error is about, in a word."""
    if "example=batch" in message and "may feed" in message:
        return "asks how layers are joined"
    if "cannot be switched off" in message:
        return "refused: dropout in code"
    if "also used where the policy does not mask" in message:
        return "refused: shared dropout"
    if "no site 'output'" in message:
        return "refused: cells have no output site"
    if "no recurrent layer" in message:
        return "no layer for a policy"
    return "refused"


def _masked(applied: dp.Applied, layer: str) -> dict[str, bool]:
    """Whether the policy masks a layer's input, and its output."""
    (member,) = [member for member in applied.touched if member.name == layer]
    here = member.placement
    return {
        "masks_input": here.masks_input(member.layers),
        "masks_output": here.masks_output(member.layers),
    }


def doubled(model: Any, example: Any, applied: dp.Applied) -> list[str]:
    """The model's own active dropouts that `wiring` still sees on a connection that is masked."""
    masked_in = {m.name for m in applied.touched if m.placement.masks_input(m.layers)}
    masked_out = {m.name for m in applied.touched if m.placement.masks_output(m.layers)}
    return [
        str(use.dropout)
        for use in dp.wiring(model, example=example).dropouts
        if {item.name for item in use.inputs_of} & masked_in
        or {item.name for item in use.outputs_of} & masked_out
    ]


def _version(package: str) -> str:
    """The installed version of a package; of a repository nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
