"""`python -m benchmarks.speed`: what policies cost, in time and memory, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..checkpoint import write_atomically
from ..machine import versions
from .aims import Result, aims
from .jobs import KEEPING, SECTIONS, Job, every, quick
from .page import aims_table
from .pictures import pictures

Section = StrEnum("Section", {name: name for name in SECTIONS})  # type: ignore[misc]
Device = StrEnum("Device", {name: name for name in ("cpu", "cuda")})  # type: ignore[misc]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def speed(
    section: Annotated[
        list[Section] | None,
        typer.Option(metavar="NAME", help=f"{', '.join(SECTIONS)}; several times. [all]"),
    ] = None,
    short: Annotated[
        bool, typer.Option("--quick", help="A few small layers, in less than three minutes.")
    ] = False,
    device: Annotated[
        Device, typer.Option(metavar="NAME", help="cpu or cuda, for what PyTorch measures.")
    ] = Device.cpu,
    out: Annotated[Path, typer.Option(help="Folder for results and pictures.")] = Path(
        "runs/speed"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what --out has from this commit.")
    ] = False,
) -> None:
    """Time policies beside the stock layers of PyTorch and Keras, and measure their memory.

    Each job is a process of its own, one after the other; in it, contestants take turns, and a
    ratio is the median over the rounds. Nothing else should run on the machine meanwhile.

    Example: `python -m benchmarks.speed --section torch`
    """
    console = Console()
    chosen = [
        job
        for job in (quick if short else every)(device.value)
        if section is None or job.section in section
    ]
    results: list[Result] = []
    started = time.monotonic()
    for number, job in enumerate(chosen, 1):
        place = out / job.name
        if not (resume and _is_there(place)):
            console.print(f"[{number}/{len(chosen)}] {job.name}", highlight=False, markup=False)
            if not _run(job, place):
                log = (place / "log.txt").read_text(encoding="utf-8")
                console.print(f"{job.name} failed:\n{log[-2000:]}", style="red", markup=False)
                raise typer.Exit(1)
        results.append(json.loads((place / "result.json").read_text(encoding="utf-8")))
    target = out / "speed.json"
    write_atomically(target, "[\n" + ",\n".join(json.dumps(each) for each in results) + "\n]\n")
    console.print(aims_table(aims(results)))
    minutes = (time.monotonic() - started) / 60
    console.print(f"{minutes:.1f} minutes\nresults:  {target}", highlight=False)
    for picture in pictures(results, out):
        console.print(f"picture:  {picture}", highlight=False)


def _is_there(folder: Path) -> bool:
    """Whether a job has a result, of the versions that there are now."""
    path = folder / "result.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["versions"] == versions()


def _run(job: Job, folder: Path) -> bool:
    """Run a job to its end; whether it left a result."""
    write_atomically(folder / "job.json", json.dumps(job.to_dict()))
    (folder / "result.json").unlink(missing_ok=True)
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if job.section.startswith("keras"):
        environment["KERAS_BACKEND"] = job.backend
    if not job.compiled:
        environment["DROPOUT_POLICIES_COMPILE"] = "0"
    if job.keeps_memory:
        environment |= KEEPING
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "benchmarks.speed.worker", str(folder)]
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
    return (folder / "result.json").exists()


if __name__ == "__main__":
    app()
