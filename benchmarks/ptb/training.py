"""The training loop: epochs, validation, checkpoints, resumption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..checkpoint import CheckpointError
from ..machine import machine, versions
from .batches import columns, evaluation_windows, window_count, windows
from .config import RunConfig
from .corpus import Corpus
from .engine import Engine, perplexity
from .presets import learning_rate

FIRST_STEPS = 200
"""How many steps' losses are kept for comparing backends."""

WARM_UP = 0.25
"""What the learning rate of these steps is multiplied by in runs with a common start. At the
recipe's full rate the first steps are chaotic: the last bit of one bias soon shows in the loss, and
no two backends, or machines, can be compared."""

TEST_STEPS = 400
"""The window of the test, which runs as one column; the figure does not depend on it."""


@dataclass
class Progress:
    """How far a run has come; all of it is saved, so that a resumed run is the same run."""

    epoch: int = 0
    window: int = 0
    nats: float = 0.0
    """Sum over this epoch's windows of the mean nats per token."""
    seconds: float = 0.0
    """Wall time of this and all earlier sittings."""
    epoch_seconds: float = 0.0
    first_losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    test_perplexity: float | None = None


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside: after every window, and after every epoch."""

    window: Callable[[Progress, int, float], None]
    epoch: Callable[[Progress], None]
    stop: Callable[[], bool]
    """Asked after every window; True ends the run at a checkpoint."""


class Run:
    """One run in its folder: `checkpoint.safetensors` and `result.json`."""

    def __init__(self, config: RunConfig, corpus: Corpus, engine: Engine, folder: Path) -> None:
        self.config, self.corpus, self.engine, self.folder = config, corpus, engine, folder
        self.preset = config.recipe
        self.progress = Progress()
        self.columns = columns(corpus.train, self.preset.batch)
        self.windows = window_count(self.columns, self.preset.window)
        # Asked now: the checkout may have moved on when the run ends.
        self.versions, self.machine = versions(), machine()

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
        weights = {k: v for k, v in arrays.items() if not k.startswith("carried.")}
        expected = {name: array.shape for name, array in self.engine.weights().items()}
        if {name: array.shape for name, array in weights.items()} != expected:
            raise CheckpointError(f"{self.checkpoint} holds the weights of another model.")
        carried = {k.removeprefix("carried."): v for k, v in arrays.items() if k not in weights}
        self.engine.restore(weights, carried, int(record["calls"]))
        self.progress = Progress(**record["progress"])

    def train(self, hooks: Hooks, checkpoint_seconds: float) -> bool:
        """Train to the last epoch and test; False if it was stopped before, at a checkpoint."""
        progress = self.progress
        clock = saved = time.monotonic()
        while progress.epoch < self.config.epochs:
            rate = learning_rate(self.preset, progress.epoch)
            if progress.window == 0:
                self.engine.reset()
                progress.nats = progress.epoch_seconds = 0.0
            for x, y in windows(self.columns, self.preset.window, start=progress.window):
                warming = self.config.same_start and len(progress.first_losses) < FIRST_STEPS
                loss = self.engine.train_window(x, y, WARM_UP * rate if warming else rate)
                if not math.isfinite(loss):
                    raise ArithmeticError(
                        f"{self.config.name}: the loss is {loss} in epoch {progress.epoch + 1}, "
                        f"window {progress.window + 1}."
                    )
                if len(progress.first_losses) < FIRST_STEPS:
                    progress.first_losses.append(loss)
                progress.nats += loss
                progress.window += 1
                now = time.monotonic()
                progress.seconds += now - clock
                progress.epoch_seconds += now - clock
                clock = now
                hooks.window(progress, self.windows, rate)
                if hooks.stop():
                    self.save()
                    return False
                if now - saved > checkpoint_seconds:
                    self.save()
                    saved = now
            valid = self._perplexity(self.corpus.valid, self.preset.batch, self.preset.window)
            progress.epochs.append(
                {
                    "learning_rate": rate,
                    "train_perplexity": math.exp(progress.nats / progress.window),
                    "valid_perplexity": valid,
                    "seconds": progress.epoch_seconds,
                    "words_per_second": self._words() / progress.epoch_seconds,
                }
            )
            progress.epoch, progress.window = progress.epoch + 1, 0
            if progress.epoch == self.config.epochs:
                progress.test_perplexity = self._perplexity(self.corpus.test, 1, TEST_STEPS)
            now = time.monotonic()
            progress.seconds += now - clock
            clock = now
            self.save()
            hooks.epoch(progress)
        return True

    def save(self) -> None:
        """Write the checkpoint and the result so far, each atomically."""
        carried = {f"carried.{name}": array for name, array in self.engine.carried().items()}
        record = {
            "identity": self._identity(),
            "calls": self.engine.calls(),
            "progress": asdict(self.progress),
        }
        checkpoint.save(self.checkpoint, self.engine.weights() | carried, record)
        checkpoint.write_atomically(self.folder / "result.json", _json_line(self.result()))

    def result(self) -> dict[str, Any]:
        """The run's line of results."""
        progress = self.progress
        return {
            "run": self.config.name,
            "config": self.config.to_dict(),
            "corpus": self._corpus_record(),
            "finished": progress.epoch >= self.config.epochs,
            "epochs": progress.epochs,
            "test_perplexity": progress.test_perplexity,
            "wall_seconds": progress.seconds,
            "first_losses": progress.first_losses,
            "versions": self.versions,
            "machine": self.machine,
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be this run's; it may train for longer."""
        config = {k: v for k, v in self.config.to_dict().items() if k != "epochs"}
        return config | {"corpus": self._corpus_record(), "recipe": repr(self.preset)}

    def _corpus_record(self) -> dict[str, Any]:
        corpus = self.corpus
        return {
            "name": corpus.name,
            "tokens": [len(corpus.train), len(corpus.valid), len(corpus.test)],
            "vocabulary": len(corpus.vocabulary),
            "floor": corpus.floor,
        }

    def _words(self) -> int:
        return self.windows * self.preset.window * self.preset.batch

    def _perplexity(self, tokens: Any, batch: int, steps: int) -> float:
        return perplexity(self.engine, evaluation_windows(tokens, batch, steps))


def _json_line(record: dict[str, Any]) -> str:
    import json

    return json.dumps(record) + "\n"
