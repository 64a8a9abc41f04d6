"""The options that every task's command has."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import dropout_policies as dp

from .config import BACKENDS
from .launch import Backend, Launcher, one_by_one

Backends = Annotated[
    list[Backend],
    typer.Option(metavar="NAME", help=f"{', '.join(BACKENDS)}. Repeat to compare several."),
]


def policies(default: str) -> Any:
    """The option for policies, where `default` says which run when none is named."""
    return Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(dp.names())}, or names joined by +, such as zaremba+zoneout. Repeat "
            f"to compare several. [{default}]",
        ),
    ]


def finite(value: float | None) -> float | None:
    """Refuse what `min=` lets through: NaN and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number. Received: {value}")
    return value


Rate = Annotated[
    float | None,
    typer.Option(
        help="Dropout rate, from 0 to below 1. [for zaremba and naive the preset's, for the "
        "others the catalogue's]"
    ),
]
Seeds = Annotated[
    list[int],
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Seed of the initial weights and masks. Repeat for several runs.",
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Number of epochs. [the preset's]")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, results and curves.")]
SameStart = Annotated[
    bool,
    typer.Option(
        "--same-start",
        help="Give every backend the same initial weights and masks, and compare the losses of "
        "the first 200 steps. These run at a quarter of the learning rate.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoints in --out.")]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        min=0.0,
        callback=finite,
        help="Write a checkpoint after this many minutes, and after each epoch.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite,
        help="Write a checkpoint and stop after this many minutes. [never]",
    ),
]

LauncherName = StrEnum("LauncherName", {name: name for name in ("local", "ray")})  # type: ignore[misc]
Launched = Annotated[
    LauncherName,
    typer.Option(
        "--launcher",
        metavar="NAME",
        help="local: one run after the other. ray: several runs at a time, on this machine or on "
        "the cluster that RAY_ADDRESS names, whose machines share --out. If the process of a run "
        "dies, another one continues it.",
    ),
]
Cores = Annotated[int, typer.Option(min=1, help="Number of cores for each run, with Ray.")]
Gpus = Annotated[
    float,
    typer.Option(
        min=0.0,
        callback=finite,
        help="Number of GPUs for each run, or a fraction of one, with Ray.",
    ),
]

Processes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of processes that share the rows of a run's batches on this machine: "
        "torchrun's processes in torch, devices in jax.",
    ),
]


def launcher(name: LauncherName, cores: int, gpus: float, processes: int) -> Launcher:
    """The launcher that the options name.

    Raises:
        typer.BadParameter: Ray is not installed, or runs of several processes are to be on it.
    """
    if name is LauncherName.local:
        return one_by_one
    if processes > 1:
        # Ray starts a run again when its process dies, and knows nothing of torchrun's others.
        raise typer.BadParameter(
            f"Ray runs each run in one process. Received: --processes {processes} with "
            f"--launcher ray. Write --launcher local.",
            param_hint="--processes",
        )
    from .on_ray import on_ray

    try:
        return on_ray(cores, gpus)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            f"{error}. Write: pip install ray", param_hint="--launcher"
        ) from error
