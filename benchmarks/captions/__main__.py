"""`python -m benchmarks.captions`: train a model that captions images, with and without dropout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..command import Benchmark, exit_with_error, new_app, training
from ..ensemble import averaging
from ..errors import BenchmarkError
from ..files import write_atomically
from ..machine import machine, versions
from ..output import new_console, print_line
from ..sentences.average import average
from ..sentences.summary import curves
from .baselines import retrieved
from .flickr import load
from .presets import Preset
from .summary import REPORT
from .summary import baselines as baselines_table
from .task import scores

HELP = """Train the captioning model of *Recurrent Neural Network Regularization* on Flickr8k.

Example: `python -m benchmarks.captions --policy none --policy zaremba --seed 1 --seed 2`
"""
DATA = "Folder with Flickr8k. [the variable FLICKR8K_DIR]"


def read(data: Path | None, recipe: Preset) -> str:  # noqa: ARG001 # all recipes fit Flickr8k
    """Read the captions; what they are."""
    found = load(data)
    return f"Flickr8k, {len(found.train.names):,} images for training"


app = new_app()
app.callback(invoke_without_command=True)(
    training(
        Benchmark(
            task="captions",
            help=HELP,
            preset="Recipe: {}.",
            data=DATA,
            read=read,
            summary=REPORT.summary,
            curves=curves,
            beside=("none",),
        )
    )
)
app.command("ensemble")(averaging("captions", average, REPORT.averages))


@app.command()
def baselines(
    data: Annotated[Path | None, typer.Option(help=DATA)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random captions.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Write the line of results to this file.")
    ] = None,
) -> None:
    """Score captions that are taken from training images which look alike."""
    console = new_console()
    try:
        flickr = load(data)
    except BenchmarkError as error:
        raise exit_with_error(error) from None
    said = retrieved(flickr, seed)
    found = {
        "baselines": {name: scores(captions, flickr.test) for name, captions in said.items()},
        "task": "captions",
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
    }
    console.print(baselines_table(found))
    if out is not None:
        try:
            write_atomically(out, json.dumps(found) + "\n")
        except BenchmarkError as error:
            raise exit_with_error(error) from None
        print_line(console, f"results: {out}")


if __name__ == "__main__":
    app()
