"""The training loop: epochs, validation, checkpoints, resumption."""

from __future__ import annotations

import json
import math
import reprlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from . import checkpoint, processes
from .checkpoint import AGAIN, CheckpointError
from .files import write_atomically
from .machine import machine, versions
from .recipe import learning_rate, over
from .task import Arrays, Task

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

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """What `asdict` made of it.

        Raises:
            ValueError: a value is missing, is of another type, is negative or is not finite.
        """
        names = [each.name for each in fields(cls)]
        if type(data) is not dict or set(data) != set(names):
            raise ValueError(f"progress must have {names}. Received: {_short(data)}")
        for name in ("epoch", "batch"):
            check_count(name, data[name])
        for name in ("seconds", "epoch_seconds"):
            _check_figure(name, data[name], least=0.0)
        _check_figure("nats", data["nats"])
        if type(data["first_losses"]) is not list or type(data["epochs"]) is not list:
            raise ValueError("first_losses and epochs must be lists")
        for loss in data["first_losses"]:
            _check_figure("first_losses", loss)
        for epoch in data["epochs"]:
            if type(epoch) is not dict:
                raise ValueError(f"each of epochs must have figures. Received: {_short(epoch)}")
            for name, value in epoch.items():
                _check_figure(name, value)
        if type(data["final"]) is not dict:
            raise ValueError(f"final must have figures. Received: {_short(data['final'])}")
        for name, value in data["final"].items():
            if type(value) in (int, float):
                _check_figure(name, value)
        return cls(**data)


