"""One run in a process of its own: a process can hold one Keras backend.

Called as `python -m benchmarks.ptb.worker FOLDER` with `FOLDER/job.json` written by the command.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..checkpoint import CheckpointError
from . import corpus as corpora
from .config import RunConfig
from .corpus import CorpusError
from .engines import make
from .training import Hooks, Progress, Run

INTERRUPTED = 130


class Display:
    """What a person sees of a run: a live bar on a terminal, a line per epoch elsewhere."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.bar = Bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("perplexity {task.fields[perplexity]:8.2f}"),
            TextColumn("{task.fields[speed]:7,.0f} words/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=60,
        )
        self.task = self.bar.add_task(
            "run",
            total=None,
            epoch=1,
            epochs=config.epochs,
            perplexity=math.nan,
            speed=0.0,
        )

    def window(self, progress: Progress, windows: int, rate: float) -> None:  # noqa: ARG002
        recipe = self.config.recipe
        words = progress.window * recipe.batch * recipe.window
        self.bar.update(
            self.task,
            total=windows * self.config.epochs,
            completed=progress.epoch * windows + progress.window,
            epoch=progress.epoch + 1,
            perplexity=math.exp(min(progress.nats / progress.window, 50.0)),
            speed=words / progress.epoch_seconds,
        )

    def epoch(self, progress: Progress) -> None:
        last = progress.epochs[-1]
        test = progress.test_perplexity
        self.console.print(
            f"  epoch {progress.epoch:2d}/{self.config.epochs}  "
            f"train {last['train_perplexity']:8.2f}  valid {last['valid_perplexity']:8.2f}  "
            f"{last['words_per_second']:7,.0f} words/s  {last['seconds']:5.1f} s"
            + ("" if test is None else f"\n  test {test:.2f}"),
            highlight=False,
        )


def main(folder: Path) -> int:
    """Train one run to its end; 0 if done, 130 if interrupted, 1 on an error that is told."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    config = RunConfig.from_dict(job["config"])
    console = Console()
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    try:
        corpus = corpora.load(None if job["data"] is None else Path(job["data"]))
        if config.recipe.part is not None:
            corpus = corpora.part(corpus, *config.recipe.part)
        run = Run(config, corpus, make(config, len(corpus.vocabulary)), folder)
        if job["resume"] and run.checkpoint.exists():
            run.resume()
        console.print(f"[bold]{config.name}[/bold]", highlight=False)
        display = Display(config, console)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        with display.bar:
            done = run.train(
                Hooks(display.window, display.epoch, lambda: stopped),
                60.0 * job["checkpoint_minutes"],
            )
    except (CorpusError, CheckpointError, ArithmeticError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        return 1
    if not done:
        stopped_at = f"epoch {run.progress.epoch + 1}, window {run.progress.window}"
        console.print(
            f"{config.name}: stopped in {stopped_at}; go on with the same command and --resume.",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
