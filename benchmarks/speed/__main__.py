"""`python -m benchmarks.speed`: what policies cost, in time and memory, side by side."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..command import exit_with_error
from ..errors import BenchmarkError
from ..files import FileError, read_json, reason, write_atomically
from ..locks import LAUNCHER, locked
from ..machine import versions
from ..output import new_console, print_line
from ..processes import INTERRUPTED
from ..stopping import signals_interrupt, start, stop
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
        typer.Option(metavar="NAME", help=f"{', '.join(SECTIONS)}. Repeat for several. [all]"),
    ] = None,
    short: Annotated[
        bool, typer.Option("--quick", help="Only a few small layers, in less than three minutes.")
    ] = False,
    device: Annotated[
        Device, typer.Option(metavar="NAME", help="The device for PyTorch: cpu or cuda.")
    ] = Device.cpu,
    out: Annotated[Path, typer.Option(help="Folder for results and pictures.")] = Path(
        "runs/speed"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip jobs with a result from this commit in --out.")
    ] = False,
) -> None:
    """Compare policies with the stock layers of PyTorch and Keras, in time and memory.

    Each job runs in a process of its own, one after the other. In it, the layers take turns, and
    a ratio is the median over the rounds. Nothing else should run on the machine meanwhile.

    Example: `python -m benchmarks.speed --section torch`
    """
    chosen = [
        job
        for job in (quick if short else every)(device.value)
        if section is None or job.section in section
    ]
    try:
        with locked(out, LAUNCHER), signals_interrupt():
            _measure(chosen, out, resume)
    except BenchmarkError as error:
        raise exit_with_error(error) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _measure(jobs: Sequence[Job], out: Path, resume: bool) -> None:
    """Run the jobs, and show what they found."""
    console = new_console()
    results: list[Result] = []
    started = time.monotonic()
    for number, job in enumerate(jobs, 1):
        place = out / job.name
        if not (resume and _is_there(place)):
            print_line(console, f"[{number}/{len(jobs)}] {job.name}")
            if not _run(job, place):
                _show_log(console, job, place)
                raise typer.Exit(1)
        results.append(read_json(place / "result.json"))
    target = out / "speed.json"
    write_atomically(target, "[\n" + ",\n".join(json.dumps(each) for each in results) + "\n]\n")
    console.print(aims_table(aims(results)))
    minutes = (time.monotonic() - started) / 60
    print_line(console, f"{minutes:.1f} minutes")
    print_line(console, f"results:  {target}")
    for picture in pictures(results, out):
        print_line(console, f"picture:  {picture}")


def _show_log(console: Console, job: Job, place: Path) -> None:
    log = (place / "log.txt").read_text(encoding="utf-8", errors="replace")
    console.print(f"{job.name} failed:\n{log[-2000:]}", style="red", markup=False)


def _is_there(folder: Path) -> bool:
    """Whether a job has a result, of the versions that there are now."""
    path = folder / "result.json"
    return path.exists() and read_json(path)["versions"] == versions()


def _run(job: Job, folder: Path) -> bool:
    """Run a job to its end; whether it left a result."""
    write_atomically(folder / "job.json", json.dumps(job.to_dict()))
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if job.section.startswith("keras"):
        environment["KERAS_BACKEND"] = job.backend
    if not job.compiled:
        environment["DROPOUT_POLICIES_COMPILE"] = "0"
    if job.keeps_memory:
        environment |= KEEPING
    command = [sys.executable, "-m", "benchmarks.speed.worker", str(folder)]
    try:
        log = (folder / "log.txt").open("w", encoding="utf-8")
    except OSError as error:
        raise FileError(f"{folder} cannot be written to: {reason(error)}.") from None
    with log:
        worker = start(command, env=environment, stdout=log, stderr=log)
        try:
            worker.wait()
        finally:
            stop(worker)
            worker.wait()
    return result.exists()


if __name__ == "__main__":
    app()