class Saved(NamedTuple):
    """What a checkpoint holds."""

    arrays: Arrays
    identity: dict[str, Any]
    """What the run was, as `Run` writes it."""
    calls: int
    progress: Progress

    @classmethod
    def read(cls, path: Path) -> Saved:
        """Read a checkpoint and check the types and ranges of what is in it.

        Raises:
            CheckpointError: it cannot be read, is damaged, or has a value that no run has.
        """
        arrays, record = checkpoint.load(path)
        try:
            identity = record.get("identity")
            if type(identity) is not dict:
                raise ValueError(f"identity must say what was run. Received: {_short(identity)}")
            calls = check_count("calls", record.get("calls"))
            progress = Progress.from_dict(record.get("progress"))
        except ValueError as error:
            raise CheckpointError(f"{path} has a value that no run has: {error}. {AGAIN}") from None
        return cls(arrays, identity, calls, progress)

    def restore(self, task: Task, path: Path) -> None:
        """Give a task the arrays, once all is known to fit.

        Args:
            task: of the run that was saved.
            path: where it was saved, for the error.

        Raises:
            CheckpointError: arrays or counts are not those of this task.
        """
        try:
            _check_arrays(self.arrays, task.arrays())
            self._check_counts(task)
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit this run: {error}. {AGAIN}") from None
        task.restore(self.arrays, self.calls)

    def _check_counts(self, task: Task) -> None:
        progress, steps = self.progress, task.steps
        if progress.batch > steps:
            raise ValueError(f"an epoch has {steps} batches. Received: batch={progress.batch}")
        done = progress.epoch * steps + progress.batch
        # A recurrent layer that draws no masks counts no calls.
        if self.calls != done and (self.calls or task.config.recurrent_masks):
            raise ValueError(f"{done} batches were trained on. Received: calls={self.calls}")
        if len(progress.first_losses) != min(done, FIRST_STEPS):
            raise ValueError(
                f"{done} batches were trained on. Received: {len(progress.first_losses)} losses"
            )
        if len(progress.epochs) != progress.epoch:
            raise ValueError(
                f"the figures of {progress.epoch} epochs are wanted. Received: "
                f"{len(progress.epochs)}"
            )
        named = {"learning_rate", *task.figures, "seconds", f"{task.unit}_per_second"}
        for epoch in progress.epochs:
            if set(epoch) != named:
                raise ValueError(f"an epoch has {sorted(named)}. Received: {sorted(epoch)}")


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
        self.machine = machine() | {"processes": processes.process_count()}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def resume(self) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            CheckpointError: there is none, it cannot be read, or it is of another run.
        """
        saved = Saved.read(self.checkpoint)
        mine, its = self._identity(), saved.identity
        differing = [key for key in mine if its.get(key) != mine[key]]
        if differing:
            shown = "; ".join(f"{k}: {its.get(k)!r} there, {mine[k]!r} here" for k in differing)
            raise CheckpointError(f"{self.checkpoint} belongs to another run ({shown}).")
        saved.restore(self.task, self.checkpoint)
        self.progress = saved.progress

    def train(self, hooks: Hooks, checkpoint_seconds: float) -> bool:
        """Train to the last epoch and test; False if it was stopped before, at a checkpoint.

        Raises:
            ArithmeticError: a loss or another figure is not finite.
            FileError: a checkpoint or the result cannot be written.
        """
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
                stop, due = processes.any_process(hooks.stop(), now - saved > checkpoint_seconds)
                if stop:
                    self.save()
                    return False
                if due:
                    self.save()
                    saved = now
            figures = self.task.after_epoch(progress.nats / progress.batch)
            self._check_finite(figures)
            progress.epochs.append(
                {
                    "learning_rate": rate,
                    **figures,
                    "seconds": progress.epoch_seconds,
                    f"{self.task.unit}_per_second": self.task.size() / progress.epoch_seconds,
                }
            )
            progress.epoch, progress.batch = progress.epoch + 1, 0
            if self.over():
                final = self.task.at_end()
                self._check_finite(final)
                progress.final = final
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
        """Write the checkpoint and the result so far, each atomically.

        Raises:
            FileError: one of them cannot be written; what was there before stays.
        """
        record = {
            "identity": self._identity(),
            "calls": self.task.calls(),
            "progress": asdict(self.progress),
        }
        arrays = self.task.arrays()  # of all processes: each takes part
        with processes.fail_together():
            if processes.is_main_process():
                checkpoint.save(self.checkpoint, arrays, record)
                line = json.dumps(self.result(), allow_nan=False) + "\n"
                write_atomically(self.folder / "result.json", line)

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

    def _check_finite(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            if type(value) is float and not math.isfinite(value):
                raise ArithmeticError(
                    f"{self.config.name}: {name} is {value} after epoch {self.progress.epoch + 1}. "
                    f"Take a lower learning rate or clip more."
                )

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be this run's; it may train for longer."""
        config = {k: v for k, v in self.config.to_dict().items() if k != "epochs"}
        return config | self.task.record() | {"recipe": repr(self.recipe)}


def check_count(name: str, value: Any) -> int:
    """A whole number from 0 up, or ValueError."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number from 0 up. Received: {_short(value)}")
    return value


def _check_figure(name: str, value: Any, least: float = -math.inf) -> None:
    # An int of JSON can be larger than any float, and none of these figures is one.
    if type(value) is not float or not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be a finite number. Received: {_short(value)}")


def _check_arrays(arrays: Arrays, expected: Arrays) -> None:
    """Refuse arrays that are not the model's by name, type or shape, or are not finite, but where
    the model's own are not either when it begins."""
    if set(arrays) != set(expected):
        differing = sorted(set(arrays) ^ set(expected))
        raise ValueError(f"it has other arrays than the model. Differing: {_short(differing)}")
    for name, array in arrays.items():
        own = expected[name]
        if (array.shape, array.dtype) != (own.shape, own.dtype):
            raise ValueError(
                f"{name} must be {own.dtype} {own.shape}. Received: {array.dtype} {array.shape}"
            )
        if not (np.isfinite(array) | (array == own)).all():
            raise ValueError(f"{name} has values that are not finite")


def _short(value: Any) -> str:
    return reprlib.repr(value)
