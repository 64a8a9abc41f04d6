"""The training loop: epochs, validation, checkpoints, resumption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import checkpoint, processes
from .checkpoint import CheckpointError
from .machine import machine, versions
from .recipe import learning_rate, over
from .task import Task

FIRST_STEPS = 200
"""How many steps' losses are kept for comparing backends."""

WARM_UP = 0.25
"""What the learning rate of these steps is multiplied by in runs with a common start. At the
recipe's full rate the first steps are chaotic: the last bit of one bias soon shows in the loss, and
no two backends, or machines, can be compared."""


@dataclass
class Progress:
    """How far a run has come; all of it is saved, so that a resumed run is the same run."""

    epoch: int = 0
    batch: int = 0
    nats: float = 0.0
    """Sum over this epoch's batches of their mean losses."""
    seconds: float = 0.0
    """Wall time of this and all earlier sittings."""
    epoch_seconds: float = 0.0
    first_losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside: after every batch, and after every epoch."""

    batch: Callable[[Progress], None]
    epoch: Callable[[Progress], None]
    stop: Callable[[], bool]
    """Asked after every batch; True ends the run at a checkpoint."""


class Run:
    """One run in its folder: `checkpoint.safetensors` and `result.json`."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.config = task.config
        self.recipe = self.config.recipe
        self.progress = Progress()
        # Asked now: the checkout may have moved on when the run ends.
        self.versions = versions()
        self.machine = machine() | {"processes": processes.size()}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def resume(self) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            CheckpointError: there is none, it cannot be read, or it is of another run.
        """
        arrays, record = checkpoint.load(self.checkpoint)
        mine, its = self._identity(), record.get("identity", {})
        differing = [key for key in mine if its.get(key) != mine[key]]
        if differing:
            shown = "; ".join(f"{k}: {its.get(k)!r} there, {mine[k]!r} here" for k in differing)
            raise CheckpointError(f"{self.checkpoint} is of another run ({shown}).")
        expected = {name: array.shape for name, array in self.task.arrays().items()}
        if {name: array.shape for name, array in arrays.items()} != expected:
            raise CheckpointError(f"{self.checkpoint} holds the weights of another model.")
        self.task.restore(arrays, int(record["calls"]))
        self.progress = Progress(**record["progress"])

    def train(self, hooks: Hooks, checkpoint_seconds: float) -> bool:
        """Train to the last epoch and test; False if it was stopped before, at a checkpoint."""
        progress = self.progress
        clock = saved = time.monotonic()
        while not self.over():
            rate = learning_rate(self.recipe, progress.epochs)
            if progress.batch == 0:
                self.task.begin()
                progress.nats = progress.epoch_seconds = 0.0
            for batch in self.task.batches(progress.epoch, progress.batch):
                warming = self.config.same_start and len(progress.first_losses) < FIRST_STEPS
                loss = self.task.train(batch, WARM_UP * rate if warming else rate)
                if not math.isfinite(loss):
                    raise ArithmeticError(
                        f"{self.config.name}: the loss is {loss} in epoch {progress.epoch + 1}, "
                        f"batch {progress.batch + 1}."
                    )
                if len(progress.first_losses) < FIRST_STEPS:
                    progress.first_losses.append(loss)
                progress.nats += loss
                progress.batch += 1
                now = time.monotonic()
                progress.seconds += now - clock
                progress.epoch_seconds += now - clock
                clock = now
                hooks.batch(progress)
                stop, due = processes.agreed(hooks.stop(), now - saved > checkpoint_seconds)
                if stop:
                    self.save()
                    return False
                if due:
                    self.save()
                    saved = now
            progress.epochs.append(
                {
                    "learning_rate": rate,
                    **self.task.after_epoch(progress.nats / progress.batch),
                    "seconds": progress.epoch_seconds,
                    f"{self.task.unit}_per_second": self.task.size() / progress.epoch_seconds,
                }
            )
            progress.epoch, progress.batch = progress.epoch + 1, 0
            if self.over():
                progress.final = self.task.at_end()
            now = time.monotonic()
            progress.seconds += now - clock
            clock = now
            self.save()
            hooks.epoch(progress)
        return True

    def over(self) -> bool:
        """Whether its last epoch is done."""
        return over(self.recipe, self.config.epochs, self.progress.epochs)

    def save(self) -> None:
        """Write the checkpoint and the result so far, each atomically."""
        record = {
            "identity": self._identity(),
            "calls": self.task.calls(),
            "progress": asdict(self.progress),
        }
        arrays = self.task.arrays()  # of all processes: each takes part
        if not processes.first():
            return
        checkpoint.save(self.checkpoint, arrays, record)
        line = json.dumps(self.result()) + "\n"
        checkpoint.write_atomically(self.folder / "result.json", line)

    def result(self) -> dict[str, Any]:
        """The run's line of results."""
        progress = self.progress
        return {
            "run": self.config.name,
            "config": self.config.to_dict(),
            **self.task.record(),
            "finished": self.over(),
            "epochs": progress.epochs,
            **progress.final,
            "wall_seconds": progress.seconds,
            "first_losses": progress.first_losses,
            "versions": self.versions,
            "machine": self.machine,
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be this run's; it may train for longer."""
        config = {k: v for k, v in self.config.to_dict().items() if k != "epochs"}
        return config | self.task.record() | {"recipe": repr(self.recipe)}
