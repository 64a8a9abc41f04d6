"""`python -m benchmarks.public_models`: what `apply` does with public models."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import BenchmarkError
from ..files import write_atomically
from ..output import new_console, print_error, print_line
from . import page


class Framework(StrEnum):
    """What a model is written in."""

    torch = "torch"
    keras = "keras"


RESULTS = Path(__file__).parents[1] / "results" / "public-models.jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "public-models.md"

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def public_models(
    framework: Annotated[
        Framework, typer.Option(metavar="NAME", help="torch or keras.")
    ] = Framework.torch,
    model: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A model. Repeat for several. [all]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file for the results.")] = RESULTS,
    written: Annotated[Path, typer.Option("--page", help="The page to write.")] = PAGE,
) -> None:
    """Put `zaremba` on public models, with an example and without, and count the masks.

    Each model is built in a process of its own, small and with random weights. A model is skipped
    if its package is not installed; its earlier result then stays in the file.

    Example: `python -m benchmarks.public_models --model openunmix`
    """
    console = new_console()
    lines = read(out)
    for key in model or _keys(framework.value):
        try:
            result = _trial(framework.value, key)
        except BenchmarkError as error:
            print_error(error)
            continue
        print_line(console, f"{key}: {_summary(result)}")
        _keep(lines, result)
        write_atomically(out, "".join(json.dumps(line) + "\n" for line in lines.values()))
    write_atomically(written, page.page(list(lines.values())))
    _say_where(console, out, written)


def _keys(framework: str) -> list[str]:
    """The keys of a framework's models."""
    if framework == "torch":
        from .torch_models import MODELS
    else:
        from .keras_models import MODELS
    return list(MODELS)


def _trial(framework: str, key: str) -> dict[str, Any]:
    """The result of one model, from a process of its own."""
    command = [sys.executable, "-m", f"{__package__}.worker", framework, key]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = done.stdout.strip().rpartition("\n")[2]
    try:
        result: dict[str, Any] = json.loads(line)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        raise BenchmarkError(f"{key} gave no result: {last}") from None
    return result | {"key": key}


def _keep(lines: dict[str, dict[str, Any]], result: dict[str, Any]) -> None:
    """Put a result in its place; one that was skipped does not replace one that ran."""
    name = f"{result['framework']}.{result['key']}"
    if "skipped" not in result or "skipped" in lines.get(name, {"skipped": ""}):
        lines[name] = result


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The results in a file, by framework and key."""
    if not path.exists():
        return {}
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {f"{line['framework']}.{line['key']}": line for line in found}


def _summary(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"skipped: {result['skipped']}"
    parts = [result[name]["outcome"] for name in ("plain", "example", "written") if name in result]
    most = page.most_masks(result)
    return "; ".join(parts) + (f"; at most {most:.2f} masks" if most is not None else "")


def _say_where(console: Console, *paths: Path) -> None:
    print_line(console, f"wrote {', '.join(map(str, paths))}")


if __name__ == "__main__":
    app()
