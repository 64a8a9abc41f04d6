"""The options that every task's command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import dropout_policies as dp

from .config import BACKENDS
from .launch import Backend

Backends = Annotated[
    list[Backend],
    typer.Option(metavar="NAME", help=f"{', '.join(BACKENDS)}; several times to compare."),
]


def policies(default: str) -> Any:
    """The option for policies, where `default` says which run when none is named."""
    return Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(dp.names())}, or some joined by +, as zaremba+zoneout; several times "
            f"to compare. [{default}]",
        ),
    ]


Rate = Annotated[
    float | None,
    typer.Option(
        help="Dropout rate in [0, 1). [the preset's for zaremba and naive, and the catalogue's "
        "own for the others]"
    ),
]
Seeds = Annotated[
    list[int],
    typer.Option(min=0, help="Seed of initial weights and masks; several times for several runs."),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="How many epochs. [the preset's]")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, results and curves.")]
SameStart = Annotated[
    bool,
    typer.Option(
        "--same-start",
        help="The same initial weights and masks in every backend; compares the losses of the "
        "first 200 steps, which run at a quarter of the learning rate.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in --out.")]
CheckpointMinutes = Annotated[
    float, typer.Option(min=0.0, help="A checkpoint every so many minutes, and every epoch.")
]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.0, help="Stop at a checkpoint after so many minutes. [never]"),
]
