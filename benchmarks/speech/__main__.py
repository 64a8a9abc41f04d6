"""`python -m benchmarks.speech`: train an acoustic model with and without dropout."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import dropout_policies as dp

from ..launch import Backend, configure, launch
from ..options import Backends, CheckpointMinutes, Epochs, Out, Policies, Rate, Resume, Seeds
from ..task import DataError
from .frames import load
from .presets import PRESETS
from .summary import curves, summary

PresetName = StrEnum("PresetName", {name: name for name in PRESETS})  # type: ignore[misc]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def speech(
    backend: Backends = [Backend.torch],  # noqa: B006
    preset: Annotated[
        PresetName, typer.Option(metavar="NAME", help=f"Recipe: {', '.join(PRESETS)}.")
    ] = PresetName.demo,
    policy: Policies = None,
    rate: Rate = None,
    seed: Seeds = [1],  # noqa: B006
    epochs: Epochs = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with AN4. [the variable AN4_DIR]")
    ] = None,
    out: Out = Path("runs/speech"),
    resume: Resume = False,
    checkpoint_minutes: CheckpointMinutes = 5.0,
) -> None:
    """Train the acoustic model of *Recurrent Neural Network Regularization* on AN4.

    Example: `python -m benchmarks.speech --policy none --policy zaremba --seed 1 --seed 2`
    """
    console = Console()
    try:
        policies = policy or ["none", PRESETS[preset.value].policy]
        backends = [one.value for one in backend]
        configs = configure("speech", preset.value, backends, policies, rate, seed, epochs)
        load(data)
    except (dp.PolicyError, DataError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    code, results = launch(configs, data, out, resume, checkpoint_minutes)
    if results:
        picture = curves(results, out / "curves.png")
        console.print(summary(results))
        console.print(f"results: {out / 'results.jsonl'}\ncurves:  {picture}", highlight=False)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
