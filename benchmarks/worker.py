"""One run in a process of its own, or in several: a process can hold one Keras backend.

Called as `python -m benchmarks.worker FOLDER` with `FOLDER/job.json` written by the command; with
`--until-input-ends` beside it, the run stops at a checkpoint when the command ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from dropout_policies import PolicyError

from . import processes, task
from .errors import BenchmarkError
from .job import Job
from .locks import WORKER, locked
from .output import new_console, print_error, print_line
from .processes import INTERRUPTED
from .stopping import UNTIL_INPUT_ENDS, on_signals, when_input_ends
from .task import Task
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


def main(folder: Path, until_input_ends: bool = False) -> int:
    """Train one run to its end.

    Args:
        folder: the run's, with its `job.json`.
        until_input_ends: whether to stop at a checkpoint when the standard input ends.

    Returns:
        0 if the run is done, 130 if it was stopped, 1 on an error, which is printed.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    try:
        job = Job.read(folder)
        config = job.config
        if processes.launches_processes(config, job.processes):
            watch = [UNTIL_INPUT_ENDS] if until_input_ends else []
            return processes.torchrun(job.processes, "benchmarks.worker", str(folder), *watch)
        # Before all else: a process that fails has torchrun stop the others, and one is to say why.
        on_signals(stop)
        if until_input_ends:
            when_input_ends(stop)
        with processes.process_group(config, job.processes), _locked(folder):
            console = new_console(quiet=not processes.is_main_process())
            made = task.make(config, job.data)
            run = Run(made, folder)
            if job.resume and run.checkpoint.exists():
                run.resume()
            console.print(f"[bold]{config.name}[/bold]", highlight=False)
            display = Display(made, console)
            with display.bar:
                done = run.train(
                    Hooks(display.batch, display.epoch, lambda: stopped),
                    60.0 * job.checkpoint_minutes,
                )
    except (BenchmarkError, PolicyError, ArithmeticError) as error:
        if processes.is_main_process():
            print_error(error)
        return 1
    if not done:
        stopped_at = f"epoch {run.progress.epoch + 1}, batch {run.progress.batch}"
        print_line(
            console,
            f"{config.name}: stopped in {stopped_at}. To continue, run the same command with "
            "--resume.",
        )
        return INTERRUPTED
    return 0


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock in the process that writes; in the others, know that it does."""
    with ExitStack() as stack:
        with processes.fail_together():
            if processes.is_main_process():
                stack.enter_context(locked(folder, WORKER))
        yield


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), UNTIL_INPUT_ENDS in sys.argv[2:]))
