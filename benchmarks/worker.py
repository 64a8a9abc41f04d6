"""One run in a process of its own, or in several: a process can hold one Keras backend.

Called as `python -m benchmarks.worker FOLDER` with `FOLDER/job.json` written by the command.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from . import processes, task
from .checkpoint import CheckpointError
from .config import RunConfig
from .processes import INTERRUPTED, ProcessesError
from .task import DataError, Task
from .training import Hooks, Progress, Run


class Display:
    """What a person sees of a run: a live bar on a terminal, a line per epoch elsewhere."""

    def __init__(self, trained: Task, console: Console) -> None:
        self.trained, self.console = trained, console
        self.epochs = trained.config.epochs
        self.bar = Bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[headline]}"),
            TextColumn("{task.fields[speed]:7,.0f} " + f"{trained.unit}/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=60,
        )
        self.task = self.bar.add_task(
            "run", total=None, epoch=1, epochs=self.epochs, headline="", speed=0.0
        )

    def batch(self, progress: Progress) -> None:
        steps = self.trained.steps
        seen = self.trained.size() * progress.batch / steps
        self.bar.update(
            self.task,
            total=steps * self.epochs,
            completed=progress.epoch * steps + progress.batch,
            epoch=progress.epoch + 1,
            headline=self.trained.headline(progress.nats / progress.batch),
            speed=seen / progress.epoch_seconds,
        )

    def epoch(self, progress: Progress) -> None:
        last = progress.epochs[-1]
        shown = {k: v for k, v in last.items() if k not in ("learning_rate", "seconds")}
        unit = self.trained.unit
        speed = shown.pop(f"{unit}_per_second")
        figures = "  ".join(f"{_words(name)} {value:8.2f}" for name, value in shown.items())
        self.console.print(
            f"  epoch {progress.epoch:2d}/{self.epochs}  {figures}  {speed:7,.0f} {unit}/s  "
            f"{last['seconds']:5.1f} s",
            highlight=False,
            soft_wrap=True,
        )
        numbers = {k: v for k, v in progress.final.items() if isinstance(v, float)}
        for name, value in numbers.items():
            self.console.print(f"  {_words(name)} {value:.2f}", highlight=False)


def _words(name: str) -> str:
    return name.removesuffix("_perplexity").replace("_", " ")


def main(folder: Path) -> int:
    """Train one run to its end; 0 if done, 130 if interrupted, 1 on an error that is told."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    config = RunConfig.from_dict(job["config"])
    if processes.to_start(config, job["processes"]):
        return processes.torchrun(job["processes"], "benchmarks.worker", str(folder))
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    # Before all else: a process that fails has torchrun stop the others, and one is to say why.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        with processes.joined(config, job["processes"]):
            console = Console(quiet=not processes.first())
            made = task.make(config, None if job["data"] is None else Path(job["data"]))
            run = Run(made, folder)
            if job["resume"] and run.checkpoint.exists():
                run.resume()
            console.print(f"[bold]{config.name}[/bold]", highlight=False)
            display = Display(made, console)
            with display.bar:
                done = run.train(
                    Hooks(display.batch, display.epoch, lambda: stopped),
                    60.0 * job["checkpoint_minutes"],
                )
    except (DataError, CheckpointError, ProcessesError, ArithmeticError) as error:
        if processes.first():
            Console().print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        return 1
    if not done:
        stopped_at = f"epoch {run.progress.epoch + 1}, batch {run.progress.batch}"
        console.print(
            f"{config.name}: stopped in {stopped_at}; go on with the same command and --resume.",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
